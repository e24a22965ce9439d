"""What the on-policy algorithms learn: 10 seeds, deterministic evaluation over 100 fresh episodes.

All seeds of a row train in one program. The interquartile mean is over seeds, its 95% interval by
bootstrap over seeds (Agarwal et al. 2021). Options that are not named are the algorithms' defaults.
Execution is judged by its excess over the closed-form optimum of E + lambda V (set B, lambda 1e-6);
`tradax.evaluation.execution` follows 4,000 paths.
"""

import importlib
import time

import equinox as eqx
import jax
import numpy as np

from benchmarks._training import one_by_one, train_seeds
from tradax.envs import execution, execution_baselines
from tradax.evaluation.execution import assess
from tradax.rollout import jax_source

SEEDS, EPISODES = 10, 100
PENDULUM = {"gamma": 0.9, "num_envs": 16}
NATURAL = {"n_steps": 128, "target_kl": 0.05, "damping": 0.01, "critic_epochs": 20}
SALE = {"gamma": 1.0, "gae_lambda": 1.0, "num_envs": 64, "n_steps": 25}
# Environment, steps, least score that is claimed, and options of each algorithm.
ROWS = (
    ("CartPole-v1", 100_000, 500.0, {"ppo": {"num_envs": 16}, "trpo": {}}),
    ("CartPole-v1", 500_000, 500.0, {"a2c": {}, "a3c": {}, "npg": {}}),
    ("CartPole-v1", 500_000, 475.0, {"reinforce": {}}),
    ("Acrobot-v1", 500_000, -90.0, {"ppo": {}, "a2c": {}, "trpo": {}}),
    (
        "Acrobot-v1",
        1_000_000,
        -73.5,
        {"ppo": {"num_envs": 16, "n_steps": 128, "epochs": 10, "entropy_coefficient": 0.01}},
    ),
    (
        "Pendulum-v1",
        300_000,
        -200.0,
        {"ppo": PENDULUM | {"epochs": 10}, "trpo": PENDULUM | NATURAL | {"cg_iterations": 10}},
    ),
    (
        "MountainCarContinuous-v0",
        300_000,
        90.0,
        {"ppo": {"num_envs": 16, "gamma": 0.999, "initial_log_std": 1.0}},
    ),
)
SALES = {
    "reinforce": SALE,
    "a2c": SALE | {"n_steps": 10, "num_envs": 32},
    "a3c": SALE | {"n_steps": 10, "num_envs": 32},
    "npg": SALE,
    "trpo": SALE,
    "ppo": SALE,
}
SALE_STEPS, MOST_EXCESS = 400_000, 0.03


def main() -> None:
    print("| algorithm | environment | steps | IQM | 95% interval | worst, best seed | seconds |")
    print("|---|---|---|---|---|---|---|")
    for env, steps, least, algorithms in ROWS:
        for name, options in algorithms.items():
            start = time.perf_counter()
            policies = trained(name, env, None, steps, options)
            scores = evaluated(policies, env)
            report(name, env, steps, scores, iqm(scores) >= least, time.perf_counter() - start)
    env, params = execution.make(execution.Config())
    best = assess(execution_baselines.baselines(env, params)["almgren_chriss"], env, params)
    for name, options in SALES.items():
        start = time.perf_counter()
        policies = trained(name, env, params, SALE_STEPS, options)
        scores = np.array(
            [
                assess(policy, env, params).objective / best.objective - 1.0
                for policy in one_by_one(policies, SEEDS)
            ]
        )
        held = bool(scores.max() <= MOST_EXCESS)
        seconds = time.perf_counter() - start
        report(name, "execution (excess)", SALE_STEPS, scores, held, seconds, "{:.2%}")


def trained(name: str, env, params, steps: int, options: dict):
    """Policies of all seeds, stacked."""
    module = importlib.import_module(f"tradax.algorithms.{name}")
    config = module.Config(**options)
    return train_seeds(module, config, env, params, seeds=SEEDS, steps=steps).policy


def evaluated(policies, env, params=None, episodes: int = EPISODES) -> np.ndarray:
    """Mean return of each seed's greedy policy."""
    test = jax_source(env, params, num_envs=episodes)

    @eqx.filter_jit
    def run(policies):
        def one(policy):
            return test.episodes(policy.actor(sample=False), jax.random.key(7), 1_000)[0].mean()

        return jax.vmap(one)(policies)

    return np.asarray(run(policies), float)


def iqm(scores: np.ndarray) -> float:
    """Mean of the middle half."""
    cut = len(scores) // 4
    return float(np.sort(scores)[cut : len(scores) - cut].mean())


def report(name, env, steps, scores, held: bool, seconds: float, form: str = "{:.1f}") -> None:
    rng = np.random.default_rng(0)
    resampled = [iqm(rng.choice(scores, len(scores))) for _ in range(2_000)]
    low, high = (form.format(x) for x in np.quantile(resampled, [0.025, 0.975]))
    figures = [form.format(x) for x in (iqm(scores), scores.min(), scores.max())]
    print(
        f"| {name} | {env} | {steps:,} | {figures[0]} | {low} to {high} | {figures[1]}, "
        f"{figures[2]} | {seconds:.0f} |{'' if held else ' THE CLAIM DOES NOT HOLD'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
