"""Shared by all tests: the CPU, and a cache of compiled programs of their own."""

import atexit
import os
import pathlib
import shutil
import tempfile

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
# No test touches the user's index of trials, nor sees another test's; those of it name their own.
os.environ["TRADAX_TRIALS"] = "off"
# Here programs are compiled for seconds and run for less.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# The older way of compiling fused loops takes half the time to compile.
if "fusion_emitters" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
    )
if "PYTEST_XDIST_WORKER" not in os.environ:
    # Set before workers start, so that they share it and compile nothing twice.
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="tradax-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def pytest_configure(config):
    from tradax import device  # after the environment is settled

    device.keep_compiled_programs()


MOST_MAPS = 16_000  # and some 2 GB


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Each compiled program holds several memory maps, of which a process can have only so many
    (65,530 by default): beyond that the compiler crashes. Until then modules share programs.
    """
    yield
    import jax

    maps = pathlib.Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest, a program of 90 seconds, for which all would wait at the end."""
    items.sort(key=lambda item: item.path.name != "test_parallel.py")
