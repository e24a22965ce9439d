"""What a portfolio of simulated assets grows by, over many paths."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from tradax.envs.simulated_portfolio import SimulatedParams, SimulatedPortfolio
from tradax.evaluation.paths import follow
from tradax.protocols import Policy


@dataclass(frozen=True)
class SimulatedPortfolioResult:
    """Figures over paths of one episode each."""

    paths: int
    growth: float
    """Mean log growth of net worth, a year."""
    growth_error: float
    """Standard error of `growth`."""
    volatility: float
    """Standard deviation of log growth, a year."""
    invested: float
    """Mean over time of the sum of target weights, cash not among them."""
    turnover: float
    """Traded value over net worth, a year."""
    ruined: float
    """Share of paths that ended in ruin."""
    weights: np.ndarray
    """[n]: mean target weights."""


def assess(
    policy: Policy,
    env: SimulatedPortfolio,
    params: SimulatedParams,
    *,
    paths: int = 4_096,
    seed: int = 0,
) -> SimulatedPortfolioResult:
    """Let the policy, acting deterministically, invest on `paths` paths.

    Raises:
        TradaxError: the policy was made for other observations or actions, or too few paths.
    """
    n_steps = int(params.episode_length)
    path = follow(
        policy,
        env,
        params,
        _figures,
        n_steps=n_steps,
        paths=paths,
        seed=seed,
        side_by_side=1_024,
    )
    years = n_steps * float(params.dt)
    deviation = float(path.growth.std(ddof=1))
    return SimulatedPortfolioResult(
        paths=paths,
        growth=float(path.growth.mean()) / years,
        growth_error=deviation / years / paths**0.5,
        volatility=deviation / years**0.5,
        invested=float(path.weights.sum(axis=1).mean()),
        turnover=float(path.turnover.mean()) / years,
        ruined=float(path.ruined.mean()),
        weights=path.weights.mean(axis=0),
    )


class _Figures(NamedTuple):
    """Of a path; then each [paths, ...]."""

    growth: Any
    """Log growth of net worth."""
    turnover: Any
    """Traded value over net worth, summed."""
    weights: Any
    """[n]: mean target."""
    ruined: Any


def _figures(info: dict, params: SimulatedParams) -> _Figures:
    start = params.initial_cash
    counted = ~info["over"]
    steps = jnp.maximum(counted.sum(), 1)
    last = info["net_worth"][steps - 1]
    before = jnp.concatenate([start[None], info["net_worth"][:-1]])
    return _Figures(
        growth=jnp.log(jnp.maximum(last / start, 1e-3)),
        turnover=jnp.sum(jnp.where(counted, info["turnover"] / before, 0.0)),
        weights=jnp.sum(jnp.where(counted[:, None], info["target"], 0.0), axis=0) / steps,
        ruined=last <= params.ruin_level * start,
    )
