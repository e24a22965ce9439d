"""A genetic algorithm over the parameters of a network.

The best part of the population, the elites, lives on unchanged; the rest are children of two
parents each: crossed over at one point, then mutated in some of their parameters.
"""

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.algorithms import _evolution
from tradax.algorithms._evolution import Evolution, Generation, Learner
from tradax.config import config, setting
from tradax.errors import ConfigError
from tradax.spaces import Spec


@config
class Config(_evolution.Config):
    """A genetic algorithm: elites, crossover, mutation."""

    elite_fraction: float = setting(default=0.2, above=0, most=1, static=True)
    """Part of the population that lives on, and of which parents are chosen."""
    mutation_rate: float = setting(default=0.1, least=0, most=1)
    """Chance of each parameter of a child to be mutated."""
    mutation_scale: float = setting(default=0.02, least=0)
    """Standard deviation of a mutation."""
    initial_scale: float = setting(default=0.5, above=0)
    """Standard deviation between the networks of the first generation."""
    crossover: Literal["single_point", "uniform", "none"] = "single_point"
    """Where a child's parameters come from one parent and where from the other."""
    selection: Literal["truncation", "tournament"] = "truncation"
    """Parents are any elites, or each the best of `tournament_size` of the population."""
    tournament_size: int = setting(default=4, least=1)
    """Of which the best becomes a parent."""

    def validate(self):
        if self.crossover != "none" and elites(self) < 2:
            raise ConfigError(
                f"genetic.elite_fraction {self.elite_fraction:g} of {self.population_size} leaves "
                "fewer than 2 parents to cross; raise one of them, or take crossover none"
            )


def elites(config: Config) -> int:
    return math.ceil(config.elite_fraction * config.population_size)


class Genetic(Evolution):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array

    def own(self, parameters: jax.Array, key: jax.Array) -> jax.Array:
        """The generation to be tried [P, D]."""
        shape = (self.config.population_size, parameters.size)
        return parameters + self.config.initial_scale * jax.random.normal(key, shape)

    def ask(self, learner: Learner, key: jax.Array) -> jax.Array:
        return learner.own

    def tell(self, learner: Learner, generation: Generation, key: jax.Array):
        count = elites(self.config)
        fitness, order = jax.lax.top_k(generation.fitness, self.config.population_size)
        ranked = generation.population[order]
        children = self.children(ranked, key)
        improved = fitness[0] >= learner.fitness
        return learner._replace(
            # The best ever; of equals the latest, which comes of a better population.
            parameters=jnp.where(improved, ranked[0], learner.parameters),
            fitness=jnp.maximum(fitness[0], learner.fitness),
            own=jnp.concatenate([ranked[:count], children]),
        ), {"elite_fitness": fitness[:count].mean(), "best_fitness": fitness[0]}

    def children(self, ranked: jax.Array, key: jax.Array) -> jax.Array:
        """What is missing beside the elites.

        Args:
            ranked: the population [P, D], the best first.

        Returns: [P - elites, D]
        """
        c = self.config
        count, size = c.population_size - elites(c), ranked.shape[1]
        choose_key, cross_key, rate_key, scale_key = jax.random.split(key, 4)
        if c.selection == "truncation":
            chosen = jax.random.randint(choose_key, (2, count), 0, elites(c))
        else:
            contest = jax.random.randint(
                choose_key, (2, count, c.tournament_size), 0, c.population_size
            )
            chosen = contest.min(axis=-1)
        first, second = ranked[chosen[0]], ranked[chosen[1]]
        if c.crossover == "single_point":
            point = jax.random.randint(cross_key, (count, 1), 1, size)
            child = jnp.where(jnp.arange(size) < point, first, second)
        elif c.crossover == "uniform":
            child = jnp.where(jax.random.bernoulli(cross_key, 0.5, first.shape), first, second)
        else:
            child = first
        mutated = jax.random.bernoulli(rate_key, c.mutation_rate, child.shape)
        return child + mutated * c.mutation_scale * jax.random.normal(scale_key, child.shape)


def make(config: Config, spec: Spec, horizon: jax.Array) -> Genetic:
    """Raises ConfigError where the options do not fit the action space."""
    return Genetic(config=config, spec=spec, horizon=horizon)
