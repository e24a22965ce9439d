"""How long a user waits: rows of `benchmarks.speed` that time whole commands."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._peers import OURS, ROOT, Side, surroundings

REPEATS = 3
# Name -> what is timed, and the most seconds that are aimed at.
GOALS = {
    "start_test_run": ("`tradax train --test-run`, warm", 12.0),
    "start_first_update": ("`tradax train` until its first update is logged, warm", 8.0),
    "start_cold_compile": ("Compiling a market PPO, cold", 15.0),
}
NAMES = tuple(GOALS)


def measure(name: str) -> dict[str, Any]:
    what, goal = GOALS[name]
    if name == "start_cold_compile":
        seconds = [_compiling() for _ in range(REPEATS)]
    else:
        arguments = ["--test-run"] if name == "start_test_run" else ["--timesteps", "409600"]
        with tempfile.TemporaryDirectory() as folder:
            until_log = name == "start_first_update"
            found = [_command(Path(folder), arguments, i, until_log) for i in range(REPEATS + 1)]
        seconds = found[1:]  # the first fills the cache of compiled programs
    return {"what": what, "goal": goal, "each": seconds, "held": bool(np.median(seconds) <= goal)}


def line(name: str, measured: dict[str, Any]) -> str:
    """Of the table of `benchmarks.speed`."""
    missed = "" if measured["held"] else " MISSED"
    each = measured["each"]
    return (
        f"| {measured['what']} | s | {np.median(each):.1f} ({min(each):.1f}, {max(each):.1f}) | "
        f"- | - | - | at most {measured['goal']:g}{missed} | - | - |"
    )


def _compiling() -> float:
    """How much longer the first update takes than the next, defaults on the S&P 500."""
    case = {"kind": "ppo", "env": "trading", "num_envs": 64, "updates": 1}
    with Side(OURS, case) as side:
        return side.first_seconds - side.steps / side.speed(0.5)


def _command(folder: Path, arguments: list[str], number: int, until_log: bool) -> float:
    """Seconds of `tradax train`: all of it, or until a row of metrics is in its folder."""
    out = folder / str(number)
    program = "import sys; from tradax.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "train", "--out", str(out), *arguments]
    around = surroundings() | {"XDG_CACHE_HOME": str(folder / "cache")}
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=around, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not (until_log and _logged(out)):
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        if process.poll() is None:
            process.terminate()
        elif process.returncode:
            assert process.stderr is not None
            raise SystemExit(f"tradax train failed: {process.stderr.read()[-500:]}")
    return seconds


def _logged(out: Path) -> bool:
    for file in out.rglob("metrics.jsonl"):
        first = file.read_text().partition("\n")[0]
        return bool(first) and json.loads(first)["update"] == 1
    return False
