"""The loss that REINFORCE, A2C, A3C and PPO share, and the update that is one gradient of it.

    loss = policy loss + value_coefficient * value loss - entropy_coefficient * entropy

An algorithm says what its policy loss is.
"""

import abc
from typing import Any

import jax
import optax

from tradax.algorithms import _policy_gradient
from tradax.algorithms._policy_gradient import Batch, Learner, PolicyGradient
from tradax.config import config, setting
from tradax.distributions import Distribution
from tradax.errors import ConfigError
from tradax.optimise import descend, mean_in_parts
from tradax.policies import ActorCritic
from tradax.protocols import Metrics


@config
class Config(_policy_gradient.Config):
    """Options of the loss."""

    value_coefficient: float = setting(default=0.5, least=0)
    """Weight of the value loss."""
    entropy_coefficient: float = setting(default=0.0, least=0)
    """Weight of the entropy bonus."""
    shared_network: bool = False
    """One network for policy and value instead of two."""

    def validate(self):
        if self.shared_network and not self.hidden_sizes:
            raise ConfigError("shared_network needs at least one hidden layer to share")


class ActorCriticGradient(PolicyGradient):
    """Base of the algorithms that follow gradients of the loss."""

    @abc.abstractmethod
    def policy_loss(
        self, actions: Distribution, batch: Batch, own: Any
    ) -> tuple[jax.Array, Metrics]:
        """What the policy minimises, a scalar, and metrics.

        Args:
            actions: of the policy that is to be improved, at the batch's observations.
            own: `Learner.own`.
        """

    @property
    def shared_network(self) -> bool:
        return self.config.shared_network

    def improve(
        self, learner: Learner, batch: Batch, table: jax.Array | None, key: jax.Array
    ) -> tuple[Learner, Metrics]:
        """One gradient step of the whole batch."""
        batch = self.part(batch.flat())
        learning_rate = self.learning_rate(learner)
        gradient, metrics = self.gradient(learner.network, batch, table, learner.own)
        network, opt_state = descend(
            self.optimiser(learning_rate), gradient, learner.opt_state, learner.network
        )
        metrics |= self.diagnose(network, batch, table)
        metrics |= {"gradient_norm": optax.tree.norm(gradient), "learning_rate": learning_rate}
        return learner._replace(network=network, opt_state=opt_state), metrics

    def gradient(
        self, network: ActorCritic, batch: Batch, table: jax.Array | None, own: Any = ()
    ) -> tuple[ActorCritic, Metrics]:
        """Of the loss, and its metrics: means over all devices' shares of the rows.

        Args:
            batch: this device's `part`.
        """
        pull: Any = None
        if table is not None and batch.advantage.size > table.shape[0]:
            # Once for all parts of the batch.
            network, pull = jax.vjp(lambda network: network.tabulate(table), network)

        def of_part(part: Batch):
            return jax.grad(self.loss, has_aux=True)(network, part, table, own)

        gradient, metrics = mean_in_parts(of_part, batch)
        if pull is not None:
            (gradient,) = pull(gradient)
        return batch.share.mean((gradient, metrics))

    def loss(
        self, network: ActorCritic, batch: Batch, table: jax.Array | None, own: Any = ()
    ) -> tuple[jax.Array, Metrics]:
        c = self.config
        actions, value = self.evaluate(network, batch.obs, table)
        policy_loss, metrics = self.policy_loss(actions, batch, own)
        value_loss = 0.5 * batch.mean(self.value_error(value, batch))
        entropy = batch.mean(actions.entropy())
        loss = policy_loss + c.value_coefficient * value_loss - c.entropy_coefficient * entropy
        return loss, metrics | {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
        }

    def value_error(self, value: jax.Array, batch: Batch) -> jax.Array:
        """Squared error of each value."""
        return (value - batch.value_target) ** 2
