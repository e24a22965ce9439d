"""Policies that take over from each other, as where one is trained anew every year."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.protocols import Actor, Policy
from tradax.spaces import Observation, Spec


class Succession(Policy):
    """Each policy acts from its step on, until the next one's; what is held is handed over."""

    policies: Policy
    """K of equal shapes, stacked."""
    begins: jax.Array
    """[K] int32, steps after the start of the walk, ascending; the first is 0."""
    spec: Spec = eqx.field(static=True)

    @classmethod
    def of(cls, policies: Sequence[Policy], begins: Sequence[int]) -> "Succession":
        """Args: policies: the earliest first."""
        stacked: Any = jax.tree.map(lambda *x: jnp.stack(x), *policies)
        begin = jnp.array(begins, jnp.int32)
        return cls(policies=stacked, begins=begin, spec=policies[0].spec)

    @property
    def newest(self) -> Policy:
        return jax.tree.map(lambda x: x[-1], self.policies)

    def act(self, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """The newest policy's: the one to deploy."""
        return self.newest.act(obs, key)

    def actor(self, *, sample: bool) -> "SuccessionActor":
        return SuccessionActor(self.policies.actor(sample=sample), self.begins)


class SuccessionActor(Actor):
    """Counts its steps; for policies that carry nothing from step to step."""

    actors: Actor
    """K, stacked."""
    begins: jax.Array

    @property
    def tabulations(self) -> int:
        return len(self.begins)

    def tabulate(self, table: jax.Array) -> "SuccessionActor":
        return SuccessionActor(jax.vmap(lambda a: a.tabulate(table))(self.actors), self.begins)

    def initial_memory(self, batch: int) -> jax.Array:
        return jnp.zeros(batch, jnp.int32)

    def __call__(self, obs: Observation, memory: Any, key: jax.Array):
        """Asks all of them, which for a few small networks costs less than gathering weights."""
        actions = eqx.filter_vmap(lambda actor: actor(obs, (), key)[0])(self.actors)  # [K, B, ...]
        turn = jnp.searchsorted(self.begins, memory, side="right") - 1  # [B]
        return actions[turn, jnp.arange(len(turn))], memory + 1, ()
