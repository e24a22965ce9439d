"""Hill climbing with steps of adaptive size.

Around the best parameters so far `population_size` neighbours are tried, and the best of them is
taken if it is no worse: one neighbour is plain hill climbing, several are steepest ascent. Steps
shrink after a success and grow after a failure.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.algorithms import _evolution
from tradax.algorithms._evolution import Evolution, Generation, Learner, start_of
from tradax.config import config, setting
from tradax.draws import normals
from tradax.errors import ConfigError
from tradax.spaces import Spec


@config
class Config(_evolution.Config):
    """Hill climbing: the best of some neighbours, in steps of adaptive size."""

    population_size: int = setting(default=16, least=1)
    """Neighbours that are tried in a generation."""
    noise: float = setting(default=0.1, above=0)
    """Standard deviation of the first step, of every parameter."""
    shrink: float = setting(default=0.7, above=0, most=1)
    """Factor of the noise after a success."""
    grow: float = setting(default=1.4, least=1)
    """Factor of the noise after a failure."""
    smallest_noise: float = setting(default=0.01, above=0)
    """The noise never falls below this."""
    largest_noise: float = setting(default=1.0, above=0)
    """The noise never rises above this."""
    reevaluate: bool = True
    """Play the best network's episodes anew beside its neighbours', so that no lucky one stays."""

    def validate(self):
        if not self.smallest_noise <= self.noise <= self.largest_noise:
            raise ConfigError(
                f"hill_climbing.noise is {self.noise:g}; it must lie between smallest_noise "
                f"{self.smallest_noise:g} and largest_noise {self.largest_noise:g}"
            )
        if self.reevaluate and self.population_size < 2:
            raise ConfigError(
                "hill_climbing.reevaluate plays the best network as one of the population; take "
                "a population_size of at least 2, or leave it out"
            )


class HillClimbing(Evolution):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array
    start: jax.Array | None

    def own(self, parameters: jax.Array, key: jax.Array) -> jax.Array:
        """The size of steps."""
        return jnp.asarray(self.config.noise, jnp.float32)

    def individual(self, learner: Learner, key: jax.Array, index: jax.Array) -> jax.Array:
        noise = normals(jax.random.fold_in(key, index), learner.parameters.size)
        step = learner.own * noise
        if self.config.reevaluate:
            step = jnp.where(index == 0, 0.0, step)
        return learner.parameters + step

    def tell(self, learner: Learner, generation: Generation, key: jax.Array):
        c = self.config
        fitness, to_beat = generation.fitness, learner.fitness
        if c.reevaluate:
            to_beat, fitness = fitness[0], fitness.at[0].set(-jnp.inf)
        best = jnp.argmax(fitness)
        success = fitness[best] >= to_beat
        noise = jnp.clip(
            learner.own * jnp.where(success, c.shrink, c.grow), c.smallest_noise, c.largest_noise
        )
        neighbour = self.chosen(learner, generation, best)
        return learner._replace(
            parameters=jnp.where(success, neighbour, learner.parameters),
            fitness=jnp.where(success, fitness[best], to_beat),
            own=noise,
        ), {"noise": noise, "success": success.astype(jnp.float32)}


def make(config: Config, spec: Spec, horizon: jax.Array) -> HillClimbing:
    """Raises ConfigError where the initial policy does not fit."""
    return HillClimbing(config, spec, horizon, start_of(config, spec))
