"""The natural gradient: what NPG and TRPO share.

The direction x solves F x = g, with g the gradient of the surrogate and F the Fisher matrix, which
is the Hessian of the mean KL divergence from the policy before the update. F is known by its
products with vectors, so x is found by conjugate gradients. The critic is fitted on its own.
"""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from tradax.algorithms import _policy_gradient
from tradax.algorithms._policy_gradient import Batch, Learner, PolicyGradient
from tradax.config import config, section, setting
from tradax.errors import ConfigError
from tradax.optimise import (
    Vectors,
    check_minibatches,
    conjugate_gradient,
    descend,
    minibatch_epochs,
)
from tradax.policies import ActorCritic
from tradax.protocols import Metrics


@config
class Config(_policy_gradient.Config):
    """Options of the natural gradient and of the critic beside it."""

    num_envs: int = setting(default=16, least=1)
    """Environments stepped side by side."""
    n_steps: int = setting(default=64, least=1)
    """Steps of every environment between updates."""
    target_kl: float = setting(default=0.01, above=0)
    """Divergence of an update's policy from the one before, in nats."""
    damping: float = setting(default=0.1, above=0)
    """Multiple of the identity that is added to the Fisher matrix."""
    cg_iterations: int = setting(default=15, least=1)
    """Most conjugate-gradient steps."""
    cg_tolerance: float = setting(default=1e-10, least=0)
    """Squared residual at which conjugate gradients stop."""
    fisher_samples: int = setting(default=1, least=1)
    """The Fisher matrix is taken over every so many-th step only."""
    learning_rate: float = setting(default=1e-3, above=0)
    """Adam step size of the critic at the first update."""
    critic_epochs: int = setting(default=10, least=1)
    """Passes of the critic over the collected steps in one update."""
    critic_minibatches: int = setting(default=8, least=1)
    """Gradient steps of the critic in one pass; must divide num_envs x n_steps."""

    def validate(self):
        check_minibatches(self.n_steps, self.num_envs, self.critic_minibatches)


class Direction(NamedTuple):
    """Where the policy goes, as flat vectors."""

    parameters: jax.Array
    """Before the update."""
    gradient: jax.Array
    direction: jax.Array
    """x, with (F + damping) x = gradient."""
    curvature: jax.Array
    """x' (F + damping) x"""
    residual: jax.Array
    """Squared, of the linear equations."""

    def size_for(self, kl: Any) -> jax.Array:
        """Multiple of the direction at which the divergence is `kl`, to second order."""
        return jnp.sqrt(2.0 * kl / jnp.maximum(self.curvature, 1e-12))


class NaturalGradient(PolicyGradient):
    """Base of the algorithms that follow a natural gradient."""

    @abc.abstractmethod
    def step(
        self, learner: Learner, found: Direction, batch: Batch, table
    ) -> tuple[ActorCritic, Metrics]:
        """How far to go. Returns: the networks with the new policy, metrics.

        Args:
            batch: this device's `part`, as in what follows.
        """

    def check_devices(self, devices: int) -> None:
        super().check_devices(devices)
        c = self.config
        check_minibatches(c.n_steps, c.num_envs, c.critic_minibatches, devices)
        rows = c.n_steps * c.num_envs // devices
        if devices > 1 and rows % c.fisher_samples:
            raise ConfigError(
                f"{section(type(c))}.fisher_samples is {c.fisher_samples}, which does not divide "
                f"the {rows} steps of each of {devices} devices; use a divisor of them, such as 1"
            )

    def optimiser_state(self, network: ActorCritic):
        return super().optimiser_state(network.critic)

    def improve(
        self, learner: Learner, batch: Batch, table: jax.Array | None, key: jax.Array
    ) -> tuple[Learner, Metrics]:
        old, everyones = learner.network, batch.flat()
        batch = self.part(everyones)
        found = self.direction(old, batch, table)
        network, metrics = self.step(learner, found, batch, table)
        learner = learner._replace(network=network)
        learner, value_loss = self.fit_critic(learner, everyones, table, key)
        return learner, self.diagnose(network, batch, table) | metrics | {
            "kl": batch.share.mean(self.divergence(old, network, batch, table)),
            "value_loss": value_loss,
            "gradient_norm": jnp.linalg.norm(found.gradient),
            "cg_residual": found.residual,
            "learning_rate": self.learning_rate(learner),
        }

    def surrogate(self, network: ActorCritic, batch: Batch, table) -> jax.Array:
        """Mean of probability ratio times advantage over this device's rows."""
        actions = self.actions(network, batch.obs, table)
        ratio = jnp.exp(actions.log_prob(batch.action) - batch.log_prob)
        return batch.mean(ratio * batch.advantage)

    def divergence(self, old: ActorCritic, new: ActorCritic, batch: Batch, table) -> jax.Array:
        """Mean KL(old || new) over this device's observations."""
        before = jax.lax.stop_gradient(self.actions(old, batch.obs, table))
        return batch.mean(before.kl(self.actions(new, batch.obs, table)))

    def fisher(self, network: ActorCritic, batch: Batch, table):
        """Flat parameters of the policy, and v -> (F + damping) v."""
        c = self.config
        flat, with_policy = flat_policy(network)
        some = jax.tree.map(lambda x: x[:: c.fisher_samples], batch)

        def kl(flat):
            return self.divergence(network, with_policy(flat), some, table)

        def product(vector):
            curved = jax.jvp(jax.grad(kl), (flat,), (vector,))[1]
            return batch.share.mean(curved) + c.damping * vector

        return flat, product

    def direction(self, network: ActorCritic, batch: Batch, table) -> Direction:
        """Solve (F + damping) x = g."""
        c = self.config
        flat, product = self.fisher(network, batch, table)
        _, with_policy = flat_policy(network)
        gradient = jax.grad(lambda flat: self.surrogate(with_policy(flat), batch, table))(flat)
        gradient = batch.share.mean(gradient)
        solution, residual = conjugate_gradient(
            product, gradient, iterations=c.cg_iterations, tolerance=c.cg_tolerance
        )
        return Direction(flat, gradient, solution, jnp.dot(solution, product(solution)), residual)

    def fit_critic(self, learner: Learner, batch: Batch, table, key: jax.Array):
        """The learner with its critic fitted to the value targets, and the last epoch's loss.

        Args:
            batch: the rows of all devices.
        """
        c = self.config
        optimiser = self.optimiser(self.learning_rate(learner))

        def loss(critic, batch):
            return 0.5 * batch.mean((critic(batch.obs, table)[..., 0] - batch.value_target) ** 2)

        vectors = Vectors.of(learner.network.critic, learner.opt_state)

        def update(carry, minibatch):
            parameters, opt_state = carry
            mine = self.part(minibatch)
            found = jax.value_and_grad(loss)(vectors.unflatten(parameters), mine)
            value, gradient = mine.share.mean(found)
            return descend(optimiser, ravel_pytree(gradient)[0], opt_state, parameters), value

        (parameters, opt_state), losses = minibatch_epochs(
            update,
            (vectors.parameters, vectors.opt_state),
            batch,
            key,
            epochs=c.critic_epochs,
            minibatches=c.critic_minibatches,
        )
        critic = vectors.unflatten(parameters)
        network = ActorCritic(learner.network.actor, critic, learner.network.log_std)
        opt_state = vectors.restore(opt_state)
        return learner._replace(network=network, opt_state=opt_state), losses[-1].mean()


def flat_policy(
    network: ActorCritic,
) -> tuple[jax.Array, Callable[[jax.Array], ActorCritic]]:
    """The policy's parameters as one vector, and the network with others in their place."""
    flat, unflatten = ravel_pytree((network.actor, network.log_std))

    def with_policy(flat):
        actor, log_std = unflatten(flat)
        return ActorCritic(actor, network.critic, log_std)

    return flat, with_policy
