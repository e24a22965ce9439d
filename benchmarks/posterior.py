"""How often the posterior's 90% intervals hold the truth, over simulated series of known truth.

Benchmark: 0.0003 a bar on average, deviation 0.01. Strategies: one of its own kind, independent of
the benchmark, with normal and with Student-t returns (4 degrees of freedom); the benchmark on a
random half of the bars; 0.0002 plus half the benchmark plus noise; long in three bars of four,
short in the others. Series of which nothing was stated are counted apart.

SERIES (200) of each kind and length, BARS ("750 2520") long.
"""

import os
import time
from typing import NamedTuple

import numpy as np

from tradax.evaluation.posterior import sharpe_posterior

DAYS = 252.0
MEAN, DEVIATION = 3e-4, 0.01
SERIES = int(os.environ.get("SERIES", "200"))
LENGTHS = tuple(int(bars) for bars in os.environ.get("BARS", "750 2520").split())
FIGURES = ("sharpe", "excess", "alpha", "beta")


class Case(NamedTuple):
    """Returns of strategy and benchmark, and the true figures."""

    returns: np.ndarray
    benchmark: np.ndarray
    truth: dict[str, float]


def main(series: int = SERIES, lengths: tuple[int, ...] = LENGTHS) -> None:
    print("| strategy | bars | " + " | ".join(FIGURES) + " | not stated | seconds a series |")
    print("|---" * (len(FIGURES) + 4) + "|", flush=True)
    wrong = []
    for name in ("normal", "Student-t", "half", "half beta", "both sides"):
        for n in lengths:
            held = dict.fromkeys(FIGURES, 0)
            stated = dict.fromkeys(FIGURES, 0)
            began = time.perf_counter()
            for seed in range(series):
                case = simulated(name, n, seed)
                found = sharpe_posterior(case.returns, DAYS, benchmark=case.benchmark, seed=seed)
                for figure in FIGURES:
                    interval = getattr(found, f"{figure}_interval")
                    if interval is not None:
                        stated[figure] += 1
                        held[figure] += interval[0] < case.truth[figure] < interval[1]
            share = {f: held[f] / max(stated[f], 1) for f in FIGURES}
            silent = 1.0 - min(stated.values()) / series
            seconds = (time.perf_counter() - began) / series
            print(
                f"| {name} | {n:,} | "
                + " | ".join(f"{share[f]:.1%}" for f in FIGURES)
                + f" | {silent:.1%} | {seconds:.1f} |",
                flush=True,
            )
            wrong += [f"{f} of {name}" for f in FIGURES if not 0.85 <= share[f] <= 0.95]
    if wrong:
        print(f"\noutside 85% to 95%: {', '.join(wrong)}")


def simulated(name: str, n: int, seed: int) -> Case:
    rng = np.random.default_rng([seed, n])
    tails = name in ("Student-t", "half beta")

    def noise() -> np.ndarray:
        return rng.standard_t(4, n) / np.sqrt(2.0) if tails else rng.standard_normal(n)

    benchmark = MEAN + DEVIATION * noise()
    if name in ("normal", "Student-t"):
        mean, variance, beta = 4e-4, DEVIATION**2, 0.0
        returns = mean + DEVIATION * noise()
    elif name == "half beta":
        beta = 0.5
        mean = 2e-4 + beta * MEAN
        variance = (beta * DEVIATION) ** 2 + 0.005**2
        returns = 2e-4 + beta * benchmark + 0.005 * noise()
    else:
        chosen = rng.random(n) < (0.5 if name == "half" else 0.75)
        returns = np.where(chosen, benchmark, 0.0 if name == "half" else -benchmark)
        beta = 0.5
        mean = beta * MEAN
        square = MEAN**2 + DEVIATION**2
        variance = square * (0.5 if name == "half" else 1.0) - mean**2
    truth = {
        "sharpe": mean / np.sqrt(variance) * np.sqrt(DAYS),
        "excess": (mean - MEAN) * DAYS,
        "alpha": (mean - beta * MEAN) * DAYS,
        "beta": beta,
    }
    return Case(returns, benchmark, truth)


if __name__ == "__main__":
    main()
