"""Whether the best of several strategies beats a benchmark by more than the search explains."""

import math
from typing import NamedTuple

import numpy as np

from tradax.errors import TradaxError
from tradax.evaluation.bootstrap import block_length, resample
from tradax.evaluation.metrics import ROUNDING, finite_returns


class Superiority(NamedTuple):
    """p-values of "no strategy has a higher mean return than the benchmark"."""

    consistent: float
    """The one to quote: strategies that are far worse than the benchmark do not count."""
    lower: float
    """No strategy that is worse counts: too small with few bars."""
    upper: float
    """All count, as in White's reality check: too large where there are poor strategies."""
    statistic: float
    """The highest studentised mean difference, at least 0."""
    best: int
    """The column that has it."""


def superior_ability(
    returns: np.ndarray,
    benchmark: np.ndarray,
    *,
    block: int | None = None,
    seed: int = 0,
    replications: int = 1000,
) -> Superiority | None:
    """Test for superior predictive ability (Hansen 2005), studentised.

    T  = max(0, max_k sqrt(n) d_k / w_k)        d_k: mean of returns_k - benchmark
    T* = max(0, max_k sqrt(n) (d*_k - g(d_k)) / w_k)      d*: of a stationary bootstrap
    p  = share of T* > T;  g(d) = d 1{sqrt(n) d / w >= -sqrt(2 ln ln n)} (consistent),
         max(d, 0) (lower), d (upper)

    w_k^2 estimates the variance of sqrt(n) d_k with the bootstrap's own kernel (eq. 9 there). To
    show that one policy beats each of several baselines, test it against each, and take the largest
    p-value: the best of the baselines is a benchmark that was chosen.

    arch's SPA takes `studentize`, and (8.0) divides by nothing.

    Args:
        returns: [n, k], simple returns of k strategies, all that were tried; [n] for one.
        benchmark: [n], of the same bars.
        block: mean length in bars; `bootstrap.block_length` of the differences by default.

    Returns: None where no strategy's returns differ from the benchmark's by varying amounts.

    Raises:
        TradaxError: not the same bars, fewer than 10, or values that are not finite.
    """
    benchmark = finite_returns(benchmark, least=10)
    returns = finite_returns(returns[:, None] if np.ndim(returns) == 1 else returns, ndim=2)
    if len(returns) != len(benchmark):
        raise TradaxError(
            f"{len(returns)} returns and {len(benchmark)} of the benchmark: give both for the "
            "same bars"
        )
    difference = returns - benchmark[:, None]
    varies = difference.std(axis=0) > ROUNDING
    if not varies.any():
        return None
    columns = np.flatnonzero(varies)
    difference = difference[:, varies]
    n = len(difference)
    block = block_length(difference) if block is None else block
    scaled = difference / _long_run_deviation(difference, block)
    mean = scaled.mean(axis=0)
    centres = np.stack(
        [
            np.where(math.sqrt(n) * mean >= -math.sqrt(2.0 * math.log(math.log(n))), mean, 0.0),
            np.maximum(mean, 0.0),
            mean,
        ]
    )  # [3, k]
    resampled = resample(
        lambda sample: (sample.mean(axis=0) - centres).max(axis=1),
        scaled,
        block=block,
        seed=seed,
        replications=replications,
    )  # [replications, 3]
    highest = max(0.0, float(mean.max()))
    p = (np.maximum(resampled, 0.0) > highest).mean(axis=0)
    return Superiority(
        consistent=float(p[0]),
        lower=float(p[1]),
        upper=float(p[2]),
        statistic=math.sqrt(n) * highest,
        best=int(columns[mean.argmax()]),
    )


def _long_run_deviation(difference: np.ndarray, block: int) -> np.ndarray:
    """sqrt of w^2 = gamma_0 + 2 sum_i kappa_i gamma_i [k], gamma_i the autocovariances.

    kappa_i = (n - i)/n (1 - q)^i + i/n (1 - q)^(n - i)     q = 1 / block
    """
    from scipy.signal import correlate

    n = len(difference)
    centred = difference - difference.mean(axis=0)
    lag = np.arange(n)
    stay = 1.0 - 1.0 / block
    kernel = (n - lag) / n * stay**lag + lag / n * stay ** (n - lag)
    kernel[0] = 0.5
    covariance = np.stack(
        [correlate(column, column, method="fft")[n - 1 :] / n for column in centred.T], axis=1
    )
    variance = 2.0 * (kernel @ covariance)
    return np.sqrt(np.maximum(variance, ROUNDING**2))
