"""What a backtest's returns say about the true Sharpe ratio, with everything that is uncertain."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tradax.errors import TradaxError
from tradax.evaluation.metrics import ROUNDING

WARMUP = 500
R_HAT_LIMIT = 1.01


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
    """Sample the posterior of the Sharpe ratio, returns being independent and Student-t.

        r_i ~ StudentT(nu, mu, sigma)
        mu ~ Normal(0, 0.01)   sigma ~ HalfCauchy(1)   nu - 2 ~ Exponential(mean 10)
        Sharpe = mu / (sigma sqrt(nu / (nu - 2))) sqrt(periods_per_year)

    The excess over a benchmark is the same model of the differences, sampled beside it.

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
    same = len(series) > 1 and series[1].std() < ROUNDING
    if same:
        series.pop()
    sampled = _sample(np.stack(series, axis=1), seed, draws, chains)
    diagnosis = {
        "r_hat": sampled["r_hat"],
        "divergences": sampled["divergences"],
        "draws": draws * chains,
    }
    if not sampled["r_hat"] <= R_HAT_LIMIT or sampled["divergences"] > 0:
        return Posterior(
            **diagnosis,
            note=f"The sampler did not converge (R-hat {sampled['r_hat']:.3f}, "
            f"{sampled['divergences']} divergences), so no statement is made.",
        )
    mean, deviation = sampled["mean"], sampled["deviation"]
    sharpe = mean[:, 0] / deviation[:, 0] * np.sqrt(periods_per_year)
    excess: dict[str, Any] = {}
    if len(series) > 1:
        yearly = mean[:, 1] * periods_per_year
        excess = {
            "excess_mean": float(yearly.mean()),
            "excess_interval": _interval(yearly),
            "p_beats_benchmark": float((yearly > 0).mean()),
        }
    return Posterior(
        sharpe_mean=float(sharpe.mean()),
        sharpe_interval=_interval(sharpe),
        p_positive=float((sharpe > 0).mean()),
        **excess,
        **diagnosis,
        converged=True,
        note="The returns equal the benchmark's, so no excess is stated." if same else "",
    )


def _sample(series: np.ndarray, seed: int, draws: int, chains: int) -> dict[str, Any]:
    """Args: series: [n, k], modelled one by one, in one program.

    Returns: mean and deviation [draws, k] in the units of the series, and how well it went.
    """
    import jax
    from numpyro.diagnostics import split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    scale = series.std(axis=0)
    sampler = MCMC(
        NUTS(_model),
        num_warmup=WARMUP,
        num_samples=draws,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    sampler.run(
        jax.random.key(seed),
        (series / scale).astype(np.float32),
        scale.astype(np.float32),
        extra_fields=("diverging",),
    )
    samples = {
        name: np.asarray(values, np.float64)
        for name, values in sampler.get_samples(group_by_chain=True).items()
    }
    r_hat = max(float(np.max(split_gelman_rubin(values))) for values in samples.values())
    flat = {name: values.reshape(draws * chains, -1) for name, values in samples.items()}
    widening = np.sqrt((flat["excess_nu"] + 2.0) / flat["excess_nu"])
    return {
        "mean": flat["mu"] * scale,
        "deviation": flat["sigma"] * widening * scale,
        "r_hat": r_hat,
        "divergences": int(np.sum(np.asarray(sampler.get_extra_fields()["diverging"]))),
    }


def _model(standardised, scale):
    """Returns divided by their deviation mix well; priors are divided by it too, so they stay.

    Args: standardised: [n, k]; scale: [k].
    """
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions as dist

    mu = numpyro.sample("mu", dist.Normal(0.0, 0.01 / scale).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(1.0 / scale).to_event(1))
    rate = jnp.full(scale.shape, 0.1)
    excess_nu = numpyro.sample("excess_nu", dist.Exponential(rate).to_event(1))
    numpyro.sample("returns", dist.StudentT(excess_nu + 2.0, mu, sigma), obs=standardised)


def _interval(draws: np.ndarray) -> tuple[float, float]:
    """The middle 90%."""
    low, high = np.quantile(draws, [0.05, 0.95])
    return float(low), float(high)
