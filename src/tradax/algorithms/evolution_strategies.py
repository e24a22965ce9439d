"""Evolution strategies (Salimans et al. 2017): a gradient estimated from perturbed parameters.

    g = 1 / (P sigma) sum_i u_i epsilon_i

with epsilon in pairs of opposite sign and u the ranks of the fitness, centred: -1/2 to 1/2.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from tradax.algorithms import _evolution
from tradax.algorithms._evolution import Evolution, Generation, Learner, start_of
from tradax.config import config, setting
from tradax.draws import normals
from tradax.errors import ConfigError
from tradax.optimise import descend, linear_anneal
from tradax.spaces import Spec


@config
class Config(_evolution.Config):
    """Evolution strategies: Adam on a gradient that a population estimates."""

    sigma: float = setting(default=0.05, above=0)
    """Standard deviation of the perturbations."""
    learning_rate: float = setting(default=0.03, above=0)
    """Adam step size at the first generation."""
    final_learning_rate_fraction: float = setting(default=0.1, least=0, most=1)
    """What is left of it at the last, annealed linearly. 1: constant."""
    weight_decay: float = setting(default=0.0, least=0, below=1)
    """Times the learning rate: part of the parameters that is taken off in a generation."""

    def validate(self):
        if self.population_size % 2:
            raise ConfigError(
                f"evolution_strategies.population_size is {self.population_size}; perturbations "
                "come in pairs, so it must be even"
            )


class EvolutionStrategies(Evolution):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array
    start: jax.Array | None

    def own(self, parameters: jax.Array, key: jax.Array) -> optax.OptState:
        """The state of Adam."""
        return optax.adamw(0.0).init(parameters)

    def individual(self, learner: Learner, key: jax.Array, index: jax.Array) -> jax.Array:
        half = self.config.population_size // 2
        sign = jnp.where(index < half, 1.0, -1.0)
        noise = normals(jax.random.fold_in(key, index % half), learner.parameters.size)
        return learner.parameters + sign * self.config.sigma * noise

    def tell(self, learner: Learner, generation: Generation, key: jax.Array):
        c = self.config
        half = c.population_size // 2
        plus = self.chosen(learner, generation, jnp.arange(half))
        noise = (plus - learner.parameters) / c.sigma
        ranks = centred_ranks(generation.fitness)
        gradient = -((ranks[:half] - ranks[half:]) @ noise) / (c.population_size * c.sigma)
        rate = linear_anneal(
            c.learning_rate, c.final_learning_rate_fraction, learner.updates, self.horizon
        )
        optimiser = optax.adamw(rate, weight_decay=c.weight_decay)
        parameters, state = descend(optimiser, gradient, learner.own, learner.parameters)
        return learner._replace(
            parameters=parameters, fitness=generation.fitness.mean(), own=state
        ), {"gradient_norm": jnp.linalg.norm(gradient), "learning_rate": rate}


def centred_ranks(fitness: jax.Array) -> jax.Array:
    """-1/2 for the worst to 1/2 for the best [P]; equal fitness has equal ranks."""
    below = jnp.sum(fitness[None, :] < fitness[:, None], axis=1)
    above = jnp.sum(fitness[None, :] > fitness[:, None], axis=1)
    return (below - above) / (2.0 * jnp.maximum(fitness.size - 1, 1))


def make(config: Config, spec: Spec, horizon: jax.Array) -> EvolutionStrategies:
    """Raises ConfigError where the initial policy does not fit."""
    return EvolutionStrategies(config, spec, horizon, start_of(config, spec))
