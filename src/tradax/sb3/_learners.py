"""A learner at its beginning, as what it deploys, and acting: compiled once for each kind."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.protocols import Algorithm


@eqx.filter_jit
def init(algorithm: Algorithm, key: jax.Array) -> Any:
    return algorithm.init(key)


@eqx.filter_jit
def policy(algorithm: Algorithm, learner: Any) -> Any:
    # Copied, for updates overwrite the learner's own arrays.
    return jax.tree.map(jnp.copy, algorithm.policy(learner))


@eqx.filter_jit
def act(algorithm: Algorithm, learner: Any, obs: Any, key: jax.Array | None) -> jax.Array:
    return algorithm.policy(learner).act(obs, key)


split = jax.jit(jax.random.split)
