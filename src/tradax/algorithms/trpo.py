"""Trust region policy optimisation (Schulman et al. 2015).

The natural gradient's step, then a line search back from it: the first policy is taken that stays
within the divergence and improves the surrogate, or else the old one is kept.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from tradax.algorithms import _natural_gradient
from tradax.algorithms._natural_gradient import NaturalGradient, flat_policy
from tradax.algorithms._policy_gradient import Batch, Learner
from tradax.config import config, setting
from tradax.optimise import backtrack
from tradax.protocols import Metrics
from tradax.spaces import Spec

LEARNS_FROM_LOGS = True


@config
class Config(_natural_gradient.Config):
    """TRPO: the natural gradient with a line search within a trust region."""

    line_search_steps: int = setting(default=10, least=1)
    """Step sizes that are tried before the old policy is kept."""
    line_search_shrink: float = setting(default=0.8, above=0, below=1)
    """A step size is so much of the one before."""


class TRPO(NaturalGradient):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array

    def improve(
        self, learner: Learner, batch: Batch, table: jax.Array | None, key: jax.Array
    ) -> tuple[Learner, Metrics]:
        c, old = self.config, learner.network
        batch = batch.flat()
        advantage = batch.standardised() if c.normalize_advantages else batch.advantage
        found = self.direction(old, batch, table, advantage)
        full = jnp.sqrt(2.0 * c.target_kl / jnp.maximum(found.curvature, 1e-12)) * found.direction
        before = self.surrogate(old, batch, table, advantage)
        with_policy = flat_policy(old)[1]

        def accepted(size):
            new = with_policy(found.parameters + size * full)
            kl = self.divergence(old, new, batch, table)
            return (kl < c.target_kl) & (self.surrogate(new, batch, table, advantage) > before)

        size, tried = backtrack(accepted, shrink=c.line_search_shrink, steps=c.line_search_steps)
        # At size 0 this is the old policy exactly, also where the direction is not finite.
        parameters = jnp.where(size > 0, found.parameters + size * full, found.parameters)
        network = with_policy(parameters)
        learner, value_loss = self.fit_critic(learner._replace(network=network), batch, table, key)
        return learner, self.diagnose(network, batch, table) | {
            "kl": self.divergence(old, network, batch, table),
            "surrogate": self.surrogate(network, batch, table, advantage) - before,
            "value_loss": value_loss,
            "gradient_norm": optax.tree.norm(found.gradient),
            "line_search_steps": tried,
            "accepted": (size > 0).astype(jnp.float32),
            "cg_residual": found.residual,
            "learning_rate": self.learning_rate(learner),
        }


def make(config: Config, spec: Spec, horizon: jax.Array) -> TRPO:
    """Raises ConfigError where the options do not fit the action space."""
    return TRPO(config=config, spec=spec, horizon=horizon)
