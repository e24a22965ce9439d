"""Natural policy gradient (Kakade 2001), with steps of a set divergence (Rajeswaran et al. 2017).

theta <- theta + sqrt(2 delta / x' F x) x, with F x = g: of all steps of the same divergence delta
the one that promises the most, whatever the parameters' units are.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

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

    def step(
        self, learner: Learner, found: Direction, batch: Batch, table
    ) -> tuple[ActorCritic, Metrics]:
        c = self.config
        target = linear_anneal(c.target_kl, c.final_kl_fraction, learner.updates, self.horizon)
        size = found.size_for(target)
        if c.policy_step is not None:
            size = jnp.float32(c.policy_step)
        with_policy = flat_policy(learner.network)[1]
        return with_policy(found.parameters + size * found.direction), {"step_size": size}

    def direction(self, network: ActorCritic, batch: Batch, table) -> Direction:
        found = super().direction(network, batch, table)
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
