"""How good an algorithm is over several seeds: the interquartile mean, and how sure it is."""

from typing import NamedTuple

import numpy as np

from tradax.errors import TradaxError
from tradax.evaluation.metrics import finite_returns


class InterquartileMean(NamedTuple):
    estimate: float
    low: float
    high: float


def interquartile_mean(
    scores: np.ndarray, *, level: float = 0.95, seed: int = 0, replications: int = 2000
) -> InterquartileMean:
    """Mean of the middle half of all scores, with a stratified bootstrap interval.

    A quarter of all scores, rounded down, is cut off at either end, whichever task they are of.
    Seeds are drawn anew for each task by itself, and the interval holds the middle `level` of
    what comes out (Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical
    precipice", section 4.3; rliable's `aggregate_iqm` with its StratifiedBootstrap).

    Args:
        scores: [seeds, tasks], or [seeds] of one; on a scale that tasks share.

    Raises:
        TradaxError: fewer than two seeds, or scores that are not finite.
    """
    from scipy.stats import bootstrap, trim_mean

    scores = finite_returns(scores[:, None] if np.ndim(scores) == 1 else scores, ndim=2, least=2)
    if not 0.0 < level < 1.0:
        raise TradaxError(f"level is {level}; it must be between 0 and 1")

    def middle(*tasks: np.ndarray, axis: int) -> np.ndarray:
        return trim_mean(np.concatenate(tasks, axis=axis), 0.25, axis=axis)

    drawn = bootstrap(
        tuple(scores.T),
        middle,
        n_resamples=replications,
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=seed,
    ).confidence_interval
    return InterquartileMean(float(trim_mean(scores.ravel(), 0.25)), *map(float, drawn))
