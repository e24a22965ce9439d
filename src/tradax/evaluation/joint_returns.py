"""The joint model of a strategy's returns and its benchmark's, and its sampler."""

from typing import Any, NamedTuple

import numpy as np

WARMUP = 300
PLAIN = 0.3
"""Residuals whose median size is below this share of their deviation have no Student-t shape: it
is 0.67 of a normal distribution's, and 0.35 of a Student-t's with 2.5 degrees of freedom."""
LEAST_RESIDUAL = 1e-3
"""Of the strategy's deviation: what moves with the benchmark exactly has residuals of 0."""


_NORMAL = 1e9
"""Degrees of freedom."""


class Draws(NamedTuple):
    """Of the posterior, [d] each; those of the benchmark [d, 2], on held bars and on quiet ones."""

    benchmark_mean: np.ndarray
    benchmark_scale: np.ndarray
    benchmark_nu: np.ndarray
    intercept: np.ndarray
    slope: np.ndarray
    residual_scale: np.ndarray
    residual_nu: np.ndarray
    """Infinite where the residuals are taken as normal."""
    held: np.ndarray
    """Share of the bars on which something was held."""
    quiet_mean: float
    quiet_deviation: float
    """Of the strategy, on the other bars."""


class Sampled(NamedTuple):
    """Draws, and how well sampling went."""

    draws: Draws
    r_hat: float
    divergences: int


class Moments(NamedTuple):
    """Of all bars together, [d] each."""

    mean: np.ndarray
    variance: np.ndarray
    benchmark_mean: np.ndarray
    benchmark_variance: np.ndarray
    covariance: np.ndarray


def sample(
    returns: np.ndarray,
    benchmark: np.ndarray | None,
    held: np.ndarray,
    *,
    student_returns: bool = True,
    student_residuals: bool,
    seed: int,
    draws: int,
    chains: int,
) -> Sampled:
    """Sample the posterior of

        b_i ~ StudentT(nu_g, mu_g, sigma_g), or Normal   g: whether bar i is held or quiet
        r_i = alpha + beta b_i + e_i                   on held bars
        e_i ~ StudentT(nu_e, 0, sigma_e), or Normal(0, sigma_e)
        held ~ Beta(1 + held bars, 1 + quiet bars)     1 where no bar is quiet
        mu_g, alpha ~ Normal(0, 0.01)    beta ~ Normal(0, 10)    nu - 2 ~ Exponential(mean 10)
        log sigma_g, log sigma_e ~ Normal(log of the sample's deviation, 1)

    A policy that goes out of the market in time has another benchmark on the bars that it holds
    than on the others: that is its skill, and one distribution for both would hide it.

    Args:
        returns, benchmark: [n]; without a benchmark the returns stand for both.
        held: [n]; at least two.
    """
    import jax
    from numpyro.diagnostics import split_gelman_rubin

    x = returns if benchmark is None else benchmark
    data, units = _standardised(returns, x, held)
    chained, diverging = _run(
        jax.random.split(jax.random.key(seed), chains),
        data,
        {name: np.asarray(value, np.float32) for name, value in units.items()},
        np.array([student_returns, student_residuals]),
        regression=benchmark is not None,
        draws=draws,
    )
    samples = {name: np.asarray(values, np.float64) for name, values in chained.items()}
    # What only its prior moves is not looked at: no mean of quiet bars without any.
    groups = 2 if (~held).any() else 1
    looked_at = [v[..., :groups] if v.ndim == 3 else v for k, v in samples.items() if k != "log_nu"]
    if student_returns:
        looked_at += [samples["log_nu"][..., :groups]]
    if not student_residuals:
        looked_at = [v for v in looked_at if v is not samples.get("log_nu_e")]
    r_hat = max(float(np.max(split_gelman_rubin(v))) for v in looked_at)
    flat = {name: v.reshape(draws * chains, *v.shape[2:]) for name, v in samples.items()}

    quiet = returns[~held]
    n_held, n_quiet = int(held.sum()), len(quiet)
    share = np.random.default_rng(seed).beta(1.0 + n_held, 1.0 + n_quiet, draws * chains)
    line = {"slope": np.ones(draws * chains), "intercept": np.zeros(draws * chains)}
    line |= {"residual_scale": line["intercept"], "residual_nu": np.full(draws * chains, np.inf)}
    if benchmark is not None:
        step = flat["line"] / np.sqrt(n_held)
        slope = units["slope"] + step[:, 1] * units["residual"] / units["scale"][0]
        if not student_residuals:
            slope = slope.mean() + (slope - slope.mean()) * units["widening"]
        line["slope"] = slope
        line["intercept"] = (
            units["level"] + step[:, 0] * units["residual"] - slope * units["centre"][0]
        )
        line["residual_scale"] = units["residual"] * _residual_scale(flat["log_sigma_e"], np)
        if student_residuals:
            line["residual_nu"] = 2.0 + np.exp(flat["log_nu_e"])
    return Sampled(
        Draws(
            benchmark_mean=units["centre"] + units["error"] * flat["mu"],
            benchmark_scale=units["scale"] * np.exp(flat["log_sigma"]),
            benchmark_nu=2.0 + np.exp(flat["log_nu"])
            if student_returns
            else _NORMAL + 0.0 * flat["mu"],
            **line,
            held=share if n_quiet else np.ones_like(share),
            quiet_mean=float(quiet.mean()) if n_quiet else 0.0,
            quiet_deviation=float(quiet.std()) if n_quiet else 0.0,
        ),
        r_hat,
        int(np.sum(np.asarray(diverging))),
    )


def moments(draws: Draws) -> Moments:
    """Means and variances of a bar, whether held or quiet."""
    p, q = draws.held, 1.0 - draws.held
    mean, nu = draws.benchmark_mean, draws.benchmark_nu
    variance = draws.benchmark_scale**2 * nu / (nu - 2.0)
    b_mean = p * mean[:, 0] + q * mean[:, 1]
    b_square = p * (variance[:, 0] + mean[:, 0] ** 2) + q * (variance[:, 1] + mean[:, 1] ** 2)
    with np.errstate(invalid="ignore"):
        tails = np.where(
            np.isinf(draws.residual_nu), 1.0, draws.residual_nu / (draws.residual_nu - 2.0)
        )
    held_mean = draws.intercept + draws.slope * mean[:, 0]
    held_square = draws.slope**2 * variance[:, 0] + draws.residual_scale**2 * tails + held_mean**2
    s_mean = p * held_mean + q * draws.quiet_mean
    s_square = p * held_square + q * (draws.quiet_deviation**2 + draws.quiet_mean**2)
    product = p * (draws.slope * variance[:, 0] + held_mean * mean[:, 0])
    product += q * draws.quiet_mean * mean[:, 1]
    return Moments(
        mean=s_mean,
        variance=s_square - s_mean**2,
        benchmark_mean=b_mean,
        benchmark_variance=b_square - b_mean**2,
        covariance=product - s_mean * b_mean,
    )


def least_squares(returns: np.ndarray, x: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Slope, residuals, and the slope's standard error without equal variances (White 1980)."""
    centred = x - x.mean()
    square = np.sum(centred**2)
    slope = float(np.sum(centred * returns) / square) if square > 0.0 else 0.0
    residuals = returns - returns.mean() - slope * centred
    error = np.sqrt(np.sum((centred * residuals) ** 2)) / square if square > 0.0 else 0.0
    return slope, residuals, float(error)


def _standardised(
    returns: np.ndarray, x: np.ndarray, held: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Numbers near 1, about least squares: every step of the sampler is then about as long.

    Returns: the data [n], and the units in which they and the parameters are.
    """
    groups = [x[held], x[~held]]
    scale = np.array([g.std() if len(g) > 1 and g.std() > 0.0 else x.std() for g in groups])
    centre = np.array([g.mean() if len(g) else 0.0 for g in groups])
    slope, residuals, error = least_squares(returns[held], x[held])
    residual = max(residuals.std(), LEAST_RESIDUAL * returns[held].std())
    in_group = np.where(held, 0, 1)
    standardised = np.zeros_like(x)
    standardised[held] = residuals / residual
    # The normal model knows one variance; where the position changes, the residuals grow with the
    # benchmark, and its interval of the slope would be too narrow (Mueller 2013).
    plain_error = residual / (scale[0] * np.sqrt(held.sum()))
    return {
        "x": ((x - centre[in_group]) / scale[in_group]).astype(np.float32),
        "residuals": standardised.astype(np.float32),
        "held": held,
    }, {
        "centre": centre,
        "scale": scale,
        "error": scale / np.sqrt([max(len(g), 1) for g in groups]),
        "all": x.std(),
        "level": returns[held].mean(),
        "slope": slope,
        "residual": residual,
        "widening": max(error / plain_error, 1.0),
    }


def _run(keys, data, units, student, *, regression: bool, draws: int):
    """All chains as one program, which series of the same length share.

    Returns: parameter -> draws [chains, draws, ...], and which of these diverged [chains, draws].
    """
    import jax

    return jax.jit(_chains, static_argnames=("regression", "draws"))(
        keys, data, units, student, regression=regression, draws=draws
    )


def _chains(keys, data, units, student, *, regression: bool, draws: int):
    # numpyro's MCMC traces its kernel thrice and again for each series: that takes far longer
    # than to sample.
    import jax
    import jax.numpy as jnp
    from numpyro.infer.hmc import hmc
    from numpyro.infer.util import log_density

    def potential(*given):
        return lambda values: -log_density(_model, (*given, regression), {}, values)[0]

    start: dict[str, Any] = {
        "mu": jnp.zeros(2),
        "log_sigma": jnp.zeros(2),
        "log_nu": jnp.ones(2),
    }
    if regression:
        start |= {"line": jnp.zeros(2), "log_sigma_e": jnp.zeros(()), "log_nu_e": jnp.ones(())}
    init, step = hmc(potential_fn_gen=potential, algo="NUTS")
    given = (data, units, student)

    def chain(key):
        def advance(state, _):
            state = step(state, model_args=given)
            return state, (state.z, state.diverging)

        first = init(
            start,
            WARMUP,
            step_size=0.5,
            target_accept_prob=0.85,
            dense_mass=True,
            model_args=given,
            rng_key=key,
        )
        _, kept = jax.lax.scan(advance, first, None, length=WARMUP + draws)
        return jax.tree.map(lambda values: values[WARMUP:], kept)

    return jax.vmap(chain)(keys)


def _model(data, units, student, regression: bool) -> None:
    """As `sample` says, in units of `_standardised`; `student`: returns and residuals [2]."""
    import jax.numpy as jnp
    import numpyro
    from numpyro import distributions as dist

    held = data["held"]
    normal, error, scale = dist.Normal, units["error"], units["scale"]
    mu: Any = numpyro.sample("mu", normal(-units["centre"] / error, 0.01 / error).to_event(1))
    spread = normal(jnp.log(units["all"] / scale), 1.0)
    log_sigma: Any = numpyro.sample("log_sigma", spread.to_event(1))
    log_nu: Any = numpyro.sample("log_nu", _log_excess_nu((2,)))
    mean = mu * error / scale

    def by_group(values):
        return jnp.where(held, values[0], values[1])

    nu = 2.0 + jnp.exp(log_nu)
    z = (data["x"] - by_group(mean)) * by_group(jnp.exp(-log_sigma))
    n = jnp.stack([held.sum(), (~held).sum()])
    tails = jnp.sum(by_group((nu + 1.0) / 2.0) * jnp.log1p(z**2 * by_group(1.0 / nu)))
    student_t = jnp.sum(n * _student_constant(nu)) - tails
    likelihood = jnp.where(student[0], student_t, -0.5 * jnp.sum(z**2))
    numpyro.factor("benchmark", likelihood - jnp.sum(n * log_sigma))
    if not regression:
        return
    root = jnp.sqrt(n[0])
    level = units["residual"] / root
    tilt = level / scale[0]
    # On a flat line through the benchmark's mean, so that level and slope are independent.
    alpha = (units["level"] - units["slope"] * units["centre"][0]) / level
    prior = normal(
        jnp.stack([-alpha, -units["slope"] / tilt]), jnp.stack([0.01 / level, 10.0 / tilt])
    )
    line: Any = numpyro.sample("line", prior.to_event(1))
    log_sigma_e: Any = numpyro.sample("log_sigma_e", normal(0.0, 1.0))
    log_nu_e: Any = numpyro.sample("log_nu_e", _log_excess_nu(()))
    nu_e = 2.0 + jnp.exp(log_nu_e)
    sigma_e = _residual_scale(log_sigma_e, jnp)
    e = (data["residuals"] - (line[0] + line[1] * data["x"]) / root) / sigma_e
    student_t = n[0] * _student_constant(nu_e) - (nu_e + 1.0) / 2.0 * jnp.sum(
        jnp.where(held, jnp.log1p(e**2 / nu_e), 0.0)
    )
    gauss = -0.5 * jnp.sum(jnp.where(held, e**2, 0.0))
    likelihood = jnp.where(student[1], student_t, gauss)
    numpyro.factor("strategy", likelihood - n[0] * jnp.log(sigma_e))


def _log_excess_nu(shape: tuple[int, ...]):
    """log(nu - 2) where nu - 2 ~ Exponential(mean 10)."""
    from numpyro import distributions as dist

    exponential = dist.Exponential(0.1).expand(shape).to_event(len(shape))
    inverse = dist.transforms.ExpTransform().inv
    return dist.TransformedDistribution(exponential, inverse)


def _student_constant(nu):
    """Of the log density of a Student-t, less log sigma and log sqrt(pi)."""
    from jax.numpy import log
    from jax.scipy.special import gammaln

    return gammaln((nu + 1.0) / 2.0) - gammaln(nu / 2.0) - 0.5 * log(nu)


def _residual_scale(log_sigma, xp):
    """Not below a twentieth of their deviation: residuals that are mostly 0 have no least scale."""
    return xp.sqrt(xp.exp(2.0 * log_sigma) + 0.05**2)
