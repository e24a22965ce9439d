"""What searches without gradients learn: CartPole-v1, 10 seeds, 100 fresh greedy episodes.

Three million steps, counted as if every episode took its limit of 500. The claim: at least 8 of 10
seeds hold the pole for 500 steps in every episode.
"""

import time

from benchmarks.learning import evaluated, iqm, trained

STEPS, LEAST = 3_000_000, 8
ALGORITHMS = {
    "hill_climbing": {},
    "simulated_annealing": {"episodes": 8},
    "cem": {},
    "evolution_strategies": {},
    "genetic": {
        "population_size": 32,
        "episodes": 8,
        "initial_scale": 0.3,
        "mutation_scale": 0.1,
    },
}


def main() -> None:
    print("| algorithm | options | seeds at 500 | IQM | worst | seconds |")
    print("|---|---|---|---|---|---|")
    for name, options in ALGORITHMS.items():
        start = time.perf_counter()
        scores = evaluated(trained(name, "CartPole-v1", None, STEPS, options), "CartPole-v1")
        solved = int((scores >= 500.0).sum())
        listed = ", ".join(f"{key} {value}" for key, value in options.items()) or "defaults"
        print(
            f"| {name} | {listed} | {solved} of 10 | {iqm(scores):.1f} | {scores.min():.1f} | "
            f"{time.perf_counter() - start:.0f} |{'' if solved >= LEAST else ' DOES NOT HOLD'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
