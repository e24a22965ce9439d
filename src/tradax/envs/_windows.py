"""Windows of real bars in which a sale takes place, one bar a step."""

from typing import NamedTuple

import numpy as np

from tradax.data.pipeline import Market
from tradax.data.splits import Span
from tradax.envs._span import shared_rows
from tradax.errors import DataError


class Windows(NamedTuple):
    """The bars of all symbols, one after the other, and where in them windows lie."""

    table: np.ndarray
    """[T, F]"""
    bars: np.ndarray
    """[T, 3]: close, next open, and volume relative to the training rows' mean."""
    span: Span
    """Rows of each symbol."""
    n_symbols: int
    rows_per_symbol: int
    volatility: float
    """Standard deviation of a bar's return."""


def windows(
    markets: tuple[Market, ...], train: Span | None, n_steps: int, *, needs_volume: bool
) -> Windows:
    """Windows of `n_steps` bars of `markets`, of which `train` are the training rows; None: all.

    Raises:
        DataError: bars that are too few, of different number, or without volumes that are needed.
    """
    rows = shared_rows(markets)
    span = Span(max(m.first_row for m in markets), rows - 1) if train is None else train
    if needs_volume and not all(m.has_volume for m in markets):
        raise DataError('execution.volume_profile "bars" needs volumes, and the data has none')
    if span.rows <= n_steps:
        raise DataError(
            f"{span.rows} training bars hold no window of {n_steps} steps; give more bars or "
            "a smaller execution.steps"
        )
    return Windows(
        table=np.concatenate([m.table for m in markets]),
        bars=np.concatenate([_bars(m, span) for m in markets]),
        span=span,
        n_symbols=len(markets),
        rows_per_symbol=rows,
        volatility=_volatility(markets, span),
    )


def _bars(market: Market, span: Span) -> np.ndarray:
    """[T, 3]: close, next open, and volume relative to the training rows' mean."""
    rows = slice(span.first, span.last + 1)
    # At a volume of 0 nothing is known about depth: as if a hundredth of the usual were traded.
    relative = np.maximum(market.volume / max(float(market.volume[rows].mean()), 1e-9), 0.01)
    next_open = np.append(market.open[1:], market.close[-1:])
    return np.stack([market.close, next_open, relative], axis=1)


def _volatility(markets: tuple[Market, ...], span: Span) -> float:
    rows = slice(span.first, span.last + 1)
    returns = np.concatenate([np.diff(m.close[rows]) / m.close[rows][:-1] for m in markets])
    return float(returns.std())
