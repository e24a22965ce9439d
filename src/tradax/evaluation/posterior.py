"""What a backtest's returns say about the true Sharpe ratio, with everything that is uncertain."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tradax.errors import TradaxError
from tradax.evaluation.metrics import ROUNDING

WARMUP = 300
R_HAT_LIMIT = 1.01
QUIET = 0.05
"""Returns within this many deviations of 0 are of bars on which next to nothing was held."""
MOST_RATIO, MOST_ERROR = 1.5, 1.0
"""The model's deviation may differ from the sample's by this factor, its mean by so many standard
errors. A Student-t takes rare large losses for outliers: where it says much else than the plain
mean and deviation, it is the model that is wrong."""


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
    """Sample the posterior of the Sharpe ratio of independent returns with Student-t tails.

        r_i ~ StudentT(nu, mu, sigma) on the share p of bars that moved
        mu ~ Normal(0, 0.01)   sigma ~ HalfCauchy(1)   nu - 2 ~ Exponential(mean 10)
        sd = sigma sqrt(nu / (nu - 2))   p ~ Beta(1, 1)
        m = p mu + (1 - p) m0            Sharpe = m / v sqrt(periods_per_year)
        v^2 = p (sd^2 + mu^2) + (1 - p) (v0^2 + m0^2) - m^2

    A policy that is often out of the market has many returns of 0. One Student-t for all bars
    would put its centre there and everything else into its tails, so quiet bars stand apart,
    with the mean m0 and the deviation v0 that they had. Where all bars moved this is the plain
    Student-t model. The excess over a benchmark is the same model of the differences.

    Args:
        returns, benchmark: simple returns [n], of the same bars.
        draws: kept from each chain.
    """
    series = [np.asarray(returns, np.float64)]
    if benchmark is not None:
        if np.shape(benchmark) != np.shape(returns):
            raise TradaxError(
                f"{np.size(returns)} returns and {np.size(benchmark)} of the benchmark: "
                "give both for the same bars"
            )
        series.append(series[0] - np.asarray(benchmark, np.float64))
    if not all(np.isfinite(values).all() for values in series):
        return Posterior(note="Some returns are not finite numbers, so no statement is made.")
    if len(series[0]) < 2 or series[0].std() < ROUNDING:
        return Posterior(
            note="The returns do not vary: the strategy did not trade, and has no Sharpe ratio."
        )
    notes = []
    if benchmark is not None and series[1].std() < ROUNDING:
        series.pop()
        notes.append("The returns equal the benchmark's, so no excess over it is stated.")
    sampled = _sample(np.stack(series, axis=1), seed, draws, chains)
    diagnosis = {
        "r_hat": sampled.r_hat,
        "divergences": sampled.divergences,
        "draws": draws * chains,
    }
    if not sampled.r_hat <= R_HAT_LIMIT or sampled.divergences > 0:
        return Posterior(
            **diagnosis,
            note=f"The sampler did not converge (R-hat {sampled.r_hat:.3f}, "
            f"{sampled.divergences} divergences), so no statement is made.",
        )
    figures: dict[str, Any] = {}
    if misfit := _misfit(sampled.mean[:, 0], sampled.deviation[:, 0], series[0]):
        notes.append(
            f"Student-t returns do not describe these ({misfit}): no Sharpe ratio is stated."
        )
    else:
        sharpe = sampled.mean[:, 0] / sampled.deviation[:, 0] * np.sqrt(periods_per_year)
        figures["sharpe_mean"] = float(sharpe.mean())
        figures["sharpe_interval"] = _interval(sharpe)
        figures["p_positive"] = float((sharpe > 0).mean())
    if len(series) > 1:
        if misfit := _misfit(sampled.mean[:, 1], sampled.deviation[:, 1], series[1]):
            notes.append(
                "Student-t returns do not describe the differences from the benchmark "
                f"({misfit}): no excess over it is stated."
            )
        else:
            excess = sampled.mean[:, 1] * periods_per_year
            figures["excess_mean"] = float(excess.mean())
            figures["excess_interval"] = _interval(excess)
            figures["p_beats_benchmark"] = float((excess > 0).mean())
    return Posterior(**figures, **diagnosis, converged=True, note=" ".join(notes))


class _Sampled(NamedTuple):
    """Draws of the mean and deviation of all bars [draws, k], and how well sampling went."""

    mean: np.ndarray
    deviation: np.ndarray
    r_hat: float
    divergences: int


def _sample(series: np.ndarray, seed: int, draws: int, chains: int) -> _Sampled:
    """Args: series: [n, k], modelled one by one, in one program."""
    import jax
    from numpyro.diagnostics import split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    moved = np.abs(series) > QUIET * series.std(axis=0)  # [n, k]
    scale = np.sqrt((series**2 * moved).sum(axis=0) / moved.sum(axis=0))  # [k]
    sampler = MCMC(
        NUTS(_model, target_accept_prob=0.9),
        num_warmup=WARMUP,
        num_samples=draws,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    sampler.run(
        jax.random.key(seed),
        (series / scale).astype(np.float32),
        moved,
        scale.astype(np.float32),
        extra_fields=("diverging",),
    )
    samples = {
        name: np.asarray(values, np.float64)
        for name, values in sampler.get_samples(group_by_chain=True).items()
    }
    # On the scale on which they were sampled: scale and degrees of freedom have long tails.
    sampled = [samples["mu"], np.log(samples["sigma"]), np.log(samples["excess_nu"])]
    r_hat = max(float(np.max(split_gelman_rubin(values))) for values in sampled)
    flat = {name: values.reshape(draws * chains, -1) for name, values in samples.items()}

    mu = flat["mu"] * scale
    variance = (flat["sigma"] * scale) ** 2 * (flat["excess_nu"] + 2.0) / flat["excess_nu"]
    n_moved, n_quiet = moved.sum(axis=0), (~moved).sum(axis=0)
    share = np.random.default_rng(seed).beta(1.0 + n_moved, 1.0 + n_quiet, mu.shape)
    share = np.where(n_quiet > 0, share, 1.0)
    quiet_mean = (series * ~moved).sum(axis=0) / np.maximum(n_quiet, 1)
    quiet_square = (series**2 * ~moved).sum(axis=0) / np.maximum(n_quiet, 1)
    mean = share * mu + (1.0 - share) * quiet_mean
    square = share * (variance + mu**2) + (1.0 - share) * quiet_square
    return _Sampled(
        mean=mean,
        deviation=np.sqrt(square - mean**2),
        r_hat=r_hat,
        divergences=int(np.sum(np.asarray(sampler.get_extra_fields()["diverging"]))),
    )


def _model(standardised, moved, scale):
    """Returns divided by their deviation mix well; priors are divided by it too, so they stay.

    Args: standardised, moved: [n, k]; scale: [k].
    """
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions as dist

    mu = numpyro.sample("mu", dist.Normal(0.0, 0.01 / scale).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(1.0 / scale).to_event(1))
    rate = jnp.full(scale.shape, 0.1)
    excess_nu = numpyro.sample("excess_nu", dist.Exponential(rate).to_event(1))
    likelihood = dist.StudentT(excess_nu + 2.0, mu, sigma).mask(moved)
    numpyro.sample("returns", likelihood, obs=standardised)


def _misfit(mean: np.ndarray, deviation: np.ndarray, series: np.ndarray) -> str:
    """How model and sample differ, in words; empty where they agree."""
    ratio = np.median(deviation) / series.std()
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
