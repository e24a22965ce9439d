"""The cross-entropy method (Rubinstein and Kroese 2004), with a diagonal Gaussian.

Parameters are drawn from it, and it is fitted to the best of them; noise that is added to its
deviation, and that dies out over the run, keeps it from collapsing early (Szita and Lorincz 2006).
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.algorithms import _evolution
from tradax.algorithms._evolution import Evolution, Generation, Learner, elite_count, start_of
from tradax.config import config, setting
from tradax.draws import normals
from tradax.spaces import Spec


@config
class Config(_evolution.Config):
    """Cross-entropy: a Gaussian fitted to the best that it gave."""

    elite_fraction: float = setting(default=0.2, above=0, most=1, static=True)
    """Part of the population to which the Gaussian is fitted."""
    initial_deviation: float = setting(default=0.3, above=0)
    """Standard deviation of every parameter at the start."""
    extra_deviation: float = setting(default=0.1, least=0)
    """Added in quadrature to the deviation at the start; falls linearly."""
    extra_until: float = setting(default=0.5, above=0, most=1)
    """Part of the run after which nothing is added any more."""

    def validate(self):
        elites(self)


def elites(config: Config) -> int:
    return elite_count(config, 2, "to take a deviation of; raise one of them")


class CEM(Evolution):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array
    start: jax.Array | None

    def own(self, parameters: jax.Array, key: jax.Array) -> jax.Array:
        """The deviation [D]."""
        return jnp.full(parameters.shape, self.config.initial_deviation, jnp.float32)

    def individual(self, learner: Learner, key: jax.Array, index: jax.Array) -> jax.Array:
        c = self.config
        done = learner.updates / jnp.maximum(self.horizon * c.extra_until, 1.0)
        extra = c.extra_deviation * jnp.maximum(1.0 - done, 0.0)
        deviation = jnp.sqrt(learner.own**2 + extra**2)
        noise = normals(jax.random.fold_in(key, index), learner.parameters.size)
        return learner.parameters + deviation * noise

    def tell(self, learner: Learner, generation: Generation, key: jax.Array):
        fitness, index = jax.lax.top_k(generation.fitness, elites(self.config))
        best = self.chosen(learner, generation, index)
        deviation = best.std(axis=0)
        return learner._replace(
            parameters=best.mean(axis=0), fitness=fitness.mean(), own=deviation
        ), {"elite_fitness": fitness.mean(), "deviation": deviation.mean()}


def make(config: Config, spec: Spec, horizon: jax.Array) -> CEM:
    """Raises ConfigError where the initial policy does not fit."""
    return CEM(config, spec, horizon, start_of(config, spec))
