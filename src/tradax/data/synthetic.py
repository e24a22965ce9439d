"""Prices of which the truth is known."""

import math

import numpy as np

from tradax.data.bars import Bars


def geometric_brownian_motion(
    n_bars: int = 2_520,
    *,
    drift: float = 0.0,
    volatility: float = 0.2,
    periods_per_year: int = 252,
    seed: int = 0,
) -> Bars:
    """Daily bars of dS = drift S dt + volatility S dW, from a price of 100.

    Opens are drawn at a quarter of the bar's way in variance; highs and lows are the extremes of
    six points of a bridge through open and close, so that low <= open, close <= high.

    Args:
        drift, volatility: a year.
    """
    rng = np.random.default_rng(seed)
    points = 8
    dt = 1.0 / periods_per_year / points
    steps = (drift - volatility**2 / 2) * dt + volatility * math.sqrt(dt) * rng.standard_normal(
        (n_bars, points)
    )
    path = 100.0 * np.exp(np.cumsum(steps.ravel())).reshape(n_bars, points)
    within = path[:, 1:]  # what happens before the first point is overnight
    volume = np.round(1e6 * np.exp(0.3 * rng.standard_normal(n_bars)))
    days = np.busday_offset(np.datetime64("2000-01-03"), np.arange(n_bars)).astype("datetime64[us]")
    series = (within[:, 0], within.max(1), within.min(1), within[:, -1], volume)
    return Bars(
        ("GBM",),
        days,
        *(x[None] for x in series),
        signals={},
        has_range=True,
        has_volume=True,
        source="synthetic:gbm",
    )
