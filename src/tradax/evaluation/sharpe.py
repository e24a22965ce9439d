"""The Sharpe ratio, how sure it is, and what is left of it after a search.

Conventions: `returns` are simple returns [n] of equal bars; the risk-free rate is 0; a Sharpe ratio
is a bar's, mean over standard deviation with n - 1, unless it is called annual. Skewness and
kurtosis divide by n; the kurtosis is 3 for a normal distribution. None: not defined, since there
are fewer than 3 returns or they do not vary. Values that are not finite are a TradaxError.
"""

import math

import numpy as np

from tradax.errors import TradaxError
from tradax.evaluation.metrics import ROUNDING, finite_returns

_LEAST = 3


def sharpe_ratio(returns: np.ndarray) -> float | None:
    """Mean over standard deviation (n - 1), a bar."""
    returns = finite_returns(returns)
    if len(returns) < _LEAST or (deviation := returns.std(ddof=1)) <= ROUNDING:
        return None
    return float(returns.mean() / deviation)


def probabilistic_sharpe(returns: np.ndarray, threshold: float = 0.0) -> float | None:
    """Confidence that the true Sharpe ratio is above `threshold`; both a bar, not a year.

    PSR(SR*) = Phi[(SR - SR*) sqrt(n - 1) / sqrt(V)]     V: see `_variance`

    (Bailey and Lopez de Prado 2012, "The Sharpe ratio efficient frontier", eq. 9).
    """
    if (sharpe := sharpe_ratio(returns)) is None:
        return None
    n = np.size(returns)
    return _normal_cdf((sharpe - threshold) * math.sqrt((n - 1) / _variance(returns, sharpe)))


def minimum_track_record(
    returns: np.ndarray, threshold: float = 0.0, confidence: float = 0.95
) -> float | None:
    """Bars needed before the Sharpe ratio is above `threshold` with `confidence`.

    MinTRL = 1 + V (z / (SR - SR*))^2     z: the normal quantile of `confidence`

    if mean, skewness and kurtosis stay as they are (Bailey and Lopez de Prado 2012, eq. 11). None
    also where the Sharpe ratio is not above the threshold: no number of such bars is enough.
    """
    if not 0.5 < confidence < 1.0:
        raise TradaxError(f"confidence is {confidence}; it must be above 0.5 and below 1")
    sharpe = sharpe_ratio(returns)
    if sharpe is None or sharpe <= threshold:
        return None
    z = _normal_quantile(confidence)
    return 1.0 + _variance(returns, sharpe) * (z / (sharpe - threshold)) ** 2


def expected_highest_sharpe(trials: int, deviation: float) -> float:
    """The highest of so many Sharpe ratios whose true values are 0, on average.

    SR0 = deviation [(1 - g) Phi^-1(1 - 1/N) + g Phi^-1(1 - 1/(N e))]     g = 0.5772...

    for N independent normal estimates (Bailey and Lopez de Prado 2014, "The deflated Sharpe ratio",
    eq. 1). Trials that resemble each other count as much as others, so it is rather too high.

    Args:
        deviation: of the estimates over the trials, a bar.
    """
    if trials < 1 or not deviation >= 0.0:
        raise TradaxError(
            f"{trials} trials with deviation {deviation}: give at least 1, and at least 0"
        )
    if trials == 1 or deviation == 0.0:
        return 0.0
    high = _normal_quantile(1.0 - 1.0 / trials)
    higher = _normal_quantile(1.0 - 1.0 / (trials * math.e))
    return deviation * ((1.0 - np.euler_gamma) * high + np.euler_gamma * higher)


def deflated_sharpe(
    returns: np.ndarray,
    sharpes: np.ndarray,
    trials: int | None = None,
    *,
    least_deviation: float = 0.0,
) -> float | None:
    """Confidence that the true Sharpe ratio is above 0, after the best of several was chosen.

    DSR = PSR(SR0)     SR0: `expected_highest_sharpe`

    (Bailey and Lopez de Prado 2014, eq. 2), with the standard deviation (n - 1) of `sharpes`.

    Args:
        sharpes: of all trials, a bar, those of `returns` among them.
        trials: how many there were, where some have no Sharpe ratio; as many as `sharpes`.
        least_deviation: taken where that of `sharpes` is smaller. The paper has none; 1/sqrt(n) is
            the standard error of n returns whose true Sharpe ratio is 0.
    """
    sharpes = finite_returns(sharpes)
    count = len(sharpes) if trials is None else trials
    if count < max(len(sharpes), 1):
        raise TradaxError(f"{count} trials, but {len(sharpes)} Sharpe ratios: count them all")
    deviation = float(sharpes.std(ddof=1)) if len(sharpes) > 1 else 0.0
    highest = expected_highest_sharpe(count, max(deviation, least_deviation))
    return probabilistic_sharpe(returns, highest)


def annual_sharpe(
    returns: np.ndarray, periods_per_year: float, lags: int | None = None
) -> float | None:
    """The Sharpe ratio of a year, where returns depend on those before.

    Args:
        lags: autocorrelations that count. By default floor(4 (n/100)^(2/9)) of them (Newey and West
            1994): all of a sample's add up to -1/2 whatever they are, so more of them say less.

    Returns: None also where the estimated variance of a year is not positive.
    """
    returns = finite_returns(returns)
    if (sharpe := sharpe_ratio(returns)) is None:
        return None
    n = len(returns)
    lags = math.floor(4.0 * (n / 100.0) ** (2.0 / 9.0)) if lags is None else lags
    if not 0 <= lags < n:
        raise TradaxError(f"{lags} lags of {n} returns: give 0 to {n - 1}")
    centred = returns - returns.mean()
    squares = centred @ centred
    autocorrelations = [float(centred[k:] @ centred[: n - k] / squares) for k in range(1, lags + 1)]
    factor = annualisation_factor(autocorrelations, periods_per_year)
    return None if factor is None else sharpe * factor


def annualisation_factor(autocorrelations: list[float], periods_per_year: float) -> float | None:
    """What the Sharpe ratio of a bar is multiplied with for that of a year of q bars.

    eta(q) = q / sqrt(q + 2 sum_{k=1}^{q-1} (q - k) rho_k)

    (Lo 2002, "The statistics of Sharpe ratios", eq. 20); sqrt(q) without autocorrelations. A year's
    return is the sum of its bars' here, not their product. None where the root is of no positive.

    Args:
        autocorrelations: rho_1, rho_2, ...; those that are not given are 0.
    """
    q = periods_per_year
    covariances = sum((q - k) * rho for k, rho in enumerate(autocorrelations, 1) if k < q)
    variance = q + 2.0 * covariances
    return q / math.sqrt(variance) if variance > 0.0 else None


def _variance(returns: np.ndarray, sharpe: float) -> float:
    """V = 1 - g3 SR + (g4 - 1) / 4 SR^2, n - 1 times the variance of the estimated Sharpe ratio.

    With skewness g3 and kurtosis g4; since g4 >= 1 + g3^2 it is never negative.
    """
    returns = np.asarray(returns, np.float64)
    standard = (returns - returns.mean()) / returns.std()
    skewness, kurtosis = float(np.mean(standard**3)), float(np.mean(standard**4))
    return max(1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2, 1e-12)


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def _normal_quantile(probability: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(probability))
