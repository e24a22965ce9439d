"""Natural policy gradient (Kakade 2001), with steps of a set divergence (Rajeswaran et al. 2017).

theta <- theta + sqrt(2 delta / x' F x) x, with F x = g: of all steps of the same divergence delta
the one that promises the most, whatever the parameters' units are.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from tradax.algorithms import _natural_gradient
from tradax.algorithms._natural_gradient import Direction, NaturalGradient, flat_policy
from tradax.algorithms._policy_gradient import Batch, Learner
from tradax.config import config, setting
from tradax.errors import ConfigError
from tradax.optimise import linear_anneal
from tradax.policies import ActorCritic
from tradax.protocols import Metrics
from tradax.spaces import Spec

_LARGEST = 2_000

LEARNS_FROM_LOGS = True


@config
class Config(_natural_gradient.Config):
    """NPG: the natural gradient, in steps of equal divergence."""

    solver: Literal["cg", "explicit"] = "cg"
    """Conjugate gradients, or the whole Fisher matrix, for up to 2,000 policy parameters."""
    policy_step: float | None = setting(default=None, above=0)
    """Multiple of the natural gradient that is taken. None: what `target_kl` allows."""
    final_kl_fraction: float = setting(default=1.0, above=0, most=1)
    """What is left of `target_kl` at the last update, annealed linearly."""


class NPG(NaturalGradient):
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
        target = linear_anneal(c.target_kl, c.final_kl_fraction, learner.updates, self.horizon)
        size = jnp.sqrt(2.0 * target / jnp.maximum(found.curvature, 1e-12))
        if c.policy_step is not None:
            size = jnp.float32(c.policy_step)
        network = flat_policy(old)[1](found.parameters + size * found.direction)
        learner, value_loss = self.fit_critic(learner._replace(network=network), batch, table, key)
        return learner, self.diagnose(network, batch, table) | {
            "kl": self.divergence(old, network, batch, table),
            "value_loss": value_loss,
            "gradient_norm": optax.tree.norm(found.gradient),
            "step_size": size,
            "cg_residual": found.residual,
            "learning_rate": self.learning_rate(learner),
        }

    def direction(self, network: ActorCritic, batch: Batch, table, advantage) -> Direction:
        found = super().direction(network, batch, table, advantage)
        if self.config.solver == "cg":
            return found
        flat, product = self.fisher(network, batch, table)
        matrix = jax.vmap(product)(jnp.eye(flat.size))
        solution = jnp.linalg.solve(matrix, found.gradient)
        residual = jnp.sum((matrix @ solution - found.gradient) ** 2)
        return found._replace(
            direction=solution, curvature=solution @ matrix @ solution, residual=residual
        )


def make(config: Config, spec: Spec, horizon: jax.Array) -> NPG:
    """Raises ConfigError where a network is too large for its Fisher matrix."""
    algorithm = NPG(config=config, spec=spec, horizon=horizon)
    if config.solver == "explicit":
        network = jax.eval_shape(algorithm.network, jax.random.key(0))
        size = sum(x.size for x in jax.tree.leaves((network.actor, network.log_std)))
        if size > _LARGEST:
            raise ConfigError(
                f"npg.solver is explicit, but the policy has {size:,} parameters and its Fisher "
                f"matrix their square; use cg, or at most {_LARGEST:,} parameters"
            )
    return algorithm
