"""Advantage actor-critic, the synchronous form of A3C (Mnih et al. 2016).

All environments step with the same networks, and one gradient of all their steps is applied.
"""

import equinox as eqx
import jax
import optax

from tradax.algorithms import _policy_gradient
from tradax.algorithms._policy_gradient import Batch, Learner, PolicyGradient
from tradax.config import config, setting
from tradax.errors import ConfigError
from tradax.optimise import descend, rmsprop
from tradax.policies import ActorCritic, distribution, head_of
from tradax.protocols import Experience, Metrics
from tradax.returns import n_step_return
from tradax.spaces import Spec

LEARNS_FROM_LOGS = True


@config
class Config(_policy_gradient.Config):
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
    value_coefficient: float = setting(default=0.5, least=0)
    """Weight of the value loss."""
    entropy_coefficient: float = setting(default=0.0, least=0)
    """Weight of the entropy bonus."""
    shared_network: bool = False
    """One network for policy and value instead of two."""

    def validate(self):
        if self.shared_network and not self.hidden_sizes:
            raise ConfigError("shared_network needs at least one hidden layer to share")


class A2C(PolicyGradient):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array

    @property
    def shared_network(self) -> bool:
        return self.config.shared_network

    def optimiser_state(self, network: ActorCritic):
        return rmsprop(0.0, max_grad_norm=1.0).init(network)  # type: ignore[arg-type]

    def advantage(self, experience: Experience, value, next_value, weight) -> jax.Array:
        c, e = self.config, experience
        if c.return_steps is None or weight is not None:
            return super().advantage(experience, value, next_value, weight)
        returns = n_step_return(
            e.reward, next_value, e.terminated, e.done, gamma=c.gamma, n=c.return_steps
        )
        return returns - value

    def improve(
        self, learner: Learner, batch: Batch, table: jax.Array | None, key: jax.Array
    ) -> tuple[Learner, Metrics]:
        batch = batch.flat()
        learning_rate = self.learning_rate(learner)
        gradient, metrics = jax.grad(self.loss, has_aux=True)(learner.network, batch, table)
        optimiser = rmsprop(learning_rate, max_grad_norm=self.config.max_grad_norm)
        network, opt_state = descend(optimiser, gradient, learner.opt_state, learner.network)
        metrics |= self.diagnose(network, batch, table)
        metrics |= {"gradient_norm": optax.tree.norm(gradient), "learning_rate": learning_rate}
        return learner._replace(network=network, opt_state=opt_state), metrics

    def loss(self, network: ActorCritic, batch: Batch, table):
        """Minus log-probability times advantage, plus value loss, minus entropy (section 4)."""
        c = self.config
        outputs, value = network(batch.obs, table)
        actions = distribution(head_of(self.spec), outputs, network.log_std)
        advantage = batch.standardised() if c.normalize_advantages else batch.advantage
        policy_loss = -batch.mean(actions.log_prob(batch.action) * advantage)
        value_loss = 0.5 * batch.mean((value - batch.value_target) ** 2)
        entropy = batch.mean(actions.entropy())
        loss = policy_loss + c.value_coefficient * value_loss - c.entropy_coefficient * entropy
        return loss, {"policy_loss": policy_loss, "value_loss": value_loss}


def make(config: Config, spec: Spec, horizon: jax.Array) -> A2C:
    """Raises ConfigError where the options do not fit the action space."""
    return A2C(config=config, spec=spec, horizon=horizon)
