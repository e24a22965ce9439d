"""Proximal policy optimisation (Schulman et al. 2017), clipped or with a KL penalty.

Details after Huang et al. 2022, "The 37 implementation details of PPO".
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from tradax.algorithms import _actor_critic
from tradax.algorithms._actor_critic import ActorCriticGradient
from tradax.algorithms._policy_gradient import Batch, Learner, kl_estimate
from tradax.config import config, setting
from tradax.distributions import Distribution
from tradax.optimise import Vectors, check_minibatches, descend, minibatch_epochs
from tradax.policies import ActorCritic
from tradax.protocols import Metrics
from tradax.spaces import Spec

LEARNS_FROM_LOGS = True


@config
class Config(_actor_critic.Config):
    """PPO, clipped or with a KL penalty."""

    num_envs: int = setting(default=32, least=1)
    """Environments stepped side by side."""
    epochs: int = setting(default=4, least=1)
    """Passes over the collected steps in one update."""
    minibatches: int = setting(default=8, least=1)
    """Gradient steps in one pass; must divide num_envs x n_steps."""
    objective: Literal["clip", "kl"] = "clip"
    """Clipped surrogate, or a penalty on the divergence from the old policy."""
    clip_range: float = setting(default=0.2, above=0)
    """The probability ratio counts up to 1 +- this."""
    kl_coefficient: float = setting(default=1.0, least=0)
    """Weight of the KL penalty, at the start if adaptive."""
    kl_adaptive: bool = True
    """Double or halve the KL weight when the KL leaves [target / 1.5, target x 1.5]."""
    kl_penalty_target: float = setting(default=0.01, above=0)
    """KL an update that the adaptive weight steers to, in nats."""
    target_kl: float | None = setting(default=None, above=0)
    """Stop an update once its KL exceeds 1.5 times this, in nats. None: never."""
    value_clip_range: float | None = setting(default=None, above=0)
    """Limit a value's change in one update to this, in reward units. None: no limit."""

    def validate(self):
        super().validate()
        check_minibatches(self.n_steps, self.num_envs, self.minibatches)


class PPO(ActorCriticGradient):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array

    def own(self, network: ActorCritic) -> jax.Array:
        """The weight of the KL penalty."""
        return jnp.asarray(self.config.kl_coefficient, jnp.float32)

    def check_devices(self, devices: int) -> None:
        super().check_devices(devices)
        c = self.config
        check_minibatches(c.n_steps, c.num_envs, c.minibatches, devices)

    def improve(
        self, learner: Learner, batch: Batch, table: jax.Array | None, key: jax.Array
    ) -> tuple[Learner, Metrics]:
        c, kl_weight = self.config, learner.own
        learning_rate = self.learning_rate(learner)
        optimiser = self.optimiser(learning_rate)

        vectors = Vectors.of(learner.network, learner.opt_state)

        def update(carry, minibatch):
            parameters, opt_state, stopped = carry
            network = vectors.unflatten(parameters)
            gradient, metrics = self.gradient(network, self.part(minibatch), table, kl_weight)
            gradient = ravel_pytree(gradient)[0]
            metrics["gradient_norm"] = optax.tree.norm(gradient)
            new = descend(optimiser, gradient, opt_state, parameters)
            if c.target_kl is not None:
                stopped = stopped | (metrics["kl"] > 1.5 * c.target_kl)
                new = jax.tree.map(
                    lambda new, old: jnp.where(stopped, old, new), new, (parameters, opt_state)
                )
            return (*new, stopped), metrics

        (parameters, opt_state, _), metrics = minibatch_epochs(
            update,
            (vectors.parameters, vectors.opt_state, jnp.bool_(False)),
            batch.flat(),
            key,
            epochs=c.epochs,
            minibatches=c.minibatches,
        )
        last_kl = metrics["kl"][-1].mean()
        metrics = {name: value.mean() for name, value in metrics.items()}
        metrics["learning_rate"] = learning_rate
        if c.objective == "kl":
            metrics["kl_weight"] = kl_weight
        return learner._replace(
            network=vectors.unflatten(parameters),
            opt_state=vectors.restore(opt_state),
            own=self._adapted(kl_weight, last_kl),
        ), metrics

    def policy_loss(self, actions: Distribution, batch: Batch, own: jax.Array):
        """Minus the surrogate: clipped (eq. 7), or with the KL penalty (eq. 8)."""
        c, advantage = self.config, batch.advantage
        log_ratio = actions.log_prob(batch.action) - batch.log_prob
        ratio = jnp.exp(log_ratio)
        kl = batch.mean(kl_estimate(log_ratio))
        if c.objective == "clip":
            clipped = jnp.clip(ratio, 1.0 - c.clip_range, 1.0 + c.clip_range)
            loss = -batch.mean(jnp.minimum(ratio * advantage, clipped * advantage))
        else:
            loss = -batch.mean(ratio * advantage) + own * kl
        return loss, {
            "kl": kl,
            "clip_fraction": batch.mean(jnp.abs(ratio - 1.0) > c.clip_range),
        }

    def value_error(self, value: jax.Array, batch: Batch) -> jax.Array:
        limit = self.config.value_clip_range
        error = super().value_error(value, batch)
        if limit is None:
            return error
        near = batch.value + jnp.clip(value - batch.value, -limit, limit)
        return jnp.maximum(error, (near - batch.value_target) ** 2)

    def _adapted(self, weight: jax.Array, kl: jax.Array) -> jax.Array:
        """The KL weight after an update (section 4 of the paper)."""
        c = self.config
        if not c.kl_adaptive:
            return weight
        weight = jnp.where(kl > c.kl_penalty_target * 1.5, weight * 2.0, weight)
        weight = jnp.where(kl < c.kl_penalty_target / 1.5, weight / 2.0, weight)
        return jnp.clip(weight, 1e-4, 1e4)


def make(config: Config, spec: Spec, horizon: jax.Array) -> PPO:
    """Raises ConfigError where the options do not fit the action space."""
    return PPO(config=config, spec=spec, horizon=horizon)
