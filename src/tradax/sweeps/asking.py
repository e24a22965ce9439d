"""From the arguments of a sweep to its request: which settings it begins with, and what fits."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax

from tradax.config import plain
from tradax.draws import check_seed
from tradax.errors import ConfigError
from tradax.preparation import Request
from tradax.sweeps import grid as grids
from tradax.sweeps import optuna_search
from tradax.sweeps.members import Layout, SweepRequest, size_words, symbols_of
from tradax.sweeps.population import planned
from tradax.sweeps.ray_cluster import Cluster

_SHARE_OF_MEMORY = 0.8
"""Of what is free, for waves."""


def first_settings(
    tried: grids.Space, random: int | None, population: int | None, batch: int | None
) -> list[grids.Setting]:
    """The grid, random draws, a population's start, or what shows whether Optuna's can be trained.

    Args:
        batch: settings that Optuna proposes at a time; None without it.
    """
    if batch is not None:
        if random is None or random < 1:
            raise ConfigError(
                f"random is {random}; say how many settings optuna tries (--random 64)"
            )
        if batch < 1:
            raise ConfigError(f"optuna_batch is {batch}; it must be at least 1")
        return optuna_search.corners(tried)
    drawn = random if population is None else population
    return grids.grid(tried) if drawn is None else grids.draws(tried, drawn, 0)


def population_plan(
    run: Request,
    tried: grids.Space,
    population: int | None,
    *,
    random: int | None,
    every: int | None,
    truncation: float,
    perturbation: float,
) -> dict[str, Any] | None:
    """`SweepRequest.population`.

    Raises:
        ConfigError: what does not go with a population, or not without one.
    """
    if population is None:
        if every is not None:
            raise ConfigError("population_every needs a population (population, --population)")
        return None
    if random is not None:
        raise ConfigError("a population draws its own settings; leave out random, --random")
    how = {"every": every, "truncation": truncation, "perturbation": perturbation}
    return vars(planned(run, tried, population, **how))


def check(request: SweepRequest, ray: str | None) -> None:
    """Raises ConfigError where there are not so many devices, or a number makes no sense."""
    if request.run["total_timesteps"] < 1:
        raise ConfigError(f"timesteps is {request.run['total_timesteps']}; it must be at least 1")
    for seed in request.seeds:
        check_seed(seed)
    there = len(jax.devices())
    if request.devices < 1 or (ray is None and request.devices > there):
        raise ConfigError(
            f"devices is {request.devices}, and there are {there} ({jax.devices()[0].platform})"
        )
    if jax.process_count() > 1 and (ray is not None or request.batch is not None):
        raise ConfigError("--distributed goes with neither ray nor optuna; choose one of them")
    if jax.process_count() > 1 and request.devices != there:
        raise ConfigError(
            f"devices is {request.devices}; with several processes all {there} of them are used"
        )
    if request.wave_members is not None and request.wave_members < 1:
        raise ConfigError(f"wave_members is {request.wave_members}; it must be at least 1")


def room(free: int | None) -> int | None:
    """Bytes that waves may take of those that are free."""
    return None if free is None else int(_SHARE_OF_MEMORY * free)


def check_room(layout: Layout, free: int | None) -> None:
    """Raises ConfigError where waves that were planned before do not fit now."""
    most = max(wave.bytes for wave in layout.waves)
    if most > (free or most):
        raise ConfigError(
            f"waves of this sweep take {size_words(most)}, and {size_words(free or 0)} are "
            "free; make room, or begin another sweep"
        )


def fitting(
    corners: list[grids.Setting], fits: Callable[[grids.Setting], None]
) -> list[grids.Setting]:
    """Those that can be trained.

    Raises:
        ConfigError: a value is out of its option's bounds, or none of them can be trained.
    """
    found, problem = [], None
    for setting in corners:
        try:
            fits(setting)
            found.append(setting)
        except ConfigError as error:  # perhaps only two values that do not go together
            if "; it must be " in str(error):
                raise
            problem = error
    if problem is not None and not found:
        raise problem
    return found


def for_cluster(
    request: SweepRequest, layout: Layout, cluster: Cluster, free: int | None, random: int | None
) -> SweepRequest:
    """Waves that every node has room for, and at least as many of them as are trained at once."""
    settings = len(request.settings)
    if request.batch is not None:
        settings = min(request.batch, random or request.batch)
    symbols = len(symbols_of(layout.tasks[0], request.run["env"]))
    members = settings * symbols * len(request.seeds)
    most = max(-(-members // cluster.slots), request.devices)
    return replace(request, memory=room(free), wave_members=request.wave_members or most)


def seed_list(seeds: int | Sequence[int]) -> list[int]:
    given = list(range(seeds)) if isinstance(seeds, int) else [plain(seed) for seed in seeds]
    if not given:
        raise ConfigError(f"seeds is {seeds}; give at least one")
    if len(set(given)) < len(given):
        raise ConfigError("a seed is given twice; each makes the same run again")
    return given
