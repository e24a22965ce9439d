"""What a market maker earns and risks, over many simulated paths."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from tradax.envs.market_making import MarketMaking, MarketMakingParams
from tradax.evaluation.paths import follow
from tradax.protocols import Policy


@dataclass(frozen=True)
class MarketMakingResult:
    """Figures over paths; profits in dollars, the final inventory marked to the mid price."""

    paths: int
    profit: float
    """Mean profit."""
    standard_error: float
    """Of `profit`."""
    sd: float
    """Standard deviation of the profit over paths."""
    inventory_sd: float
    """Standard deviation of the final inventory, in shares."""
    spread: float
    """Mean distance between bid and ask, where both are quoted."""
    utility: float
    """profit - gamma / 2 sd^2; more is better."""
    objective: float
    """Mean of the summed rewards."""
    objective_error: float
    """Standard error of `objective`."""
    profits: np.ndarray
    """[paths]"""
    inventories: np.ndarray
    """[paths], at the end."""


def assess(
    policy: Policy,
    env: MarketMaking,
    params: MarketMakingParams,
    *,
    paths: int = 4_000,
    seed: int = 0,
) -> MarketMakingResult:
    """Let the policy, acting deterministically, quote on `paths` paths.

    Raises:
        TradaxError: the policy was made for other observations or actions, or too few paths.
    """
    n_steps = params.table.shape[0] - 1
    path = follow(policy, env, params, _figures, n_steps=n_steps, paths=paths, seed=seed)
    profit, sd = float(path.profit.mean()), float(path.profit.std(ddof=1))
    return MarketMakingResult(
        paths=paths,
        profit=profit,
        standard_error=sd / paths**0.5,
        sd=sd,
        inventory_sd=float(path.inventory.std(ddof=1)),
        spread=float(path.spread.sum() / max(path.quotes.sum(), 1.0)),
        utility=profit - float(params.risk_aversion) / 2.0 * sd**2,
        objective=float(path.reward.mean()),
        objective_error=float(path.reward.std(ddof=1)) / paths**0.5,
        profits=path.profit,
        inventories=path.inventory,
    )


class _Figures(NamedTuple):
    """Of a path; then each [paths]."""

    profit: Any
    inventory: Any
    """At the end."""
    spread: Any
    """Sum of the spreads of the steps with both quotes."""
    quotes: Any
    """Number of those steps."""
    reward: Any
    """Sum."""


def _figures(info: dict, params: MarketMakingParams) -> _Figures:
    both = jnp.all(info["quoted"], axis=-1)
    spread = jnp.sum(info["distance"], axis=-1)
    return _Figures(
        profit=info["wealth"][-1],
        inventory=info["inventory"][-1],
        spread=jnp.sum(jnp.where(both, spread, 0.0)),
        quotes=jnp.sum(both),
        reward=jnp.sum(info["reward"]),
    )
