"""Population-based training against a grid of fixed learning rates: PPO on Pendulum-v1, 10 seeds.

Both train four members a seed for equally many steps, choose on validation, and are judged by the
greedy policy's mean return over 100 fresh episodes. A learning rate of the grid is the same for all
seeds; the best of a grid is what its user gets who looks at each seed alone, as a population does.
"""

import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import tradax
from benchmarks.learning import PENDULUM, evaluated, iqm

ENV, SEEDS, STEPS, EVERY = "Pendulum-v1", 10, 100_000, 5_000
GRIDS = (
    (1e-4, 3e-4, 1e-3, 3e-3),
    (1e-4, 1.6e-4, 2.6e-4, 4.3e-4, 7e-4, 1.1e-3, 1.8e-3, 3e-3),
)
OPTIONS = PENDULUM | {"epochs": 10}


def main() -> None:
    for rates in GRIDS:
        with tempfile.TemporaryDirectory() as folder:
            compare(rates, Path(folder))


def compare(rates: tuple[float, ...], folder: Path) -> None:
    """A grid of so many rates, and a population of so many members."""
    print(f"\n| {len(rates)} members a seed | IQM | 95% interval | worst, best seed | seconds |")
    print("|---|---|---|---|---|")
    grid, seconds = trained(folder / "grid", grid={"ppo.learning_rate": rates})
    of_rate = {
        rate: judged([r for r in grid.members if r["setting"] == place], grid.run_dir)
        for place, rate in enumerate(rates)
    }
    for rate, scores in of_rate.items():
        report(f"learning rate {rate:g}", scores, seconds / len(rates))
    each = judged(best(grid.members), grid.run_dir)
    report("best of the grid for each seed", each, seconds)
    population, seconds = trained(
        folder / "population",
        population=len(rates),
        population_every=EVERY,
        ranges={"ppo.learning_rate": ("log", rates[0], rates[-1])},
    )
    scores = judged(best(population.members), population.run_dir)
    report("population", scores, seconds)
    chosen = rates[grid.table[0].setting]
    for name, other in (
        (f"learning rate {chosen:g}, the best on validation", of_rate[chosen]),
        ("the best of the grid for each seed", each),
    ):
        difference = scores - other
        print(
            f"against {name}: {difference.mean():+.1f} on average, better with "
            f"{(difference > 0).sum()} of {SEEDS} seeds"
        )
    if iqm(scores) <= iqm(of_rate[chosen]):
        print("THE CLAIM DOES NOT HOLD: the population is not better than the best fixed rate")


def trained(folder: Path, **search):
    """Returns: what the sweep found, seconds."""
    start = time.perf_counter()
    found = tradax.sweep(
        "ppo",
        ENV,
        seeds=SEEDS,
        total_timesteps=STEPS,
        settings={"ppo": OPTIONS},
        devices=len(jax.devices()),
        out=folder,
        **search,
    )
    return found, time.perf_counter() - start


def best(members: list[dict]) -> list[dict]:
    """Of each seed the member with the best validation score."""
    seeds = {r["seed"]: [m for m in members if m["seed"] == r["seed"]] for r in members}
    return [max(own, key=lambda member: member["validation_score"]) for own in seeds.values()]


def judged(members: list[dict], folder: Path) -> np.ndarray:
    """Mean return of each member's best policy."""
    members = sorted(members, key=lambda member: member["seed"])
    paths = [folder / "members" / f"{member['number']:05d}" / "policy.zip" for member in members]
    policies = [tradax.load_policy(path) for path in paths]
    return evaluated(jax.tree.map(lambda *x: jnp.stack(x), *policies), ENV)


def report(name: str, scores: np.ndarray, seconds: float) -> None:
    rng = np.random.default_rng(0)
    resampled = [iqm(rng.choice(scores, len(scores))) for _ in range(2_000)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    print(
        f"| {name} | {iqm(scores):.1f} | {low:.1f} to {high:.1f} | {scores.min():.1f}, "
        f"{scores.max():.1f} | {seconds:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
