"""What a learned policy must beat: fixed plans, known before the first bar."""

from typing import Any

import jax
import jax.numpy as jnp

from tradax.protocols import Actor
from tradax.spaces import ActionSpec, Observation


class Plan(Actor):
    """Gives the actions of a list, one after the other."""

    actions: jax.Array
    """[n, ...]"""

    def initial_memory(self, batch: int) -> jax.Array:
        return jnp.zeros(batch, jnp.int32)

    def __call__(self, obs: Observation, memory: Any, key: jax.Array):
        step = jnp.minimum(memory, self.actions.shape[0] - 1)
        return self.actions[step], memory + 1, ()


def buy_and_hold(n_steps: int, leverage: float = 1.0) -> jax.Array:
    """Actions for `trading`: put all of the initial cash into the asset, then hold. [n, 2]."""
    hold = jnp.tile(jnp.array([[0.0, -1.0]]), (n_steps, 1))
    # Size is a fraction of the way to `leverage` x net worth; this one goes to 1 x.
    return hold.at[0].set(jnp.array([1.0, 2.0 / leverage - 1.0]))


def cash(n_steps: int) -> jax.Array:
    """Actions for `trading`: never buy. [n, 2]."""
    return jnp.tile(jnp.array([[0.0, -1.0]]), (n_steps, 1))


def random_actions(key: jax.Array, n_steps: int, spec: ActionSpec) -> jax.Array:
    """Uniform over the action space. [n, ...]."""
    if spec.n is not None:
        return jax.random.randint(key, (n_steps,), 0, spec.n)
    shape = (n_steps, spec.size)
    return jax.random.uniform(key, shape, minval=jnp.array(spec.low), maxval=jnp.array(spec.high))
