"""Simulated annealing (Kirkpatrick, Gelatt and Vecchi 1983).

The best of `population_size` neighbours is taken if it is better, and with probability
exp(-loss / temperature) if it is worse (Metropolis et al. 1953). The temperature falls
geometrically over the run, and the noise of steps with its square root.
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
    """Simulated annealing: worse networks are taken too, ever more rarely."""

    population_size: int = setting(default=16, least=2)
    """The network at hand, played anew, and the neighbours tried beside it."""
    noise: float = setting(default=0.2, above=0)
    """Standard deviation of the first steps, of every parameter."""
    temperature: float = setting(default=10.0, above=0)
    """At the start, in units of the return: a loss of this is taken in 37% of cases."""
    final_temperature: float = setting(default=0.1, above=0)
    """At the end."""

    def validate(self):
        if self.final_temperature > self.temperature:
            raise ConfigError(
                f"simulated_annealing.final_temperature is {self.final_temperature:g}; it must "
                f"not be above the temperature at the start, {self.temperature:g}"
            )


class SimulatedAnnealing(Evolution):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array
    start: jax.Array | None

    def own(self, parameters: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where the search stands, and its fitness; `Learner` keeps the best that was found."""
        return parameters, jnp.float32(-jnp.inf)

    def cooling(self, learner: Learner) -> jax.Array:
        """What is left of the temperature."""
        c = self.config
        done = jnp.clip(learner.updates / jnp.maximum(self.horizon, 1.0), 0.0, 1.0)
        return (c.final_temperature / c.temperature) ** done

    def individual(self, learner: Learner, key: jax.Array, index: jax.Array) -> jax.Array:
        here, _ = learner.own
        noise = self.config.noise * jnp.sqrt(self.cooling(learner))
        step = noise * normals(jax.random.fold_in(key, index), here.size)
        return here + jnp.where(index == 0, 0.0, step)

    def tell(self, learner: Learner, generation: Generation, key: jax.Array):
        temperature = self.config.temperature * self.cooling(learner)
        here = generation.fitness[0]
        neighbours = generation.fitness.at[0].set(-jnp.inf)
        best = jnp.argmax(neighbours)
        gain = neighbours[best] - here
        accepted = jax.random.uniform(key) < jnp.exp(jnp.minimum(gain / temperature, 0.0))
        moved = self.chosen(learner, generation, jnp.where(accepted, best, 0))
        fitness = jnp.where(accepted, neighbours[best], here)
        # The best of this generation's episodes is what one would deploy now.
        winner = jnp.argmax(generation.fitness)
        return learner._replace(
            parameters=self.chosen(learner, generation, winner),
            fitness=generation.fitness[winner],
            own=(moved, fitness),
        ), {"temperature": temperature, "accepted": accepted.astype(jnp.float32)}


def make(config: Config, spec: Spec, horizon: jax.Array) -> SimulatedAnnealing:
    """Raises ConfigError where the initial policy does not fit."""
    return SimulatedAnnealing(config, spec, horizon, start_of(config, spec))
