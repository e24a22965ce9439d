"""Runs that are killed at random moments, resumed, and compared with the run that was let be.

SIGNALS (an environment variable; SIGKILL,SIGTERM by default), KILLS times each (50), for PPO, SAC
and the genetic algorithm in turn; every third kill in the middle of writing a checkpoint. After the
last resume the newest checkpoint (parameters, optimiser, keys, environments, buffer), the rows of
metrics.jsonl but for times, and the policy files must be the same bit by bit, on a CPU.

The processes are forked from one that has imported the libraries, and computed nothing.
"""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np

from tradax.checkpoint import read_newest

RUNS = {
    "ppo": "--env CartPole-v1 --timesteps 100000 --ppo.num-envs 8 --ppo.n-steps 32 "
    "--ppo.hidden-sizes 16 --evaluations 5",
    "sac": "--env Pendulum-v1 --timesteps 3000 --sac.replay-size 2000 --sac.hidden-sizes 16 "
    "--sac.learning-starts 100 --sac.batch-size 64 --evaluations 3",
    "genetic": "--env CartPole-v1 --timesteps 600000 --genetic.population-size 64 "
    "--genetic.hidden-sizes 8 --evaluations 3",
}
_LIMIT_SECONDS = 1800
_CONTEXT = multiprocessing.get_context("forkserver")
_LIBRARIES = ["jax", "equinox", "optax", "orbax.checkpoint", "tensorboardX", "polars", "tyro"]


def main() -> None:
    kills = int(os.environ.get("KILLS", "50"))
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(base / "cache")  # compiled once, by the first run
        os.environ["JAX_PLATFORMS"] = "cpu"
        _CONTEXT.set_forkserver_preload(_LIBRARIES)
        whole = {}
        for algorithm in RUNS:
            for attempt in ("cold", "whole"):
                folder = base / f"{algorithm}-{attempt}"
                child = _start(algorithm, folder, resume=False)
                began = _begun(child, folder)
                assert _end(child) == 0, _said(folder)
            whole[algorithm] = (folder, time.monotonic() - began)
            print(f"{algorithm}: {whole[algorithm][1]:.1f} s undisturbed", flush=True)
        lost = 0
        for sent in os.environ.get("SIGNALS", "SIGKILL,SIGTERM").split(","):
            lost += _campaign(signal.Signals[sent], kills, whole, base)
        sys.exit(1 if lost else 0)


def _campaign(number: signal.Signals, kills: int, whole: dict, base: Path) -> int:
    draw = random.Random(number)
    struck, ended, lost = 0, 0, 0
    phases, codes, kinds = Counter(), Counter(), Counter()
    for turn in range(10 * kills):
        if struck >= kills:
            break
        algorithm = list(RUNS)[turn % len(RUNS)]
        reference, seconds = whole[algorithm]
        folder = base / f"{number.name}-{turn}"
        here = 0
        while here < 3 and struck < kills:  # a run may be killed several times
            child = _start(algorithm, folder, resume=(folder / "config.yaml").exists())
            in_checkpoint = draw.random() < 1 / 3
            code = _strike(child, number, folder, draw.uniform(0, seconds), in_checkpoint)
            if code is None:
                break
            codes[code] += 1
            kinds[algorithm] += 1
            phases[_phase(folder)] += 1
            struck, here = struck + 1, here + 1
        code = 0
        if not (folder / "summary.json").exists():
            child = _start(algorithm, folder, resume=(folder / "config.yaml").exists())
            code = _end(child)
        ended += 1
        if wrong := f"exit {code}: {_said(folder)}" if code else difference(reference, folder):
            lost += here
            print(f"{number.name} {algorithm} {folder.name}: {wrong}", flush=True)
    print(
        f"{number.name}: {struck} kills of {ended} runs ({dict(kinds)}; {dict(phases)}; exits "
        f"{dict(codes)}); resumes lost: {lost} of {struck}",
        flush=True,
    )
    return lost


def _start(algorithm: str, folder: Path, *, resume: bool) -> ForkServerProcess:
    options = f"--resume {folder}" if resume else f"{RUNS[algorithm]} --out {folder}"
    arguments = f"train --algorithm {algorithm} {options} --checkpoint-seconds 0".split()
    child = _CONTEXT.Process(target=_tradax, args=(arguments, f"{folder}.log"))
    child.start()
    return child


def _tradax(arguments: list[str], log: str) -> None:
    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from tradax.cli import main

    sys.exit(main(arguments))


def _end(child: ForkServerProcess) -> int:
    """Wait for it. Returns: its exit code, or the negative number of a signal."""
    child.join(_LIMIT_SECONDS)
    assert child.exitcode is not None, "it does not end"
    return child.exitcode


def _strike(
    child: ForkServerProcess,
    number: signal.Signals,
    folder: Path,
    seconds: float,
    in_checkpoint: bool,
) -> int | None:
    """Send the signal so many seconds after the process has taken its folder, or then at the next
    beginning of a checkpoint.

    Returns: how the child ended; None where it had ended by itself before.
    """
    due = _begun(child, folder) + seconds
    while time.monotonic() < due or (in_checkpoint and not _writing(folder)):
        time.sleep(0.001)
        if child.exitcode is not None:
            assert child.exitcode == 0, _said(folder)
            return None
    assert child.pid is not None
    os.kill(child.pid, number)
    return _end(child)


def _begun(child: ForkServerProcess, folder: Path) -> float:
    """When the process wrote its number into the lock, so without its imports."""
    lock = folder / "run.lock"
    while child.exitcode is None:
        with contextlib.suppress(OSError):
            if f"process {child.pid} " in lock.read_text():
                break
        time.sleep(0.001)
    return time.monotonic()


def _writing(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(path.name[1:].isdigit() for path in (folder / "checkpoints").glob(".*"))
    return False


def _phase(folder: Path) -> str:
    if not (folder / "config.yaml").exists():
        return "before the run was described"
    if _writing(folder):
        return "in mid-checkpoint"
    if (folder / "summary.json").exists():
        return "after the test"
    if (folder / "policy-last.zip").exists():
        return "in the test"
    steps = [p for p in folder.glob("checkpoints/*") if p.name.isdigit()]
    return "between checkpoints" if steps else "before the first checkpoint"


def difference(one: Path, other: Path) -> str | None:
    """What differs between two finished runs; None where nothing does."""
    if _rows(one) != _rows(other):
        return "metrics.jsonl differs"
    for path in one.glob("*.zip"):
        if path.read_bytes() != (other / path.name).read_bytes():
            return f"{path.name} differs"
    first, second = (read_newest(folder / "checkpoints") for folder in (one, other))
    if first.keys() != second.keys():
        return "checkpoints hold different arrays"
    for name, value in first.items():
        # By bytes: NaN is equal to itself here.
        if np.asarray(value).tobytes() != np.asarray(second[name]).tobytes():
            return f"checkpoint: {name} differs"
    return None


def _rows(folder: Path) -> list[dict]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


def _said(folder: Path) -> str:
    return Path(f"{folder}.log").read_text()[-1500:]


if __name__ == "__main__":
    main()
