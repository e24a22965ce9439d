"""20 stocks x 16 seeds, PPO, 100,000 steps each, as one sweep on a simulated device a core;
against the same runs one after the other in one warm process, and against Stable-Baselines3 on
`tradax/Trading-v0` with 8 environments (three runs with one thread and three with all; the faster
median, extrapolated).

Memory is the process's peak. The sweep's time has everything in it: data, compilation, validation,
the tests of the 20 winners and their reports. The single runs' has training and validation only.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.sb3_dropin import timed

SEEDS, STEPS = 16, 100_000
CHECKED = 5


def main() -> None:
    swept = _in_a_process("swept")
    alone = _in_a_process("alone")
    theirs = [
        np.median([_their_speed(threads) for _ in range(3)])
        for threads in sorted({1, os.cpu_count() or 1})
    ]
    runs = swept["runs"]
    sequential = alone["seconds_each"] * runs
    extrapolated = runs * STEPS / max(theirs)
    print(f"{runs} runs of {STEPS:,} steps, {os.cpu_count()} cores")
    print(f"| sweep, in all | {swept['seconds']:.0f} s |")
    print(f"| one after the other, from {alone['runs']} warm runs | {sequential:.0f} s |")
    print(
        f"| Stable-Baselines3, {max(theirs):,.0f} steps/s, extrapolated | {extrapolated:,.0f} s |"
    )
    print(f"| share of one after the other (goal 0.8) | {swept['seconds'] / sequential:.2f} |")
    print(f"| Stable-Baselines3 / sweep (goal 100) | {extrapolated / swept['seconds']:.0f} |")
    print(f"| compilations of the training program (goal 1) | {swept['compilations']} |")
    print(
        f"| memory announced, measured (goal within 10%) | {swept['announced']:.0f}, "
        f"{swept['peak']:.0f} MiB |"
    )
    difference = max(
        float(np.max(np.abs(np.array(swept["weights"][name]) - np.array(weights))))
        for name, weights in alone["weights"].items()
    )
    print(f"| largest difference of a weight, of {CHECKED} members | {difference:.1e} |")


def _their_speed(threads: int) -> float:
    return timed(["-m", "benchmarks._sb3_program"], "PPO", 8, 20_000, threads)["speed"]


def swept() -> dict:
    """The sweep."""
    import jax

    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    import resource

    import tradax
    from tradax.sweeps import experiment

    started, compiled = time.perf_counter(), []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **about: (
            compiled.append(about.get("fun_name"))
            if event == "/jax/core/compile/backend_compile_duration"
            else None
        )
    )
    announced = []
    peak = experiment.peak
    experiment.peak = lambda size: announced.append(peak(size)) or announced[-1]
    with tempfile.TemporaryDirectory() as folder:
        result = tradax.sweep(
            data="us20",
            seeds=SEEDS,
            total_timesteps=STEPS,
            devices=os.cpu_count() or 1,
            skip_posterior=True,
            out=Path(folder) / "sweep",
            progress=True,
        )
        seconds = time.perf_counter() - started
        weights = {}
        for member in result.members[:: SEEDS + 1][:CHECKED]:
            policy = tradax.load_policy(
                result.run_dir / "members" / f"{member['number']:05d}" / "policy-last.zip"
            )
            weights[f"{member['symbol']} {member['seed']}"] = _flat(policy)
    return {
        "runs": len(result.members),
        "seconds": seconds,
        "compilations": sum(name is not None and "_run_chunk" in name for name in compiled),
        "announced": announced[0] / 2**20,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        "weights": weights,
    }


def alone() -> dict:
    """Two runs of every symbol, one after the other, after one that compiles."""
    import equinox as eqx
    import jax

    from tradax import device, training
    from tradax.preparation import Request, prepare

    device.keep_compiled_programs()
    tasks = [
        prepare(
            Request(algorithm="ppo", env="trading", data="us20", symbols=[s], total_timesteps=STEPS)
        )
        for s in prepare(
            Request(algorithm="ppo", env="trading", data="us20", total_timesteps=STEPS)
        ).bars.symbols
    ]

    def run(task, seed):
        return training.train(
            task.algorithm,
            task.source,
            jax.random.key(seed),
            total_timesteps=STEPS,
            evaluate=task.evaluate,
            log_rows=20,
        )

    weights = {}
    for number in range(CHECKED):  # compiles, for every symbol its validation too
        trained = run(tasks[number], number)
        weights[f"{tasks[number].bars.symbols[0]} {number}"] = _flat(trained.policy)
    for task in tasks[CHECKED:]:
        eqx.filter_jit(task.evaluate)(trained.policy)
    started, runs = time.perf_counter(), 0
    for seed in (0, 1):
        for task in tasks:
            run(task, seed)
            runs += 1
    return {
        "runs": runs,
        "seconds_each": (time.perf_counter() - started) / runs,
        "weights": weights,
    }


def _flat(policy) -> list[float]:
    import tradax

    return np.asarray(tradax.flatten_policy(policy), np.float64).tolist()


def _in_a_process(function: str) -> dict:
    code = f"import json; from benchmarks import sweep; print(json.dumps(sweep.{function}()))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
