"""Which device computes, how much of it is taken, and where compiled programs are kept."""

import os
import stat
import subprocess
import sys

import jax
import pytest
from jax._src import xla_bridge
from jaxlib.xla_client import generate_pjrt_gpu_plugin_options

from tradax import cli, device
from tradax.errors import ConfigError
from tradax.options import TrainOptions
from tradax.sweeps import command
from tradax.sweeps.command import SweepOptions

NAMES = (
    "XLA_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "NPROC",
)


@pytest.fixture
def fresh(monkeypatch):
    """As in a process that has computed nothing, with an environment of its own."""
    monkeypatch.setattr(xla_bridge, "backends_are_initialized", lambda: False)
    monkeypatch.setattr(device, "keep_compiled_programs", lambda: None)
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)


def test_jax_opens_a_gpu_with_the_share_and_without_preallocating(fresh, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")  # the old name gives way
    TrainOptions(gpu_memory_fraction=0.25, no_preallocate=True).use_device(None)
    opened = generate_pjrt_gpu_plugin_options()
    assert (opened["memory_fraction"], opened["preallocate"]) == (0.25, False)


def test_without_options_the_environment_stays_as_it_is(fresh):
    TrainOptions().use_device(None)
    assert not set(NAMES) & set(os.environ)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(fresh, share):
    with pytest.raises(ConfigError, match=r"over 0 and at most 1"):
        device.use("auto", memory_fraction=share)


def test_once_jax_computes_its_memory_is_settled():
    jax.devices()
    with pytest.raises(ConfigError, match="before anything is computed"):
        device.use("auto", preallocate=False)


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_a_number_of_threads_that_there_is_not_is_refused(fresh, threads):
    with pytest.raises(ConfigError, match=rf"cpu_threads is {threads}; it must be 1 to \d+"):
        TrainOptions(cpu_threads=threads).use_device(None)


def test_once_jax_computes_its_threads_are_settled():
    jax.devices()
    with pytest.raises(ConfigError, match="number of CPU threads is settled"):
        device.use("auto", threads=1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names a process's threads")
@pytest.mark.parametrize("threads", [1, None])
def test_so_many_threads_compute(threads):
    program = f"""
from pathlib import Path
from tradax import device
device.use("cpu", threads={threads})
import jax.numpy as jnp
(jnp.ones((64, 64)) @ jnp.ones((64, 64))).block_until_ready()
names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
print(sum("XLAEigen" in name for name in names))
"""
    environment = {k: v for k, v in os.environ.items() if k != "NPROC"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == (threads or device.cores())


def test_help_says_that_a_cpu_takes_no_share(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = capsys.readouterr().out
    assert "--gpu-memory-fraction" in text
    assert "--no-preallocate" in text


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A folder for caches; JAX keeps the one that it has."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    return tmp_path / "tradax" / "compiled"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_compiled_programs_are_kept_where_only_their_user_can_write(cache):
    cache.parent.mkdir(mode=0o775)
    assert device.keep_compiled_programs() == cache
    assert mode(cache) == mode(cache.parent) == 0o700
    cache.chmod(0o755)  # others could read: no harm was done
    assert device.keep_compiled_programs() == cache
    assert mode(cache) == 0o700


def test_a_cache_that_others_can_write_to_is_left_alone(cache):
    cache.mkdir(parents=True)
    for open_to in (0o770, 0o702):
        cache.chmod(open_to)
        assert device.keep_compiled_programs() is None
        assert mode(cache) == open_to


@pytest.mark.parametrize("level", ["inner", "outer"])
def test_a_cache_behind_a_link_is_left_alone(cache, tmp_path, level):
    link = cache if level == "inner" else cache.parent
    link.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    link.symlink_to(tmp_path / "elsewhere")
    assert device.keep_compiled_programs() is None


def test_a_cache_of_another_user_is_left_alone(cache, monkeypatch):
    cache.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: cache.stat().st_uid + 1)
    assert device.keep_compiled_programs() is None


@pytest.mark.parametrize(
    ("options", "devices"),
    [({"cpu_threads": 1}, 1), ({"cpu_threads": 1, "devices": 3}, 3), ({}, device.cores())],
)
def test_a_sweep_simulates_a_device_a_thread_unless_told(monkeypatch, options, devices):
    class Settled(Exception):
        pass

    def use(_, *, simulated, threads, **__):
        raise Settled(simulated, threads)

    monkeypatch.setattr(device, "use", use)
    with pytest.raises(Settled) as settled:
        command.sweep(SweepOptions(**options), {}, "tradax sweep")
    assert settled.value.args == (devices, options.get("cpu_threads"))
