"""A user who tests 50 seeds on the same data: the deflated Sharpe ratio of the best one.

PPO for 2,048 steps on `discrete_trading`, S&P 500, tested on the last 750 bars; then all other run
folders are deleted, and it is tested again. The index is one of its own.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import tradax
from tradax import held_out

SEEDS = 50
SETTINGS = {"num_envs": 8, "n_steps": 32, "minibatches": 2, "hidden_sizes": [16]}


def main() -> None:
    print("| best of | annual Sharpe | probabilistic | deflated | folders gone |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as base:
        index = str(Path(base) / "trials.jsonl")
        with mock.patch.dict(os.environ, {"TRADAX_TRIALS": index}):
            best = _search(Path(base))
            for folder in Path(base).glob("run-*"):
                if folder != best:
                    shutil.rmtree(folder)
            _print(SEEDS, _again(best))


def _search(base: Path) -> Path:
    """Train the seeds one by one. Returns: the best one's folder."""
    sharpes: dict[Path, float] = {}
    for seed in range(SEEDS):
        folder = base / f"run-{seed}"
        result = tradax.train(
            env="discrete_trading",
            data="sp500",
            total_timesteps=2_048,
            evaluations=2,
            skip_posterior=True,
            settings={"ppo": SETTINGS},
            seed=seed,
            out=folder,
        )
        sharpes[folder] = result.summary["strategies"]["policy"]["sharpe"] or 0.0
        if seed + 1 in (1, 5, 20, SEEDS):
            _print(seed + 1, _again(max(sharpes, key=lambda folder: sharpes[folder])))
    return max(sharpes, key=lambda folder: sharpes[folder])


def _again(folder: Path) -> dict[str, Any]:
    tested = held_out.retest(folder, skip_posterior=True, write=False)
    return tested["verdict"]["figures"]


def _print(seeds: int, figures: dict[str, Any]) -> None:
    assert figures["test_span_used_times"] == seeds
    print(
        f"| {seeds} | {figures['sharpe']:.2f} | {figures['probabilistic_sharpe']:.3f} "
        f"| {figures['deflated_sharpe']:.3f} | {figures['trials_missing']:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
