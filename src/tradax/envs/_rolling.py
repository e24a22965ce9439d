"""Moments of the returns of the bars before one, and turbulence, which holds a bar against them."""

from collections.abc import Iterator

import numpy as np

_BLOCK = 2_048  # bars that are in memory together with all those before them


def turbulence(close: np.ndarray, window: int, shrinkage: float) -> np.ndarray:
    """Mahalanobis distance of each bar's returns to those of the bars before it, over n.

    Args:
        close: [T, n].
        window: bars before, W; the bar itself is not among them.
        shrinkage: z in S = (1 - z) covariance + z (trace covariance / n) I.

    Returns: [T]; 1 in the first W + 1 rows.
    """
    rows, n = close.shape
    returns = close[1:] / close[:-1] - 1.0  # row t - 1: of bar t
    found = np.ones(rows)
    for bars in blocks(window + 1, rows):
        mean, covariance = moments_before(returns, bars - 1, window)
        scale = np.maximum(np.trace(covariance, axis1=1, axis2=2) / n, 1e-12)
        shrunk = (1.0 - shrinkage) * covariance
        shrunk += shrinkage * scale[:, None, None] * np.eye(n)
        deviation = (returns[bars - 1] - mean)[..., None]
        distance = np.sum(deviation * np.linalg.solve(shrunk, deviation), axis=(1, 2))
        found[bars] = np.clip(distance / n, 0.0, 1e6)  # prices that had never moved
    return found


def blocks(first: int, end: int) -> Iterator[np.ndarray]:
    """The rows from `first` to `end` - 1, some at a time."""
    for begin in range(first, end, _BLOCK):
        yield np.arange(begin, min(begin + _BLOCK, end))


def moments_before(
    returns: np.ndarray, rows: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean [B, n] and covariance [B, n, n] of the `window` rows before each of `rows` [B].

    Args:
        returns: [T, n].
    """
    before = returns[rows[:, None] - np.arange(window, 0, -1)]  # [B, W, n]
    mean = before.mean(axis=1)
    centred = before - mean[:, None]
    return mean, np.matmul(centred.transpose(0, 2, 1), centred) / (window - 1)
