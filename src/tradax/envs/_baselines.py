"""What a learned policy must beat: fixed plans, known before the first bar."""

from typing import Any

import jax
import jax.numpy as jnp

from tradax.protocols import Actor
from tradax.spaces import Observation


class Plan(Actor):
    """Gives the actions of a list, one after the other."""

    actions: jax.Array
    """[n, ...]"""

    def initial_memory(self, batch: int) -> jax.Array:
        return jnp.zeros(batch, jnp.int32)

    def __call__(self, obs: Observation, memory: Any, key: jax.Array):
        step = jnp.minimum(memory, self.actions.shape[0] - 1)
        return self.actions[step], memory + 1, ()
