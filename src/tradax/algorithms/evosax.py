"""Any strategy of evosax (Lange 2022) by its name, through the same door as the others.

evosax minimises, so it is told the fitness with its sign turned. A strategy that keeps a
distribution is deployed at its mean; one that keeps a population at the best individual ever.
Needs the extra `tradax[evosax]`.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.algorithms import _evolution
from tradax.algorithms._evolution import Evolution, Generation, Learner, start_of
from tradax.config import config, setting
from tradax.errors import ConfigError
from tradax.spaces import Spec

# They unpickle weights that were learned elsewhere, keep several means, or need functions of one's
# own.
_LEFT_OUT = ("CMAAnchoredLES", "EvoTF_ES", "LES", "LGA", "RandomSearch", "SV_CMA_ES", "SV_Open_ES")


@config
class Config(_evolution.Config):
    """A strategy of evosax, such as CMA_ES, by its name."""

    strategy: str = "Sep_CMA_ES"
    """Its name in evosax. CMA_ES and its like keep a square matrix: small networks only."""
    initial_deviation: float = setting(default=0.3, above=0)
    """Deviation of every parameter at the start; of strategies with a schedule, throughout."""


class Evosax(Evolution):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array
    start: jax.Array | None

    def strategy(self, size: int) -> tuple[Any, Any]:
        """A strategy for vectors of this size, and its parameters."""
        c, kind = self.config, _strategies()[self.config.strategy]
        scheduled = "std_schedule" in kind.__init__.__code__.co_varnames
        # A schedule is asked for a step at a time, and must give what is traced here.
        options = {"std_schedule": lambda step: c.initial_deviation} if scheduled else {}
        with jax.ensure_compile_time_eval():  # some compute shapes from their parameters
            made = kind(population_size=c.population_size, solution=jnp.zeros(size), **options)
            params = made.default_params
        if not scheduled and hasattr(params, "std_init"):
            params = params.replace(std_init=c.initial_deviation)
        return made, params

    def own(self, parameters: jax.Array, key: jax.Array) -> Any:
        """The state of the strategy; where it keeps a population, before the first was tried."""
        made, params = self.strategy(parameters.size)
        if _keeps_mean(made):
            return _arrays(made.init(key, parameters, params))
        size = (self.config.population_size, parameters.size)
        return _arrays(made.init(key, jnp.zeros(size), jnp.zeros(size[0]), params))

    def population(self, learner: Learner, key: jax.Array) -> tuple[jax.Array, Any]:
        """All individuals [P, D], and the strategy's state once it has been asked."""
        made, params = self.strategy(learner.parameters.size)
        drawn, state = made.ask(key, learner.own, params)
        if _keeps_mean(made):
            return drawn, state
        noise = self.config.initial_deviation * jax.random.normal(key, drawn.shape)
        return jnp.where(learner.updates == 0, learner.parameters + noise, drawn), state

    def individual(self, learner: Learner, key: jax.Array, index: jax.Array) -> jax.Array:
        return self.individuals(learner, key, index[None])[0]

    def individuals(self, learner: Learner, key: jax.Array, index: jax.Array) -> jax.Array:
        return self.population(learner, key)[0][index]

    def tell(self, learner: Learner, generation: Generation, key: jax.Array):
        made, params = self.strategy(learner.parameters.size)
        population, state = self.population(learner, generation.key)
        loss = -generation.fitness
        told, _ = made.tell(key, population, loss, state, params)
        if _keeps_mean(made):
            parameters, fitness = told.mean, generation.fitness.mean()
        else:
            # The first population was not of the strategy's asking: it begins with it.
            begun = made.init(key, population, loss, params)
            first = learner.updates == 0
            told = jax.tree.map(lambda x, y: jnp.where(first, x, y), begun, told)
            parameters, fitness = learner.best, learner.best_fitness
        return learner._replace(parameters=parameters, fitness=fitness, own=_arrays(told)), {}


def _keeps_mean(strategy: Any) -> bool:
    return hasattr(strategy, "get_mean")


def _arrays(state: Any) -> Any:
    """evosax's states begin with Python numbers, and a loop needs arrays of one type."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), state)


def _strategies() -> dict[str, Any]:
    try:
        from evosax.algorithms import algorithms
    except ImportError as error:
        raise ConfigError(
            "evosax is not installed; install it with: pip install 'tradax[evosax]'"
        ) from error
    return {name: kind for name, kind in algorithms.items() if name not in _LEFT_OUT}


def make(config: Config, spec: Spec, horizon: jax.Array) -> Evosax:
    """Raises ConfigError where evosax or the strategy is missing, or the initial policy unfit."""
    known = _strategies()
    if config.strategy not in known:
        raise ConfigError(
            f"evosax.strategy is {config.strategy}; it must be one of {', '.join(sorted(known))}"
        )
    return Evosax(config, spec, horizon, start_of(config, spec))
