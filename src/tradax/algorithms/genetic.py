"""A genetic algorithm over the parameters of a network.

The best part of the population, the elites, lives on unchanged; the rest are children of two
parents each: crossed over at one point, then mutated in some of their parameters.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.algorithms import _evolution
from tradax.algorithms._evolution import Evolution, Generation, Learner, elite_count, start_of
from tradax.config import config, setting
from tradax.draws import near_normals, random_integer, random_words, uniforms
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
        elites(self)


def elites(config: Config) -> int:
    least = 1 if config.crossover == "none" else 2
    return elite_count(config, least, "parents to cross; raise one of them, or leave crossover out")


class Genetic(Evolution):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array
    start: jax.Array | None

    @property
    def parents(self) -> int:
        """How many of a generation can become parents: the elites, or all in a tournament."""
        c = self.config
        return elites(c) if c.selection == "truncation" else c.population_size

    def own(self, parameters: jax.Array, key: jax.Array) -> jax.Array:
        """The parents [N, D] of the next generation, the best first."""
        return jnp.broadcast_to(parameters, (self.parents, parameters.size))

    def individual(self, learner: Learner, key: jax.Array, index: jax.Array) -> jax.Array:
        key = jax.random.fold_in(key, index)
        child = self.child(learner.own, key, learner.updates == 0)
        elite = (index < elites(self.config)) & (learner.updates > 0)
        return jnp.where(elite, learner.own[jnp.minimum(index, self.parents - 1)], child)

    def child(self, parents: jax.Array, key: jax.Array, first: jax.Array) -> jax.Array:
        """Parameters [D] of a child of two parents [N, D], the best first.

        Args:
            first: whether it is of the first generation, whose parents are all the same.
        """
        c, size = self.config, parents.shape[1]
        choose_key, cross_key, rate_key, scale_key = (jax.random.fold_in(key, i) for i in range(4))
        contest = c.tournament_size if c.selection == "tournament" else 1
        drawn = [random_integer(choose_key, jnp.int32(self.parents), i) for i in range(2 * contest)]
        chosen = jnp.stack(drawn).reshape(2, contest).min(axis=-1)
        mother, father = parents[chosen[0]], parents[chosen[1]]
        if c.crossover == "single_point":
            point = 1 + random_integer(cross_key, jnp.int32(size - 1))
            child = jnp.where(jnp.arange(size) < point, mother, father)
        elif c.crossover == "uniform":
            child = jnp.where(random_words(cross_key, size) >> 31 == 0, mother, father)
        else:
            child = mother
        mutated = (uniforms(rate_key, size) < c.mutation_rate) | first
        scale = jnp.where(first, c.initial_scale, c.mutation_scale)
        return child + jnp.where(mutated, scale * near_normals(scale_key, size), 0.0)

    def tell(self, learner: Learner, generation: Generation, key: jax.Array):
        fitness, order = jax.lax.top_k(generation.fitness, self.parents)
        return learner._replace(
            parameters=learner.best,
            fitness=learner.best_fitness,
            own=self.chosen(learner, generation, order),
        ), {"elite_fitness": fitness[: elites(self.config)].mean()}


def make(config: Config, spec: Spec, horizon: jax.Array) -> Genetic:
    """Raises ConfigError where the initial policy does not fit."""
    return Genetic(config, spec, horizon, start_of(config, spec))
