"""Population-based training (Jaderberg et al. 2017): the worst members copy the best and go on with
other settings.

A population is all members of one symbol and seed. It starts from settings drawn at random. Every
so many updates there is a round: the worst share of the population by validation score copy what
random ones of the best share have learned, their environments and their settings (exploit by
truncation), and multiply or divide each searched setting by a factor (explore by perturbation; both
in section 4.1.1 of the paper). Settings of type float are leaves of the algorithm's `Config`, so
that nothing is compiled again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tradax import discovery, training
from tradax.compiling import overwriting
from tradax.config import checked
from tradax.errors import ConfigError
from tradax.preparation import Request
from tradax.protocols import Algorithm
from tradax.sweeps.grid import Setting, Space
from tradax.sweeps.members import Member, SweepRequest
from tradax.training import Hook, Progress

_LEAST = 4
_ONLY = "population-based training changes numbers of type float only, of the algorithm"


@dataclass(frozen=True, kw_only=True)
class Population:
    """How the members of a population learn from each other, in plain values."""

    every: int
    """Environment steps of each member between two rounds, rounded up to whole updates."""
    truncation: float
    """Share of the population that copies, and of those that are copied; at least one member."""
    perturbation: float
    """A member that has copied multiplies each searched setting by this, or divides by it."""
    ranges: dict[str, list[float]]
    """Option of the algorithm -> lowest and highest value."""

    @property
    def searched(self) -> Setting:
        """What stands for its members' settings in tables."""
        told = {name: f"{low:g} to {high:g}" for name, (low, high) in self.ranges.items()}
        return {"population": told}


def planned(
    request: Request,
    tried: Space,
    size: int,
    *,
    every: int | None = None,
    truncation: float,
    perturbation: float,
) -> Population:
    """What was asked for; `every` is a twentieth of the run where it is None.

    Raises:
        ConfigError: the population would not start from ranges, or not of numbers that can change.
    """
    if size < _LEAST:
        raise ConfigError(f"population is {size}; it must be at least {_LEAST}")
    if tried.choices:
        raise ConfigError(
            "a population starts from settings drawn from ranges; give ranges (--range), no lists "
            "of values (--grid)"
        )
    if not tried.ranges:
        raise ConfigError("a population needs at least one range (ranges, --range)")
    population = Population(
        every=max(1, request.total_timesteps // 20) if every is None else every,
        truncation=float(truncation),
        perturbation=float(perturbation),
        ranges={option: [r.low, r.high] for (_, option), r in tried.ranges.items()},
    )
    for (section, option), searched in tried.ranges.items():
        if section != request.algorithm or searched.kind == "int":
            raise ConfigError(f"{section}.{option} has a range, and {_ONLY}; use --random for it")
        for end in (searched.low, searched.high):  # explored settings come to lie on them
            own = request.settings.get(section, {}) | {option: end}
            changed = replace(request, settings=request.settings | {section: own})
            config = changed.options_of(discovery.module("algorithms", request.algorithm))
            _check(population, config, options=[option])
    return population


def population_of(request: SweepRequest, algorithm: Algorithm) -> Population:
    """The population of a sweep that has one.

    Raises:
        ConfigError: a value is out of its bounds, or does not fit the algorithm.
    """
    population = checked(Population, request.population or {}, "population")
    _check(population, algorithm.config, options=list(population.ranges))
    total = request.run["total_timesteps"]
    if _updates(population, algorithm) >= training.updates_needed(algorithm, total):
        raise ConfigError(
            f"population_every is {population.every}, in whole updates of "
            f"{algorithm.steps_per_update}; the run of {total} steps would end before the first "
            "round"
        )
    return population


def _check(population: Population, config: Any, options: Sequence[str]) -> None:
    if population.every < 1:
        raise ConfigError(f"population_every is {population.every}; it must be at least 1")
    if not 0 < population.truncation <= 0.5:
        raise ConfigError(
            f"truncation is {population.truncation}; it must be above 0 and at most 0.5"
        )
    if not population.perturbation > 1:
        raise ConfigError(f"perturbation is {population.perturbation}; it must be above 1")
    leaves = {path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(config)}
    for option in options:
        if option not in leaves:
            raise ConfigError(f"{option} decides on the program, and {_ONLY}; use --random for it")
        if len(population.ranges[option]) != 2:
            raise ConfigError(
                f"the range of {option} is {population.ranges[option]}; give two ends"
            )


def parents(scores: np.ndarray, truncation: float, generator: np.random.Generator) -> np.ndarray:
    """Whom each member goes on from: itself, or for the worst a random one of the best.

    Args:
        scores: [P], larger is better; what is not a number is the worst.
    """
    count = max(1, int(truncation * len(scores)))
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
    chosen = np.arange(len(scores))
    chosen[order[-count:]] = generator.choice(order[:count], size=count)
    return chosen


def perturbed(
    values: np.ndarray, ends: Sequence[float], factor: float, generator: np.random.Generator
) -> np.ndarray:
    """Each value times `factor` or divided by it, with equal chances, between the ends."""
    factors = np.where(generator.random(len(values)) < 0.5, factor, 1.0 / factor)
    low, high = ends
    return np.clip(values * factors, low, high)


class Rounds:
    """What happens between updates of a wave that holds whole populations, one after the other.

    Draws depend on a population's seed and on how many updates it has done, not on what else is
    trained, nor on interruptions.

    Args:
        members: of the wave, without those that only fill it up.
        files: a `settings.jsonl` a member, or a `Hook` that writes nothing.
    """

    def __init__(
        self,
        population: Population,
        members: Sequence[Member],
        algorithm: Algorithm,
        files: Hook,
    ):
        self.every = _updates(population, algorithm)
        self._population, self._members, self._files = population, members, files
        self._steps_per_update = algorithm.steps_per_update
        self._size = 1 + max(member.setting for member in members)

    def __call__(self, progress: Progress) -> Progress:
        """A round: exploit and explore."""
        population = self._population
        update = int(np.max(np.asarray(progress.state.update)))
        scores = np.asarray(progress.last_score)
        sources = np.arange(len(scores))
        values = {name: np.array(getattr(progress.config, name)) for name in population.ranges}
        for start in range(0, len(self._members), self._size):
            generator = np.random.default_rng([self._members[start].seed % 2**32, update])
            own = slice(start, start + self._size)
            chosen = parents(scores[own], population.truncation, generator)
            changed = start + np.flatnonzero(chosen != np.arange(self._size))
            sources[own] = start + chosen
            for name, ends in population.ranges.items():
                values[name][changed] = perturbed(
                    values[name][sources[changed]], ends, population.perturbation, generator
                )
        progress = exploited(progress, sources)
        config = replace(progress.config, **{n: jnp.asarray(v) for n, v in values.items()})
        self.note(config, update, sources)
        return progress._replace(config=config)

    def note(self, config: Any, update: int, sources: np.ndarray | None = None) -> None:
        """Write the settings of every member, and whom it has copied."""
        values = {n: np.asarray(getattr(config, n), np.float32) for n in self._population.ranges}
        for place in range(len(self._members)):
            source = place if sources is None else int(sources[place])
            row = {
                "update": update,
                "timesteps": update * self._steps_per_update,
                "copied": None if source == place else self._members[source].number,
                # The shortest decimals that mean the same float32.
                **{name: float(str(value[place])) for name, value in values.items()},
            }
            self._files.on_row(row, place)


def exploited(progress: Progress, sources: np.ndarray) -> Progress:
    """Members as those that they go on from.

    A member keeps its own random draws, and the best policy that it ever had.

    Args:
        sources: [M] places; a member that is its own source stays as it is.
    """
    changed = np.flatnonzero(sources != np.arange(len(sources)))
    state = progress.state
    copied = _copied(
        (changed, sources[changed]),
        (state._replace(key=None), progress.config, progress.sums, progress.last_score),
    )
    new, config, sums, score = jax.block_until_ready(copied)
    return progress._replace(
        state=new._replace(key=state.key), config=config, sums=sums, last_score=score
    )


@overwriting
def _copied(places: tuple[np.ndarray, np.ndarray], tree: Any) -> Any:
    """In place, for a replay buffer is large."""
    to, of = places
    return jax.tree.map(lambda x: x.at[to].set(x[of]), tree)


def keys_of(members: Sequence[Member], keys: jax.Array) -> jax.Array:
    """Members of a population share a seed; each has draws of its own. Keys: [at least M]."""
    places = np.zeros(len(keys), np.uint32)
    places[: len(members)] = [member.setting for member in members]
    return jax.vmap(jax.random.fold_in)(keys, places)


def _updates(population: Population, algorithm: Algorithm) -> int:
    """Between two rounds."""
    return training.updates_needed(algorithm, population.every)
