"""The process of one side: `python -m benchmarks.peers PLUG CASE`, with the case as JSON.

It says what it is, then answers every line of its input with a timed run and its memory.
"""

import ctypes
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_MIB = 2**20


def main() -> None:
    plug, case = sys.argv[1], json.loads(sys.argv[2])
    out, sys.stdout = sys.stdout, sys.stderr  # libraries print as well
    if "devices" in case:  # simulated ones, of which JAX has to know when it is imported
        os.environ["JAX_NUM_CPU_DEVICES"] = str(case["devices"])
    if "threads" in case:  # XLA's; plugs of torch tell it themselves
        os.environ["NPROC"] = str(case["threads"])

    def say(**answer: object) -> None:
        print(json.dumps(answer), file=out, flush=True)

    steps, run = importlib.import_module(f"benchmarks.peers.{plug}").make(case)
    first = _timed(run)  # compiles
    _forget_peak()
    say(steps=steps, first=first, before=_memory("VmRSS"), versions=_versions(plug))
    for _ in sys.stdin:
        say(seconds=_timed(run), peak=_memory("VmHWM"))


def _timed(run: Callable[[], float | None]) -> float:
    start = time.perf_counter()
    counted = run()
    return time.perf_counter() - start if counted is None else counted


def _memory(line: str) -> float:
    """MiB of physical memory, now (VmRSS) or at most (VmHWM); of the whole life off Linux."""
    status = Path("/proc/self/status")
    if status.exists():
        found = next(x for x in status.read_text().splitlines() if x.startswith(line))
        return int(found.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB


def _forget_peak() -> None:
    """So that the peak is that of steady runs: compiling takes more than many of them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def _versions(plug: str) -> dict[str, str]:
    """Of what the sides are made of, as far as installed here."""
    names = {
        "tradax": ("jax", "jaxlib", "gymnax"),
        "rejax": ("rejax", "gymnax", "jax", "flax"),
        "sb3": ("stable-baselines3", "torch", "gymnasium"),
        "sbx": ("sbx-rl", "jax", "gymnasium"),
        "evosax": ("evosax", "jax", "gymnax"),
        "torch_ga": ("torch", "gymnasium"),
    }.get(plug, (plug.replace("_", "-"),))
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "-"
    if "jax" in sys.modules:
        found["device"] = sys.modules["jax"].devices()[0].device_kind
    return found


if __name__ == "__main__":
    main()
