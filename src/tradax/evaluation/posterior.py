"""What a backtest's returns say about the true figures, with everything that is uncertain."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tradax.errors import TradaxError
from tradax.evaluation.joint_returns import (
    PLAIN,
    Draws,
    Moments,
    Sampled,
    least_squares,
    moments,
    sample,
)
from tradax.evaluation.metrics import ROUNDING

R_HAT_LIMIT = 1.01
QUIET = 0.05
"""Returns within this many deviations of 0 are of bars on which next to nothing was held."""
LEAST_BARS, LEAST_HELD = 60, 20
MOST_RATIO, MOST_ERROR = 1.5, 1.0
"""The model's deviation may differ from the sample's by this factor, its mean by so many standard
errors. A Student-t takes rare large losses for outliers: where it says much else than the plain
mean and deviation, it is the model that is wrong."""
MOST_TILT = 2.0
"""So many standard errors may the slope of Student-t residuals lie from least squares."""
CONE_POINTS = 13
QUANTILES = (5, 25, 50, 75, 95)


class Sampling(NamedTuple):
    """How to draw."""

    seed: int = 0
    draws: int = 1000
    """Kept from each chain."""


@dataclass(frozen=True)
class Cone:
    """What 1 may become in the next year, costs included as they were in the test."""

    year: tuple[float, ...]
    """Fractions of the year, from 0 to 1, at which the growth is given."""
    policy: dict[str, tuple[float, ...]]
    """Quantile in percent -> growth of 1."""
    benchmark_median: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Posterior:
    """None where no statement is made; `note` then says why. Intervals hold 90%."""

    sharpe_mean: float | None = None
    """Annualised."""
    sharpe_interval: tuple[float, float] | None = None
    p_positive: float | None = None
    """Probability that the Sharpe ratio is above 0."""
    excess_mean: float | None = None
    """Mean return above the benchmark's, a year."""
    excess_interval: tuple[float, float] | None = None
    p_beats_benchmark: float | None = None
    """Probability that the mean return is above the benchmark's."""
    alpha_mean: float | None = None
    """Mean return that beta does not explain, a year."""
    alpha_interval: tuple[float, float] | None = None
    beta_mean: float | None = None
    """Covariance with the benchmark over its variance, of all bars: the average exposure."""
    beta_interval: tuple[float, float] | None = None
    p_alpha_positive: float | None = None
    cone: Cone | None = None
    density: tuple[tuple[float, float], ...] = ()
    """Of the Sharpe ratio: (value, density)."""
    tails: str = ""
    """student-t or normal: how returns are distributed in the model."""
    residuals: str = ""
    """student-t or normal: how returns deviate from the benchmark's line."""
    r_hat: float | None = None
    """Largest split R-hat of all parameters."""
    divergences: int = 0
    draws: int = 0
    """Of all chains together, after warm-up."""
    converged: bool = False
    note: str = ""


def sharpe_posterior(
    returns: np.ndarray,
    periods_per_year: float,
    *,
    benchmark: np.ndarray | None = None,
    seed: int = 0,
    draws: int = 1000,
    chains: int = 2,
) -> Posterior:
    """Sample the posterior of the Sharpe ratio, and of alpha and beta against a benchmark.

    The model is that of `joint_returns.sample`. A policy that is often out of the market has many
    returns of 0. One Student-t for all bars would put its centre there and everything else into
    its tails, so quiet bars stand apart. From the moments of all bars, held and quiet,

        Sharpe = m_r / sd_r sqrt(periods_per_year)     excess = (m_r - m_b) periods_per_year
        beta = cov(r, b) / var(b)                      alpha = (m_r - beta m_b) periods_per_year

    Returns are normal instead of Student-t where the latter would misstate their mean, as where
    losses are larger than gains; so are residuals, where rare costs or a position that changes
    sides would count as outliers.

    Args:
        returns, benchmark: simple returns [n], of the same bars.
        draws: kept from each chain.
    """
    returns = np.asarray(returns, np.float64)
    if benchmark is not None:
        benchmark = np.asarray(benchmark, np.float64)
        if np.shape(benchmark) != np.shape(returns):
            raise TradaxError(
                f"{np.size(returns)} returns and {np.size(benchmark)} of the benchmark: "
                "give both for the same bars"
            )
    if refusal := _refusal(returns, benchmark):
        return Posterior(note=refusal)
    notes = []
    if benchmark is not None and (returns - benchmark).std() < ROUNDING:
        benchmark = None
        notes.append(
            "The returns equal the benchmark's, so no excess over it, alpha or beta is stated."
        )
    elif benchmark is not None and benchmark.std() < ROUNDING:
        benchmark = None
        notes.append("The benchmark does not vary, so nothing is stated against it.")
    fit = _fit(returns, benchmark, seed, draws, chains)
    sampled = fit.sampled
    diagnosis = {
        "r_hat": sampled.r_hat,
        "divergences": sampled.divergences,
        "draws": draws * chains,
        "tails": fit.returns,
    }
    if not _converged(sampled):
        return Posterior(
            **diagnosis,
            note=f"The sampler did not converge (R-hat {sampled.r_hat:.3f}, "
            f"{sampled.divergences} divergences), so no statement is made.",
        )
    of_all = moments(sampled.draws)
    figures: dict[str, Any] = {}
    wrong = _wrong(sampled.draws, returns, benchmark)
    if misfit := wrong.get("returns"):
        notes.append(f"The model does not describe these returns ({misfit}): nothing is stated.")
    else:
        figures |= _own(of_all, periods_per_year)
        figures["cone"] = _cone(sampled.draws, benchmark is not None, periods_per_year, seed)
    # All figures against the benchmark rest on the strategy's mean too.
    if benchmark is not None and "sharpe_mean" in figures:
        if misfit := wrong.get("residuals"):
            notes.append(
                "The model does not describe the differences from the benchmark "
                f"({misfit}): no excess over it, alpha or beta is stated."
            )
        else:
            figures |= _against(of_all, periods_per_year)
            figures["residuals"] = fit.residuals
    return Posterior(**figures, **diagnosis, converged=True, note=" ".join(notes))


def _refusal(returns: np.ndarray, benchmark: np.ndarray | None) -> str:
    """Why nothing can be said; empty where something can."""
    if not np.isfinite(returns).all() or not (benchmark is None or np.isfinite(benchmark).all()):
        return "Some returns are not finite numbers, so no statement is made."
    if len(returns) < 2 or returns.std() < ROUNDING:
        return "The returns do not vary: the strategy did not trade, and has no Sharpe ratio."
    if len(returns) < LEAST_BARS:
        return f"{len(returns)} bars are too few for a statement; {LEAST_BARS} are the least."
    if (held := int(_held(returns).sum())) < LEAST_HELD:
        return (
            f"Something was held on {held} bars only, too few for a statement; "
            f"{LEAST_HELD} are the least."
        )
    return ""


def _held(returns: np.ndarray) -> np.ndarray:
    return np.abs(returns) > QUIET * returns.std()


class _Fit(NamedTuple):
    """Draws, and what was taken as what: student-t or normal."""

    sampled: Sampled
    returns: str
    residuals: str


def _fit(
    returns: np.ndarray, benchmark: np.ndarray | None, seed: int, draws: int, chains: int
) -> _Fit:
    """With Student-t tails where these describe returns and residuals, else with normal ones."""
    held = _held(returns)
    tails = True
    residuals = benchmark is not None and _shaped(returns[held], benchmark[held])
    while True:
        sampled = sample(
            returns,
            benchmark,
            held,
            student_returns=tails,
            student_residuals=residuals,
            seed=seed,
            draws=draws,
            chains=chains,
        )
        converged, wrong = _converged(sampled), _wrong(sampled.draws, returns, benchmark)
        if residuals and benchmark is not None:
            straight = _straight(sampled.draws, returns[held], benchmark[held])
            residuals = converged and straight and "residuals" not in wrong
            if not residuals:
                continue
        if tails and converged and wrong:
            tails = False
        else:
            words = {True: "student-t", False: "normal"}
            return _Fit(sampled, words[tails], words[residuals])


def _wrong(draws: Draws, returns: np.ndarray, benchmark: np.ndarray | None) -> dict[str, str]:
    """Which mean or deviation differs from the sample's, and how: returns, benchmark, residuals."""
    of_all = moments(draws)
    found = {"returns": _misfit(of_all.mean, of_all.variance, returns)}
    if benchmark is not None:
        found["benchmark"] = _misfit(of_all.benchmark_mean, of_all.benchmark_variance, benchmark)
        variance = of_all.variance + of_all.benchmark_variance - 2.0 * of_all.covariance
        difference = of_all.mean - of_all.benchmark_mean
        found["residuals"] = _misfit(difference, variance, returns - benchmark)
    return {name: words for name, words in found.items() if words}


def _shaped(returns: np.ndarray, benchmark: np.ndarray) -> bool:
    """Whether the residuals may be a Student-t's: not most of them next to nothing."""
    _, residuals, _ = least_squares(returns, benchmark)
    return bool(np.median(np.abs(residuals)) > PLAIN * residuals.std())


def _straight(draws: Draws, returns: np.ndarray, benchmark: np.ndarray) -> bool:
    """Whether Student-t residuals have the slope, mean and deviation of the sample's."""
    slope, _, error = least_squares(returns, benchmark)
    level, tilt = np.median(draws.intercept), np.median(draws.slope)
    fitted = draws.residual_scale * np.sqrt(draws.residual_nu / (draws.residual_nu - 2.0))
    own = returns - level - tilt * benchmark
    return abs(tilt - slope) < MOST_TILT * error and not _misfit(np.zeros(1), fitted**2, own)


def _converged(sampled: Sampled) -> bool:
    return sampled.r_hat <= R_HAT_LIMIT and sampled.divergences == 0


def _own(of_all: Moments, periods_per_year: float) -> dict[str, Any]:
    sharpe = of_all.mean / np.sqrt(of_all.variance) * np.sqrt(periods_per_year)
    return {
        "sharpe_mean": float(sharpe.mean()),
        "sharpe_interval": _interval(sharpe),
        "p_positive": float((sharpe > 0).mean()),
        "density": _density(sharpe),
    }


def _against(of_all: Moments, periods_per_year: float) -> dict[str, Any]:
    excess = (of_all.mean - of_all.benchmark_mean) * periods_per_year
    beta = of_all.covariance / of_all.benchmark_variance
    alpha = (of_all.mean - beta * of_all.benchmark_mean) * periods_per_year
    return {
        "excess_mean": float(excess.mean()),
        "excess_interval": _interval(excess),
        "p_beats_benchmark": float((excess > 0).mean()),
        "alpha_mean": float(alpha.mean()),
        "alpha_interval": _interval(alpha),
        "p_alpha_positive": float((alpha > 0).mean()),
        "beta_mean": float(beta.mean()),
        "beta_interval": _interval(beta),
    }


def _misfit(mean: np.ndarray, variance: np.ndarray, series: np.ndarray) -> str:
    """How model and sample differ, in words; empty where they agree."""
    ratio = np.median(np.sqrt(variance)) / series.std()
    error = (np.median(mean) - series.mean()) * np.sqrt(len(series)) / series.std()
    words = []
    if not 1.0 / MOST_RATIO < ratio < MOST_RATIO:
        words.append(f"the model's deviation is {ratio:.2g} times the sample's")
    if not abs(error) < MOST_ERROR:
        side = "above" if error > 0 else "below"
        words.append(f"its mean lies {abs(error):.1f} standard errors {side} the sample's")
    return " and ".join(words)


def _interval(draws: np.ndarray) -> tuple[float, float]:
    """The middle 90%."""
    low, high = np.quantile(draws, [0.05, 0.95])
    return float(low), float(high)


def _density(draws: np.ndarray) -> tuple[tuple[float, float], ...]:
    """By Gaussian kernels, over all but the outermost draws."""
    from scipy.stats import gaussian_kde

    low, high = np.quantile(draws, [0.001, 0.999])
    margin = 0.1 * (high - low)
    at = np.linspace(low - margin, high + margin, 81)
    return tuple(zip(at.tolist(), gaussian_kde(draws)(at).tolist(), strict=True))


class _Paths(NamedTuple):
    """Log growth [d], one path a draw of the parameters."""

    policy: np.ndarray
    benchmark: np.ndarray


def _cone(draws: Draws, benchmark: bool, periods_per_year: float, seed: int) -> Cone:
    """One path of a year for each draw; fewer where a year has very many bars."""
    rng = np.random.default_rng(seed)
    bars = max(round(periods_per_year), 1)
    paths = int(np.clip(2e7 / bars, 400, len(draws.held)))
    # Draws follow each other by chain: a stride takes some of all.
    chosen = np.linspace(0, len(draws.held) - 1, min(paths, len(draws.held))).astype(int)
    arrays = {k: v[chosen] for k, v in draws._asdict().items() if isinstance(v, np.ndarray)}
    some = draws._replace(**arrays)
    at = np.unique(np.linspace(0, bars, CONE_POINTS).astype(int))
    grown = [_Paths(np.zeros(len(chosen)), np.zeros(len(chosen)))]
    for steps in np.diff(at):
        step = _walk(some, int(steps), rng)
        last = grown[-1]
        grown.append(_Paths(last.policy + step.policy, last.benchmark + step.benchmark))
    quantiles = np.exp(
        [np.quantile(g.policy, np.array(QUANTILES) / 100.0, method="lower") for g in grown]
    )
    median = np.exp([np.quantile(g.benchmark, 0.5, method="lower") for g in grown])
    return Cone(
        year=tuple((at / bars).tolist()),
        policy={str(q): tuple(quantiles[:, i].tolist()) for i, q in enumerate(QUANTILES)},
        benchmark_median=tuple(median.tolist()) if benchmark else None,
    )


def _walk(draws: Draws, bars: int, rng: np.random.Generator) -> _Paths:
    """Log growth over `bars` independent bars; who loses everything stays at 0."""
    shape = (bars, len(draws.held))
    held = rng.random(shape) < draws.held
    group = np.where(held, 0, 1)
    every = np.arange(shape[1])
    nu = draws.benchmark_nu[every, group]
    benchmark = draws.benchmark_mean[every, group]
    benchmark = benchmark + draws.benchmark_scale[every, group] * rng.standard_t(nu)
    normal = rng.standard_normal(shape)
    residual_nu = np.where(np.isinf(draws.residual_nu), 1.0, draws.residual_nu)
    spread = np.where(
        np.isinf(draws.residual_nu), 1.0, np.sqrt(residual_nu / rng.chisquare(residual_nu, shape))
    )
    residual = draws.residual_scale * normal * spread
    policy = np.where(
        held,
        draws.intercept + draws.slope * benchmark + residual,
        draws.quiet_mean + draws.quiet_deviation * normal,
    )
    with np.errstate(divide="ignore"):
        logs = [np.log1p(np.maximum(r, -1.0)).sum(axis=0) for r in (policy, benchmark)]
    return _Paths(*logs)
