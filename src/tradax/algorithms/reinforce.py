"""REINFORCE (Williams 1992), with and without a baseline.

The gradient of the expected return is the expectation of grad log pi(a|s) times a credit: the
return of the whole episode, the part of it that came after the action, or that part less a learned
value of the state. All three have the same mean; the variance falls from one to the next.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from tradax.algorithms import _policy_gradient
from tradax.algorithms._policy_gradient import Batch, Learner, PolicyGradient
from tradax.config import config, setting
from tradax.optimise import adam, descend
from tradax.policies import ActorCritic, distribution, head_of
from tradax.protocols import Experience, Metrics
from tradax.returns import reward_to_go, total_return
from tradax.spaces import Spec

LEARNS_FROM_LOGS = True


@config
class Config(_policy_gradient.Config):
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
    entropy_coefficient: float = setting(default=0.0, least=0)
    """Weight of the entropy bonus."""
    value_coefficient: float = setting(default=0.5, least=0)
    """Weight of the value loss, where there is a baseline."""


class Reinforce(PolicyGradient):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array

    def optimiser_state(self, network: ActorCritic):
        return adam(0.0, max_grad_norm=1.0).init(network)  # type: ignore[arg-type]

    def advantage(self, experience: Experience, value, next_value, weight) -> jax.Array:
        c, e = self.config, experience
        if c.credit == "total" and weight is None:
            return total_return(e.reward, e.done, gamma=c.gamma)
        # From logged data rewards before an action are always left out of its credit.
        if c.credit != "baseline":
            return reward_to_go(e.reward, e.done, gamma=c.gamma, weight=weight)
        after = jnp.where(e.terminated, 0.0, next_value)
        return reward_to_go(e.reward, e.done, gamma=c.gamma, after=after, weight=weight) - value

    def improve(
        self, learner: Learner, batch: Batch, table: jax.Array | None, key: jax.Array
    ) -> tuple[Learner, Metrics]:
        batch = batch.flat()
        learning_rate = self.learning_rate(learner)
        gradient, metrics = jax.grad(self.loss, has_aux=True)(learner.network, batch, table)
        optimiser = adam(learning_rate, max_grad_norm=self.config.max_grad_norm)
        network, opt_state = descend(optimiser, gradient, learner.opt_state, learner.network)
        metrics |= self.diagnose(network, batch, table)
        metrics |= {"gradient_norm": optax.tree.norm(gradient), "learning_rate": learning_rate}
        return learner._replace(network=network, opt_state=opt_state), metrics

    def loss(self, network: ActorCritic, batch: Batch, table):
        """Minus log-probability times credit, minus entropy, plus the baseline's error."""
        c = self.config
        actions = distribution(
            head_of(self.spec), network.outputs(batch.obs, table), network.log_std
        )
        credit = batch.standardised() if c.normalize_advantages else batch.advantage
        policy_loss = -batch.mean(actions.log_prob(batch.action) * credit)
        loss = policy_loss - c.entropy_coefficient * batch.mean(actions.entropy())
        metrics = {"policy_loss": policy_loss}
        if c.credit == "baseline":
            value = network.value(batch.obs, table)
            value_loss = 0.5 * batch.mean((value - batch.value_target) ** 2)
            metrics["value_loss"] = value_loss
            loss += c.value_coefficient * value_loss
        return loss, metrics


def make(config: Config, spec: Spec, horizon: jax.Array) -> Reinforce:
    """Raises ConfigError where the options do not fit the action space."""
    return Reinforce(config=config, spec=spec, horizon=horizon)
