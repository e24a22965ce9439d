"""Bars like the real ones but for any pattern in time: what is learned on them is luck.

Surrogate data (Theiler et al. 1992, "Testing for nonlinearity in time series"). A bar's moves are
its prices relative to the close before,

    gap = open_t / close_{t-1}    high / open    low / open    close / open

with its volume and signals. All symbols are treated alike, so that what they have in common stays.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tradax.data.bars import Bars
from tradax.data.splits import Splits


def shuffled(bars: Bars, splits: Splits, rng: np.random.Generator) -> Bars:
    """The bars in another order, each as one unit; the span of a bar stays.

    Every span keeps its drift, its volatility and its last close; which bar follows which is
    chance.
    """
    order = np.arange(len(bars))
    for rows in _rows(splits):
        order[rows] = rng.permutation(order[rows])
    gap, high, low, close = (moves[:, order] for moves in _moves(bars))
    built = _built(bars, gap, high, low, close)
    return _with_signals(replace(built, volume=bars.volume[:, order]), order)


def gaussian(bars: Bars, splits: Splits, rng: np.random.Generator) -> Bars:
    """A random walk in logarithms with the mean and the covariance of each span's moves.

    The logarithms of the gap and of close / open are Gaussian, together for all symbols. How far
    high and low lie beyond open and close, and the volume, are those of real bars of the span drawn
    at random with replacement; signals are permuted.
    """
    gap, high, low, close = _moves(bars)
    above, below = high / np.maximum(1.0, close), low / np.minimum(1.0, close)
    log_moves = np.log(np.concatenate([gap, close]))  # [2 S, T]
    order, drawn = np.arange(len(bars)), np.arange(len(bars))
    walked = log_moves.copy()
    for rows in _rows(splits):
        moves = log_moves[:, rows]
        walked[:, rows] = _normal(moves, rng)
        order[rows] = rng.permutation(order[rows])
        drawn[rows] = rng.choice(drawn[rows], len(moves[0]))
    gap, close = np.split(np.exp(walked), 2)
    high = above[:, drawn] * np.maximum(1.0, close)
    low = below[:, drawn] * np.minimum(1.0, close)
    if not bars.has_range:
        close = high = low = np.ones_like(close)  # rounding apart they are
    built = _built(bars, gap, high, low, close)
    return _with_signals(replace(built, volume=bars.volume[:, drawn]), order)


KINDS: dict[str, Callable[[Bars, Splits, np.random.Generator], Bars]] = {
    "shuffled": shuffled,
    "noise": gaussian,
}


def _rows(splits: Splits) -> list[slice]:
    """The bars whose moves belong together. A span's first bar is where its first return begins,
    so its own move is the end of what was before."""
    ends = (0, splits.validation.first, splits.test.first, splits.test.last)
    return [slice(a + 1, b + 1) for a, b in itertools.pairwise(ends)]


def _moves(bars: Bars) -> tuple[np.ndarray, ...]:
    """Gap, high, low and close, each [S, T]; the first gap is 1."""
    before = np.concatenate([bars.open[:, :1], bars.close[:, :-1]], axis=1)
    return (bars.open / before, *(x / bars.open for x in (bars.high, bars.low, bars.close)))


def _built(
    bars: Bars, gap: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray
) -> Bars:
    """Prices from moves, from the first open on."""
    ends = bars.open[:, :1] * np.cumprod(gap * close, axis=1)
    open = ends / close
    return replace(bars, open=open, high=open * high, low=open * low, close=ends)


def _with_signals(bars: Bars, order: np.ndarray) -> Bars:
    return replace(bars, signals={name: x[:, order] for name, x in bars.signals.items()})


def _normal(moves: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many Gaussian columns as `moves` [K, n] has, of the same mean and covariance."""
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(moves)))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return moves.mean(axis=1, keepdims=True) + root @ rng.standard_normal(moves.shape)
