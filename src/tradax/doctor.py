"""The command `tradax doctor`: what one pastes into a bug report.

Versions, devices, memory, the cache of compiled programs, and a self-test of some seconds: train,
save, load, and compare with known values. No name of a user, a host or a folder of one's own.
"""

import dataclasses
import os
import platform
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tradax.errors import TradaxError


@dataclasses.dataclass(kw_only=True)
class DoctorOptions:
    """Versions, devices, memory and a self-test of some seconds, for a bug report.

    It holds no name of a user or a host; the home directory is shown as ~."""

    skip_test: bool = False
    """Leave out the self-test."""
    debug: bool = False
    """Show tracebacks."""


def doctor(options: DoctorOptions) -> int:
    """Print findings as they come. Returns: the exit code, 2 where the self-test failed."""
    from tradax import device

    folder = device.keep_compiled_programs()
    for line in (*_versions(), *_devices(), *_memory(), *_cache(folder)):
        print(without_names(line), flush=True)
    if options.skip_test:
        return 0
    failed = 0
    for name, test in SELF_TESTS.items():
        began = time.perf_counter()
        try:
            outcome = test()
        except Exception as error:  # whatever it is belongs into the report
            if options.debug:
                raise
            outcome, failed = f"FAILED: {type(error).__name__}: {error}", failed + 1
        seconds = time.perf_counter() - began
        print(without_names(f"{name + ':':<12} {outcome} ({seconds:.1f} s)"), flush=True)
    print("self-test:   " + (f"{failed} of {len(SELF_TESTS)} failed" if failed else "passed"))
    return TradaxError.exit_code if failed else 0


def without_names(text: str) -> str:
    """The same with ~ for the home directory, and without the names of user and host."""
    text = text.replace(str(Path.home()), "~").replace(tempfile.gettempdir() + os.sep, "/tmp/")
    for name, shown in ((_user(), "USER"), (platform.node(), "HOST")):
        # A short name may be part of any word; only as part of a path does it give someone away.
        if len(name) > 2:
            text = text.replace(f"/{name}/", f"/{shown}/")
        if len(name) > 5:
            text = text.replace(name, shown)
    return text


def _user() -> str:
    return os.environ.get("USER") or os.environ.get("USERNAME") or ""


def _versions() -> Iterator[str]:
    from tradax.run_directory import versions

    found = versions()
    yield f"tradax:      {found.pop('tradax')}"
    yield f"python:      {found.pop('python')}, {platform.python_implementation()}"
    yield f"system:      {platform.system()} {platform.release()}, {platform.machine()}"
    yield "libraries:   " + ", ".join(f"{name} {version}" for name, version in found.items())


def _devices() -> Iterator[str]:
    import jax

    yield f"processors:  {os.cpu_count()}"
    for one in jax.devices():
        stats = one.memory_stats() or {}
        limit, used = (stats.get(name) for name in ("bytes_limit", "bytes_in_use"))
        free = "" if limit is None else f", {(limit - (used or 0)) / 2**30:.1f} GiB free"
        yield f"device:      {one.platform} {one.id}, {one.device_kind}{free}"
    names = ("JAX_", "XLA_", "CUDA_VISIBLE", "OMP_NUM")
    given = [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        # Addresses name a host, and so may their variables' values.
        if name.startswith(names) and "COORDINATOR" not in name
    ]
    yield "environment: " + (", ".join(given) or "nothing that concerns JAX")


def _memory() -> Iterator[str]:
    from tradax.replay import free_host_memory

    free = free_host_memory()
    known = "unknown" if free is None else f"{free / 2**30:.1f} GiB free"
    yield f"memory:      {known} for this process, beside that of devices"


def _cache(folder: Path | None) -> Iterator[str]:
    if folder is None:
        yield "cache:       none (no folder that only this user can write to)"
        return
    files = [file.stat().st_size for file in folder.iterdir() if file.is_file()]
    mode = stat.S_IMODE(folder.stat().st_mode)
    safe = "" if mode == 0o700 else ", which should be 0700"
    yield (
        f"cache:       {folder}, mode {mode:04o}{safe}, {len(files)} files, "
        f"{sum(files) / 2**20:.0f} MiB"
    )


def _known_optimum() -> str:
    """Almgren and Chriss (2000): the least cost of selling a million shares in five days."""
    from tradax.almgren_chriss import AlmgrenChriss

    utility = AlmgrenChriss().utility()  # the paper's own example
    if abs(utility - 1_275_355.56) > 1.0:
        raise ValueError(f"{utility:,.2f} is not 1,275,355.56")
    return f"{utility:,.2f} as known"


def _training() -> str:
    """A few updates of PPO, whose policy is saved, loaded and asked again."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from tradax.algorithms import ppo
    from tradax.envs.probes import Bandit
    from tradax.model_file import load_policy, save_policy
    from tradax.policies import NetworkPolicy
    from tradax.rollout import jax_source
    from tradax.training import train

    config = ppo.Config(
        num_envs=32, n_steps=8, minibatches=2, hidden_sizes=(16,), learning_rate=1e-2
    )
    source = jax_source(Bandit(), num_envs=config.num_envs)
    algorithm = ppo.make(config, source.spec, jnp.float32(1))
    steps = 60 * algorithm.steps_per_update
    trained = train(algorithm, source, jax.random.key(0), total_timesteps=steps, log_rows=4)
    learned = trained.rows[0][-1]["return"]
    if learned < 0.9 * Bandit.best_return:
        raise ValueError(
            f"mean return {learned:.2f} of {Bandit.best_return:.2f} after {steps} steps"
        )
    assert isinstance(trained.policy, NetworkPolicy)
    obs = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.zip"
        save_policy(trained.policy, path)
        same = np.array_equal(load_policy(path).act(obs), trained.policy.act(obs))
    if not same:
        raise ValueError("a saved policy acts otherwise than before")
    return f"mean return {learned:.2f} of {Bandit.best_return:.2f}, saved and loaded"


def _data() -> str:
    """Bars, features and their normaliser, of a process with a seed."""
    import numpy as np

    from tradax.data.pipeline import Pipeline
    from tradax.data.synthetic import geometric_brownian_motion

    bars = geometric_brownian_motion(400, seed=0)
    pipeline = Pipeline.fit(bars)
    (market,) = pipeline.transform(bars)
    if not np.isfinite(market.table).all():
        raise ValueError("features are not finite")
    with tempfile.TemporaryDirectory() as folder:
        pipeline.save(folder)
        (again,) = Pipeline.load(folder).transform(bars)
    if not np.array_equal(market.table, again.table):
        raise ValueError("a saved pipeline gives other features")
    return f"{len(market.names)} features of {len(bars)} bars, saved and loaded"


SELF_TESTS: dict[str, Callable[[], str]] = {
    "execution": _known_optimum,
    "data": _data,
    "training": _training,
}
"""Each returns what it found, or raises."""
