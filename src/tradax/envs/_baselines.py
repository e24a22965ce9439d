"""What a learned policy must beat: fixed plans, and rules known before the first bar."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.envs._market import MarketEnvironment
from tradax.protocols import Actor, Policy
from tradax.spaces import Factored, Observation, Spec, action_spec


class Plan(Actor):
    """Gives the actions of a list, one after the other."""

    actions: jax.Array
    """[n, ...]"""

    def initial_memory(self, batch: int) -> jax.Array:
        return jnp.zeros(batch, jnp.int32)

    def __call__(self, obs: Observation, memory: Any, key: jax.Array):
        step = jnp.minimum(memory, self.actions.shape[0] - 1)
        return self.actions[step], memory + 1, ()


class Rule(Policy):
    """Base: an action from the row and the account."""

    spec: Spec = eqx.field(static=True)

    def act(self, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Args: obs [..., D]. Returns: [..., A]; the key is not used."""
        obs = jnp.asarray(obs, jnp.float32)
        return self.choose(self.row_of(obs), obs[..., self.spec.market :])

    def actor(self, *, sample: bool = False) -> RuleActor:
        return RuleActor(self)

    @abc.abstractmethod
    def choose(self, row: jax.Array, account: jax.Array) -> jax.Array:
        """Args: row [...], account [..., K]. Returns: [..., A]."""

    def row_of(self, obs: jax.Array) -> jax.Array:
        """The row that a flat observation [..., D] shows, for rules that need one."""
        return jnp.zeros(obs.shape[:-1], jnp.int32)


class RuleActor(Actor):
    policy: Rule

    def __call__(self, obs: Observation, memory: Any, key: jax.Array):
        if isinstance(obs, Factored):
            return self.policy.choose(obs.row, obs.account), memory, ()
        return self.policy.act(obs), memory, ()


def spec_of(env: MarketEnvironment, params: Any) -> Spec:
    """What a policy for a market sees and does."""
    space = action_spec(env.action_space(params))
    return Spec(env.market_table(params).shape[-1], env.account_size(params), space)


def step_of(time_left: jax.Array, n_steps: int) -> jax.Array:
    """The step, int32, at which so much of the time is left, as a fraction of all."""
    return jnp.round((1.0 - time_left) * n_steps).astype(jnp.int32)
