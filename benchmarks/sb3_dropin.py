"""An unchanged program of Stable-Baselines3 on `tradax/Trading-v0`, with and without `install()`.

The program is `benchmarks/_sb3_program.py`: default hyperparameters on both sides, real prices, the
environment made by `gymnasium.make`. Steps a second after the first update, medians of alternating
runs in processes of their own; of Stable-Baselines3 the faster of one thread and all.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

REPEATS = 3
# Algorithm, environments, steps of Stable-Baselines3, steps of tradax, least ratio.
ROWS = (
    ("PPO", 1, 4_096, 204_800, 20.0),
    ("PPO", 8, 16_384, 409_600, 20.0),
    ("A2C", 8, 8_000, 400_000, 20.0),
    ("SAC", 1, 200, 1_000, None),
)
INSTALL = (
    "import runpy, sys; from tradax import sb3; sb3.install(); "
    "runpy.run_module('benchmarks._sb3_program', run_name='__main__')"
)


def main() -> None:
    print(
        "| algorithm | environments | Stable-Baselines3 | tradax | ratio | first update, seconds "
        "(theirs, ours) | goal |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, environments, their_steps, steps, goal in ROWS:
        theirs, ours = [], []
        for _ in range(REPEATS):
            theirs += [
                timed(["-m", "benchmarks._sb3_program"], name, environments, their_steps, threads)
                for threads in sorted({1, os.cpu_count() or 1})
            ]
            ours.append(timed(["-c", INSTALL], name, environments, steps))
        threads = len(theirs) // REPEATS
        speeds = np.array([run["speed"] for run in theirs]).reshape(REPEATS, threads)
        their_speed = np.median(speeds, axis=0).max()
        speed = np.median([run["speed"] for run in ours])
        first = [np.median([run["first"] for run in runs]) for runs in (theirs, ours)]
        ratio = speed / their_speed
        held = "-" if goal is None else f"{goal:g}x{'' if ratio >= goal else ' MISSED'}"
        print(
            f"| {name} | {environments} | {their_speed:,.0f} | {speed:,.0f} | {ratio:.1f}x | "
            f"{first[0]:.1f}, {first[1]:.1f} | {held} |",
            flush=True,
        )


def timed(start: list[str], *arguments: object) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
