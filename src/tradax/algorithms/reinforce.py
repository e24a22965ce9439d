"""REINFORCE (Williams 1992), with and without a baseline.

The gradient of the expected return is the expectation of grad log pi(a|s) times a credit: the
return of the whole episode, the part of it that came after the action, or that part less a learned
value of the state. All three have the same mean; the variance falls from one to the next.
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.algorithms import _actor_critic
from tradax.algorithms._actor_critic import ActorCriticGradient
from tradax.algorithms._policy_gradient import Batch
from tradax.config import config, setting
from tradax.distributions import Distribution
from tradax.protocols import Experience
from tradax.returns import reward_to_go, total_return
from tradax.spaces import Spec

LEARNS_FROM_LOGS = True


@config
class Config(_actor_critic.Config):
    """REINFORCE: whole returns, no bootstrapping but where experience is cut."""

    num_envs: int = setting(default=16, least=1)
    """Environments stepped side by side: trajectories of an update."""
    n_steps: int = setting(default=64, least=1)
    """Steps of every environment between updates."""
    credit: Literal["total", "reward_to_go", "baseline"] = "baseline"
    """An action's credit: its episode's return, what came after it, or that less a value. The
    first two know nothing beyond n_steps: use them with update_every = episodes."""
    learning_rate: float = setting(default=5e-3, above=0)
    """Adam step size at the first update."""


class Reinforce(ActorCriticGradient):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array

    def advantage(self, experience: Experience, value, next_value, weight) -> jax.Array:
        c, e = self.config, experience
        if c.credit == "total" and weight is None:
            return total_return(e.reward, e.done, gamma=c.gamma)
        # From logged data rewards before an action are always left out of its credit.
        if c.credit != "baseline":
            return reward_to_go(e.reward, e.done, gamma=c.gamma, weight=weight)
        after = jnp.where(e.terminated, 0.0, next_value)
        return reward_to_go(e.reward, e.done, gamma=c.gamma, after=after, weight=weight) - value

    def policy_loss(self, actions: Distribution, batch: Batch, own: Any):
        """Minus log-probability times credit."""
        return -batch.mean(actions.log_prob(batch.action) * batch.advantage), {}

    def value_error(self, value: jax.Array, batch: Batch) -> jax.Array:
        """None where there is no baseline to fit."""
        if self.config.credit != "baseline":
            return jnp.zeros_like(value)
        return super().value_error(value, batch)


def make(config: Config, spec: Spec, horizon: jax.Array) -> Reinforce:
    """Raises ConfigError where the options do not fit the action space."""
    return Reinforce(config=config, spec=spec, horizon=horizon)
