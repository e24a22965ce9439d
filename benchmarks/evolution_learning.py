"""What searches without gradients learn, 10 seeds each.

* CartPole-v1, three million steps, counted as if every episode took its limit of 500; 100 fresh
  greedy episodes. The claim: at least 8 of 10 seeds hold the pole for 500 steps in every episode.
* Published results (one run each): hill climbing on CartPole-v0, 200 steps an episode, a linear
  network: 196 in 13 episodes; cross-entropy on MountainCarContinuous-v0: 90.8 in 47 generations.
  Here: how many generations until the mean of 100 greedy episodes reaches the goal, for hill
  climbing with one neighbour, an episode each, and with 16.
* Execution, set B: the excess over the closed-form optimum of E + lambda V. The claim: 3% at most.
* Trading, real daily prices of the S&P 500, training years: fitness of the start and at the end.
"""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._training import one_by_one
from benchmarks.learning import evaluated, iqm, trained
from tradax.algorithms import cem, hill_climbing
from tradax.data import features, samples
from tradax.data.pipeline import Pipeline
from tradax.envs import execution, execution_baselines, trading
from tradax.evaluation.execution import assess
from tradax.rollout import jax_source

SEEDS, STEPS, LEAST = 10, 3_000_000, 8
ALGORITHMS = {
    "hill_climbing": {"hidden_sizes": ()},
    "simulated_annealing": {"episodes": 8},
    "cem": {},
    "evolution_strategies": {},
    "genetic": {
        "population_size": 32,
        "episodes": 8,
        "initial_scale": 0.3,
        "mutation_scale": 0.1,
    },
    "evosax": {"strategy": "CMA_ES", "hidden_sizes": ()},
}
# Algorithm, options, environment, goal, generations of the published run, and the most here.
CLIMB = {
    "episodes": 1,
    "episode_limit": 200,
    "reevaluate": False,
    "hidden_sizes": (),
    "shrink": 0.5,
    "grow": 2.0,
    "smallest_noise": 0.001,
    "largest_noise": 2.0,
}
PUBLISHED = (
    (
        hill_climbing,
        CLIMB | {"population_size": 1, "noise": 0.01},
        "CartPole-v1",
        195.0,
        13,
        200,
    ),
    (hill_climbing, CLIMB | {"population_size": 16, "noise": 1.0}, "CartPole-v1", 195.0, 13, 100),
    (
        cem,
        {
            "population_size": 50,
            "episodes": 1,
            "episode_limit": 999,
            "hidden_sizes": (),
            "initial_deviation": 5.0,
            "extra_deviation": 3.0,
        },
        "MountainCarContinuous-v0",
        90.8,
        47,
        100,
    ),
)
SALE = {"population_size": 128, "episodes": 32, "episode_limit": 5, "hidden_sizes": (16,)}
SALES: dict[str, dict[str, Any]] = {
    "cem": SALE,
    "evolution_strategies": SALE,
}
SALE_STEPS, MOST_EXCESS = 4_000_000, 0.03
MARKET = {
    "evolution_strategies": {"population_size": 64, "episodes": 8, "episode_limit": 252},
    "genetic": {"population_size": 64, "episodes": 8, "episode_limit": 252},
}
MARKET_STEPS, TEST_EPISODES = 5_000_000, 256


def main() -> None:
    print("| algorithm | options | seeds at 500 | IQM | worst | seconds |")
    print("|---|---|---|---|---|---|")
    for name, options in ALGORITHMS.items():
        start = time.perf_counter()
        scores = evaluated(trained(name, "CartPole-v1", None, STEPS, options), "CartPole-v1")
        solved = int((scores >= 500.0).sum())
        print(
            f"| {name} | {listed(options)} | {solved} of 10 | {iqm(scores):.1f} | "
            f"{scores.min():.1f} | {time.perf_counter() - start:.0f} |"
            f"{'' if solved >= LEAST else ' DOES NOT HOLD'}",
            flush=True,
        )
    print("\n| algorithm | environment, goal | options | published | seeds | generations |")
    print("|---|---|---|---|---|---|")
    for module, options, env, goal, published, most in PUBLISHED:
        needed = generations_until(module, options, env, goal, most)
        reached = needed[needed <= most]
        low, middle, high = np.quantile(needed, [0.25, 0.5, 0.75])
        print(
            f"| {module.__name__.split('.')[-1]} | {env}, {goal} | {listed(options)} | {published} "
            f"| {len(reached)} of 10 within {most}, {(needed <= published).sum()} within "
            f"{published} | median {middle:.1f}, quartiles {low:.1f} and {high:.1f} |",
            flush=True,
        )
    print("\n| algorithm | options | mean excess | worst of 10 | seconds |")
    print("|---|---|---|---|---|")
    env, params = execution.make(execution.Config())
    optimum = assess(execution_baselines.baselines(env, params)["almgren_chriss"], env, params)
    for name, options in SALES.items():
        start = time.perf_counter()
        policies = one_by_one(trained(name, env, params, SALE_STEPS, options), SEEDS)
        costs = np.array([assess(policy, env, params).objective for policy in policies])
        excess = costs / optimum.objective - 1.0
        print(
            f"| {name} | {listed(options)} | {excess.mean():.2%} | {excess.max():.2%} | "
            f"{time.perf_counter() - start:.0f} |"
            f"{'' if excess.max() <= MOST_EXCESS else ' DOES NOT HOLD'}",
            flush=True,
        )
    print("\n| algorithm | options | return at the start | at the end | seeds that improved |")
    print("|---|---|---|---|---|")
    env, params = market()
    for name, options in MARKET.items():
        before = evaluated(trained(name, env, params, 1, options), env, params, TEST_EPISODES)
        after = evaluated(
            trained(name, env, params, MARKET_STEPS, options), env, params, TEST_EPISODES
        )
        print(
            f"| {name} | {listed(options)} | {before.mean():.3f} ({before.min():.3f} to "
            f"{before.max():.3f}) | {after.mean():.3f} ({after.min():.3f} to {after.max():.3f}) | "
            f"{(after > before).sum()} of 10 |",
            flush=True,
        )


def listed(options: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items()) or "defaults"


def generations_until(module, options, env, goal: float, most: int) -> np.ndarray:
    """After how many generations each seed's greedy policy reaches the goal; most + 1: never."""
    config = module.Config(**options)
    source = jax_source(env, num_envs=config.num_envs)
    algorithm = module.make(config, source.spec, jnp.float32(most))
    test = source.of(100)

    def generation(learner, key):
        play_key, learn_key, test_key = jax.random.split(key, 3)
        _, experience, _ = algorithm.collect(learner, source, (), play_key)
        learner, _ = algorithm.learn(learner, experience, learn_key)
        actor = algorithm.policy(learner).actor(sample=False)
        return learner, test.episodes(actor, test_key, config.episode_limit)[0].mean()

    @eqx.filter_jit
    def search(key):
        init_key, key = jax.random.split(key)
        keys = jax.random.split(key, most)
        return jax.lax.scan(generation, algorithm.init(init_key), keys)[1]

    scores = np.stack([search(jax.random.key(seed)) for seed in range(SEEDS)])
    reached = scores >= goal
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, most + 1)


def market():
    bars = samples.load("sp500")
    pipeline = Pipeline.fit(bars, features.Config())
    (prices,) = pipeline.transform(bars)
    return trading.make(trading.Config(), prices, pipeline.splits.train)


if __name__ == "__main__":
    main()
