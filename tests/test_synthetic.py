"""Sampled moments lie within sampling error of the closed forms; both engines share the tests."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from tradax.data import synthetic
from tradax.data.bars import bars_from_frame
from tradax.data.synthetic import (
    GeometricBrownianMotion,
    Heston,
    Jumps,
    Noise,
    OrnsteinUhlenbeck,
    Regimes,
    Sample,
)
from tradax.envs import _paths
from tradax.errors import ConfigError, DataError

DAY = 1 / 252
both_engines = pytest.mark.parametrize("engine", ["numpy", "jax"])


@functools.cache
def sampled(engine, process, assets=100, bars=1_000):
    """Log price [assets, bars] at the end of every day, and the hidden state."""
    if engine == "numpy":
        bars_made, hidden = synthetic.simulate(process, Sample(bars=bars, assets=assets, seed=3))
        return np.log(bars_made.close / 100.0), hidden
    substeps = 8 if isinstance(process, Heston) else 1
    state = jax.jit(_paths.path, static_argnames=("n_steps", "assets", "substeps"))(
        jax.random.key(3), process, n_steps=bars, dt=DAY, assets=assets, substeps=substeps
    )
    return tuple(np.asarray(x[1:], np.float64).T for x in state)


def check(statistic, truth):
    """`statistic` [assets] holds independent estimates of `truth`."""
    error = np.std(statistic, ddof=1) / np.sqrt(len(statistic))
    assert abs(np.mean(statistic) - truth) < 4.5 * error + 1e-9, (np.mean(statistic), truth, error)
    return error


@both_engines
def test_gbm_returns_have_the_mean_and_variance_that_were_asked_for(engine):
    x, _ = sampled(engine, GeometricBrownianMotion(drift=0.5, volatility=0.3))
    returns = np.diff(x, axis=1)
    check(returns.mean(1), (0.5 - 0.3**2 / 2) * DAY)
    error = check(returns.var(1), 0.3**2 * DAY)
    assert error < 0.01 * 0.3**2 * DAY  # the test sees an error of a twentieth
    check((returns[:, 1:] * returns[:, :-1]).mean(1), ((0.5 - 0.045) * DAY) ** 2)
    check(np.exp(x[:, 251]), np.exp(0.5))


@both_engines
def test_noise_is_a_martingale_without_memory(engine):
    x, _ = sampled(engine, Noise(volatility=0.4))
    returns = np.expm1(np.diff(x, axis=1))
    check(returns.mean(1), 0.0)
    for lag in (1, 2, 5):
        check((returns[:, lag:] * returns[:, :-lag]).mean(1), 0.0)
        # Nor does the size of a return foretell that of the next.
        squares = returns**2 - (returns**2).mean()
        check((squares[:, lag:] * squares[:, :-lag]).mean(1), 0.0)


@both_engines
def test_ou_is_stationary_with_the_variance_and_autocorrelation_of_theory(engine):
    x, _ = sampled(engine, OrnsteinUhlenbeck(speed=20.0, volatility=0.3))
    variance = 0.3**2 / 40
    for day in (0, 500, 999):
        check(x[:, day], 0.0)
        check(x[:, day] ** 2, variance)
    for lag in (1, 10, 30):
        check((x[:, lag:] * x[:, :-lag]).mean(1), variance * np.exp(-20 * lag * DAY))


@both_engines
def test_heston_variance_and_price_have_the_moments_of_theory(engine):
    process = Heston(
        drift=0.2, volatility=0.3, speed=6.0, volatility_of_variance=0.5, leverage=-0.6
    )
    x, variance = sampled(engine, process)
    mean = 0.3**2
    check(variance.mean(1), mean)
    # The stationary variance, after a year in which the start is forgotten.
    check(((variance - mean) ** 2)[:, 252:].mean(1), 0.5**2 * mean / 12)
    returns, change = np.diff(x, axis=1), np.diff(variance, axis=1)
    check(returns.var(1), mean * DAY)
    check(np.exp(x[:, -1]), np.exp(0.2 * 1000 * DAY))
    root = np.sqrt(np.maximum(variance[:, :-1], 1e-4))
    correlation = np.corrcoef((returns / root).ravel(), (change / root).ravel())[0, 1]
    assert correlation == pytest.approx(-0.6, abs=0.03)


@both_engines
def test_jumps_give_the_variance_and_kurtosis_of_theory(engine):
    process = Jumps(drift=0.3, volatility=0.15, rate=40.0, jump_mean=-0.02, jump_sd=0.03)
    x, _ = sampled(engine, process)
    returns = np.diff(x, axis=1)
    second = 0.02**2 + 0.03**2
    fourth = 0.02**4 + 6 * 0.02**2 * 0.03**2 + 3 * 0.03**4
    compensator = 40 * (np.exp(-0.02 + 0.03**2 / 2) - 1)
    mean = (0.3 - 0.15**2 / 2 - compensator + 40 * -0.02) * DAY
    variance = (0.15**2 + 40 * second) * DAY
    check(returns.mean(1), mean)
    check(((returns - mean) ** 2).mean(1), variance)
    kurtosis = ((returns - mean) ** 4).mean(1) / variance**2
    error = check(kurtosis, 3 + 40 * DAY * fourth / variance**2)
    assert error < 0.5
    assert kurtosis.mean() > 5  # far from that of a diffusion
    check(np.exp(x[:, 251]), np.exp(0.3))


@both_engines
def test_regimes_take_turns_as_often_and_move_as_much_as_was_asked_for(engine):
    process = Regimes(
        calm_drift=0.2,
        calm_volatility=0.1,
        calm_years=0.4,
        stressed_drift=-0.3,
        stressed_volatility=0.4,
        stressed_years=0.1,
    )
    x, regime = sampled(engine, process, bars=2_000)
    assert set(np.unique(regime)) == {0.0, 1.0}
    check(regime.mean(1), 0.1 / 0.5)
    moved = 1 - np.exp(-(1 / 0.4 + 1 / 0.1) * DAY)
    check(np.mean((regime[:, :-1] == 0) & (regime[:, 1:] == 1), axis=1), 0.8 * moved * 0.2)
    returns = np.diff(x, axis=1)
    calm = (regime[:, :-1] == 0) & (regime[:, 1:] == 0)
    stressed = (regime[:, :-1] == 1) & (regime[:, 1:] == 1)
    for stays, drift, volatility in ((calm, 0.2, 0.1), (stressed, -0.3, 0.4)):
        # Days that begin and end in one regime: hardly any leaves and comes back within the day.
        kept = np.where(stays, returns, np.nan)
        means, variances = np.nanmean(kept, axis=1), np.nanvar(kept, axis=1)
        check(means, (drift - volatility**2 / 2) * DAY)
        assert variances.mean() == pytest.approx(volatility**2 * DAY, rel=0.02)


@both_engines
def test_moves_of_assets_are_correlated_as_asked(engine):
    process = GeometricBrownianMotion(volatility=0.2)
    if engine == "numpy":
        made = synthetic.load("gbm", assets=3, correlation=0.6, bars=20_000, seed=1)
        x = np.log(made.close)
    else:
        state = _paths.path(
            jax.random.key(1), process, 20_000, DAY, assets=3, correlation=jnp.float32(0.6)
        )
        x = np.asarray(state.log_price, np.float64).T
    matrix = np.corrcoef(np.diff(x, axis=1))
    assert matrix == pytest.approx(np.full((3, 3), 0.6) + 0.4 * np.eye(3), abs=0.02)
    negative = synthetic.load("ou", assets=3, correlation=-0.4, bars=20_000, seed=1)
    found = np.corrcoef(np.diff(np.log(negative.close), axis=1))[0, 1]
    assert found == pytest.approx(-0.4, abs=0.03)


@pytest.mark.parametrize("name", synthetic.PROCESSES)
def test_equal_seeds_give_equal_bars_and_others_do_not(name):
    a, b = (synthetic.load(name, bars=50, assets=2, seed=1) for _ in range(2))
    assert a.sha256 == b.sha256
    assert a.sha256 != synthetic.load(name, bars=50, assets=2, seed=2).sha256
    assert a.symbols == (f"{name.upper()}1", f"{name.upper()}2")
    assert (a.close[0] != a.close[1]).any()


@pytest.mark.parametrize("name", synthetic.PROCESSES)
def test_bars_are_what_the_reader_of_users_files_accepts(name):
    made = synthetic.load(name, bars=300, assets=2, seed=5)
    assert (made.low <= np.minimum(made.open, made.close)).all()
    assert (made.high >= np.maximum(made.open, made.close)).all()
    assert made.periods_per_year == 252
    columns = {
        "symbol": np.repeat(np.array(made.symbols), 300),
        "timestamp": np.tile(made.timestamps, 2),
    }
    series = ("open", "high", "low", "close", "volume")
    frame = pl.DataFrame(columns | {key: getattr(made, key).ravel() for key in series})
    read = bars_from_frame(frame)
    assert read.sha256 == made.sha256


def test_what_others_rely_on_is_as_it_was():
    # The numbers of the first version, whose bits other tests have seen.
    made = synthetic.geometric_brownian_motion(3, drift=0.1, volatility=0.3, seed=4)
    rng = np.random.default_rng(4)
    dt = 1 / 252 / 8
    steps = (0.1 - 0.3**2 / 2) * dt + 0.3 * np.sqrt(dt) * rng.standard_normal((3, 8))
    path = 100.0 * np.exp(np.cumsum(steps.ravel())).reshape(3, 8)[:, 1:]
    assert made.symbols == ("GBM",)
    assert made.close[0] == pytest.approx(path[:, -1], rel=1e-14)
    assert made.high[0] == pytest.approx(path.max(1), rel=1e-14)
    assert made.source == "synthetic:gbm"


def test_text_names_process_and_parameters():
    a = synthetic.from_text("synthetic:gbm,drift=0.1,volatility=0.3,seed=1,assets=3,bars=100")
    b = synthetic.load("gbm", drift=0.1, volatility=0.3, seed=1, assets=3, bars=100)
    assert a.sha256 == b.sha256
    assert len(synthetic.from_text("synthetic:noise")) == 2_520
    assert synthetic.from_text("synthetic:ou, speed = 5, bars=10").source == "synthetic:ou"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("gmb", DataError, "no process 'gmb'; did you mean gbm? there are gbm, ou, heston"),
        ("", DataError, "there are gbm, ou, heston, jumps, regimes, noise"),
        ("gbm,drfit=1", DataError, "no parameter drfit; did you mean drift? allowed: drift, vol"),
        ("noise,drift=1", DataError, "allowed: volatility, bars, assets, correlation, seed"),
        ("gbm,drift", DataError, "'drift' is no parameter; write it like synthetic:gbm,drift=0.1"),
        ("gbm,drift=", DataError, "is no parameter"),
        ("gbm,", DataError, "is no parameter"),
        ("gbm,seed=1,seed=2", DataError, "seed is given twice"),
        ("gbm,volatility=-1", ConfigError, "volatility is -1; it must be at least 0"),
        ("gbm,volatility=__import__('os')", ConfigError, "must be a finite number"),
        ("gbm,drift=nan", ConfigError, "must be a finite number"),
        ("gbm,seed=1.5", ConfigError, "must be a whole number"),
        ("gbm,bars=1", ConfigError, "bars is 1; it must be at least 2"),
        ("gbm,assets=3,correlation=-0.9", DataError, "it must be above -0.5"),
        ("gbm,drift=1e9", DataError, "left the range of numbers"),
    ],
)
def test_bad_text_is_answered_with_what_is_allowed(text, error, message):
    with pytest.raises(error) as caught:
        synthetic.from_text(f"synthetic:{text}")
    assert message in str(caught.value)


def test_making_bars_needs_no_jax():
    code = (
        "import sys; from tradax.data import synthetic; synthetic.load('heston', bars=10); "
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_step_by_step_paths_follow_the_same_law():
    process = OrnsteinUhlenbeck(speed=20.0, volatility=0.3)

    @jax.jit
    @jax.vmap
    def ends(key):
        first_key, *keys = jax.random.split(key, 4)
        first = state = _paths.start(first_key, process)
        for step_key in keys:
            state = _paths.step(step_key, process, state, 5 * DAY)
        return first.log_price[0], state.log_price[0]

    first, last = (np.asarray(x, float) for x in ends(jax.random.split(jax.random.key(0), 4_000)))
    check(last**2, 0.3**2 / 40)
    check(first * last, 0.3**2 / 40 * np.exp(-20 * 15 * DAY))


def test_one_program_simulates_many_markets_and_a_fresh_path_for_every_key():
    traced = []

    @jax.jit
    @jax.vmap
    def ends(key, process):
        traced.append(1)
        return _paths.path(key, process, 20, DAY).log_price[-1, 0]

    keys = jax.random.split(jax.random.key(0), 3)
    base = GeometricBrownianMotion()
    many = jax.tree.map(lambda _: jnp.zeros(3), base)
    many = type(base)(drift=many.drift, volatility=jnp.array([0.0, 0.1, 0.4]))
    first = ends(keys, many)
    assert first[0] == 0
    assert len(set(first.tolist())) == 3
    again = ends(keys, type(base)(drift=many.drift + 1.0, volatility=many.volatility))
    assert again[0] == pytest.approx(20 * DAY, rel=1e-5)
    assert len(traced) == 1
    other = ends(jax.random.split(jax.random.key(1), 3), many)
    assert other[1] != first[1]
