"""Intervals by the stationary block bootstrap (Politis and Romano 1994).

Blocks of consecutive bars, of random length, are drawn with replacement until there are as many
bars as before, so that what depends on the bars before it mostly still does. Intervals lie between
quantiles of the resampled figures (percentile intervals).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tradax.errors import TradaxError
from tradax.evaluation.metrics import ROUNDING, finite_returns

LEAST_BARS = 60
"""Fewer have no interval, and blocks of one bar."""


class Interval(NamedTuple):
    """A figure, and where it lies."""

    estimate: float
    ends: tuple[float, float] | None
    """None where there are too few bars."""


class Performance(NamedTuple):
    """Figures of simple returns; NaN where one is not defined."""

    sharpe: float
    """Annual: times sqrt(bars a year)."""
    total_return: float
    """Compound."""
    annual_return: float
    """Compound (geometric)."""
    max_drawdown: float
    """Largest loss from a peak, as a positive fraction."""


def performance(returns: np.ndarray, periods_per_year: float) -> Performance:
    """As `metrics.compute` has them, from returns [n] alone."""
    worth = np.cumprod(1.0 + returns)
    peak = np.maximum(np.maximum.accumulate(worth), 1.0)
    final = float(worth[-1])
    try:
        annual = max(final, 0.0) ** (periods_per_year / len(returns)) - 1.0
    except OverflowError:  # of a short span
        annual = math.nan
    return Performance(
        sharpe=times_root_year(returns, periods_per_year),
        total_return=final - 1.0,
        annual_return=annual,
        max_drawdown=1.0 - float((worth / peak).min()),
    )


def times_root_year(returns: np.ndarray, periods_per_year: float) -> float:
    """The annual Sharpe ratio of `Performance`."""
    n = len(returns)
    mean = float(returns.sum()) / n
    centred = returns - mean
    deviation = math.sqrt(float(centred @ centred) / max(n - 1, 1))
    return mean / deviation * math.sqrt(periods_per_year) if deviation > ROUNDING else math.nan


def performance_intervals(
    returns: np.ndarray,
    periods_per_year: float,
    *,
    level: float = 0.9,
    seed: int = 0,
    replications: int = 2000,
    block: int | None = None,
) -> dict[str, Interval | None]:
    """Figure of `Performance` -> estimate and interval; None where it is not defined.

    The interval of the drawdown is of drawdowns over as many bars, not of one true value.

    Args:
        returns: simple returns [n].
        level: share of resampled figures between both ends.
        block: mean length in bars; `block_length` by default.
    """
    returns = finite_returns(returns, least=1)
    if not 0.0 < level < 1.0:
        raise TradaxError(f"level is {level}; it must be between 0 and 1")
    columns = returns[:, None]
    resampled = resample(
        lambda sample: np.array(performance(sample[:, 0], periods_per_year)),
        columns,
        block=block_length(columns) if block is None else block,
        seed=seed,
        replications=replications,
    )
    found = performance(returns, periods_per_year)._asdict()
    return {
        name: interval(estimate, values, level, len(returns))
        for (name, estimate), values in zip(found.items(), resampled.T, strict=True)
    }


def interval(estimate: float, values: np.ndarray, level: float, n: int) -> Interval | None:
    """The middle of resampled `values`, which are not finite where a sample has no such figure.

    None where the estimate or half of the values are not; without ends where `n` bars are too few.
    """
    finite = values[np.isfinite(values)]
    if not np.isfinite(estimate) or len(finite) <= len(values) // 2:
        return None
    if n < LEAST_BARS:
        return Interval(float(estimate), None)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(finite, [tail, 1.0 - tail])
    return Interval(float(estimate), (float(low), float(high)))


def resample(
    statistic: Callable[[np.ndarray], np.ndarray],
    columns: np.ndarray,
    *,
    block: int,
    seed: int,
    replications: int,
) -> np.ndarray:
    """`statistic` of resampled rows [replications, k].

    Whole rows are drawn, so that what happened together stays together.

    Args:
        statistic: of [n, m] rows; returns [k].
    """
    from arch.bootstrap import StationaryBootstrap

    return StationaryBootstrap(block, columns, seed=seed).apply(statistic, replications)


def block_length(columns: np.ndarray) -> int:
    """The longest of the columns' optimal mean lengths (Patton, Politis and White 2009), in bars.

    Args: columns: [n, m].
    """
    from arch.bootstrap import optimal_block_length

    varying = columns[:, columns.std(axis=0) > ROUNDING]
    if len(columns) < LEAST_BARS or varying.shape[1] == 0:
        return 1
    lengths = np.asarray(optimal_block_length(varying)["stationary"])
    return math.ceil(min(np.nanmax(lengths, initial=1.0), len(columns) / 4))
