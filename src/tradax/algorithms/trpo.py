"""Trust region policy optimisation (Schulman et al. 2015).

The natural gradient's step, then a line search back from it: the first policy is taken that stays
within the divergence and improves the surrogate, or else the old one is kept.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.algorithms import _natural_gradient
from tradax.algorithms._natural_gradient import Direction, NaturalGradient, flat_policy
from tradax.algorithms._policy_gradient import Batch, Learner
from tradax.config import config, setting
from tradax.optimise import backtrack
from tradax.policies import ActorCritic
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

    def step(
        self, learner: Learner, found: Direction, batch: Batch, table
    ) -> tuple[ActorCritic, Metrics]:
        c, old = self.config, learner.network
        full = found.size_for(c.target_kl) * found.direction
        before = batch.share.mean(self.surrogate(old, batch, table))
        with_policy = flat_policy(old)[1]

        def accepted(size):
            new = with_policy(found.parameters + size * full)
            kl, surrogate = batch.share.mean(
                (self.divergence(old, new, batch, table), self.surrogate(new, batch, table))
            )
            return (kl < c.target_kl) & (surrogate > before)

        size, tried = backtrack(accepted, shrink=c.line_search_shrink, steps=c.line_search_steps)
        # At size 0 this is the old policy exactly, also where the direction is not finite.
        network = with_policy(jnp.where(size > 0, found.parameters + size * full, found.parameters))
        return network, {
            "surrogate": batch.share.mean(self.surrogate(network, batch, table)) - before,
            "line_search_steps": tried,
            "accepted": (size > 0).astype(jnp.float32),
        }


def make(config: Config, spec: Spec, horizon: jax.Array) -> TRPO:
    """Raises ConfigError where the options do not fit the action space."""
    return TRPO(config=config, spec=spec, horizon=horizon)
