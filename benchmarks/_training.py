"""What benchmarks share: all seeds of an algorithm in one program, and each one's policy."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from tradax import training
from tradax.rollout import jax_source


def train_seeds(
    algorithm: ModuleType, config: Any, env: Any, params: Any, *, seeds: int, steps: int
) -> training.Trained:
    """Train on one environment with `seeds` keys; what comes back is stacked, [seeds, ...]."""
    source = jax_source(env, params, num_envs=config.num_envs)
    return training.train(
        algorithm.make(config, source.spec, jnp.float32(1)),
        source,
        jax.random.split(jax.random.key(0), seeds),
        total_timesteps=steps,
        members=seeds,
        shared_source=True,
    )


def one_by_one(policies: Any, seeds: int) -> list[Any]:
    """The policy of each seed."""
    return [jax.tree.map(lambda x, i=i: x[i], policies) for i in range(seeds)]
