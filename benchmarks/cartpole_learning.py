"""Steps until PPO with default options holds CartPole-v1 for 500 steps, 10 seeds.

A seed has solved it at the first of its validations, 10,000 steps apart, from which on the mean
return of the greedy policy over 100 episodes is 500 (at least 499.5).
"""

import jax
import jax.numpy as jnp
import numpy as np

from tradax import training
from tradax.algorithms import ppo
from tradax.rollout import jax_source

SEEDS, STEPS = 10, 300_000


def main() -> None:
    config = ppo.Config()
    source = jax_source("CartPole-v1", num_envs=config.num_envs)
    test = jax_source("CartPole-v1", num_envs=100)

    @jax.jit
    def validate(policies):
        def one(policy):
            actor = policy.actor(sample=False)
            return test.episodes(actor, jax.random.key(1_000), 500)[0].mean()

        return jax.vmap(one)(policies)

    result = training.train(
        ppo.make(config, source.spec, jnp.float32(1)),
        source,
        jnp.stack([jax.random.key(seed) for seed in range(SEEDS)]),
        total_timesteps=STEPS,
        members=SEEDS,
        shared_source=True,
        evaluate=validate,
        evaluations=30,
    )
    print("| seed | first 500 at steps | mean return at the end |")
    print("|---|---|---|")
    solved = []
    for seed, rows in enumerate(result.rows):
        scored = [(r["timesteps"], r["validation_score"]) for r in rows if "validation_score" in r]
        first = next((steps for steps, score in scored if score >= 499.5), None)
        solved.append(first)
        print(f"| {seed} | {first} | {scored[-1][1]:.1f} |")
    within = sum(s is not None for s in solved)
    at_end = sum(rows[-1]["validation_score"] >= 499.5 for rows in result.rows)
    median = np.median([s for s in solved if s is not None]) if within else float("nan")
    print(
        f"\nreached 500 within {STEPS:,} steps: {within} of {SEEDS} seeds (median at "
        f"{median:,.0f} steps); at 500 at the end: {at_end} of {SEEDS}; "
        f"{result.steps_per_second:,.0f} steps/s, all seeds in one program"
    )


if __name__ == "__main__":
    main()
