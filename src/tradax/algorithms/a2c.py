"""Advantage actor-critic, the synchronous form of A3C (Mnih et al. 2016).

All environments step with the same networks, and one gradient of all their steps is applied.
"""

from typing import Any

import equinox as eqx
import jax
import optax

from tradax.algorithms import _actor_critic
from tradax.algorithms._actor_critic import ActorCriticGradient
from tradax.algorithms._policy_gradient import Batch
from tradax.config import config, setting
from tradax.distributions import Distribution
from tradax.optimise import rmsprop
from tradax.protocols import Experience
from tradax.returns import n_step_return
from tradax.spaces import Spec

LEARNS_FROM_LOGS = True


@config
class Config(_actor_critic.Config):
    """A2C: one gradient of all environments' steps."""

    num_envs: int = setting(default=16, least=1)
    """Environments stepped side by side."""
    n_steps: int = setting(default=8, least=1)
    """Steps of every environment between updates."""
    learning_rate: float = setting(default=2e-3, above=0)
    """RMSprop step size at the first update."""
    return_steps: int | None = setting(default=None, least=1)
    """Rewards in a return before a value stands for the rest. None: lambda returns."""
    gae_lambda: float = setting(default=1.0, least=0, most=1)
    """Lambda of generalised advantage estimation; 1 is n-step to the end of the rollout."""
    normalize_advantages: bool = False
    """Zero mean and unit variance of the advantages of a gradient step."""


class AdvantageActorCritic(ActorCriticGradient):
    """What A2C and A3C share."""

    def optimiser(self, learning_rate: Any) -> optax.GradientTransformation:
        return rmsprop(learning_rate, max_grad_norm=self.config.max_grad_norm)

    def advantage(self, experience: Experience, value, next_value, weight) -> jax.Array:
        c, e = self.config, experience
        if c.return_steps is None or weight is not None:
            return super().advantage(experience, value, next_value, weight)
        returns = n_step_return(
            e.reward, next_value, e.terminated, e.done, gamma=c.gamma, n=c.return_steps
        )
        return returns - value

    def policy_loss(self, actions: Distribution, batch: Batch, own: Any):
        """Minus log-probability times advantage (section 4)."""
        return -batch.mean(actions.log_prob(batch.action) * batch.advantage), {}


class A2C(AdvantageActorCritic):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array


def make(config: Config, spec: Spec, horizon: jax.Array) -> A2C:
    """Raises ConfigError where the options do not fit the action space."""
    return A2C(config=config, spec=spec, horizon=horizon)
