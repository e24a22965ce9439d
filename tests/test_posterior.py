"""The posterior covers the truth, is the same for the same seed, and says nothing of nothing."""

import jax
import numpy as np
import pytest

from tradax.errors import TradaxError
from tradax.evaluation import posterior as module
from tradax.evaluation.posterior import sharpe_posterior

DAYS = 252.0


@pytest.fixture(scope="module", autouse=True)
def compile_well():
    """A sampler runs for longer than it compiles."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def test_posterior_covers_the_true_sharpe_ratio_of_a_policy_that_is_half_in_cash():
    rng = np.random.default_rng(0)  # over 60 such markets the 90% interval held the truth in 88%
    n, mean, deviation = 750, 0.0015, 0.01
    market = mean + deviation * rng.standard_t(6, n) / np.sqrt(6 / 4)
    invested = rng.random(n) < 0.5
    returns = np.where(invested, market, 0.0)
    # Half the bars: mean m/2, second moment (s^2 + m^2)/2.
    variance = (deviation**2 + mean**2) / 2 - (mean / 2) ** 2
    truth = mean / 2 / np.sqrt(variance) * np.sqrt(DAYS)

    posterior = sharpe_posterior(returns, DAYS, benchmark=market, seed=1, draws=400)
    assert posterior.converged
    assert posterior.note == ""
    low, high = posterior.sharpe_interval
    assert low < truth < high
    error = np.sqrt(DAYS / n)  # of a Sharpe ratio near 0, annualised
    assert 2.0 * error < high - low < 5.0 * error  # 90% is 3.3 standard errors
    assert posterior.p_positive > 0.7
    low, high = posterior.excess_interval
    assert low < -mean / 2 * DAYS < high
    assert 0.0 <= posterior.p_beats_benchmark < 0.5

    again = sharpe_posterior(returns, DAYS, benchmark=market, seed=1, draws=400)
    assert again == posterior


@pytest.mark.parametrize("returns", [np.zeros(100), np.full(100, 1e-4), np.array([0.1])])
def test_returns_that_do_not_vary_have_no_sharpe_ratio(returns):
    posterior = sharpe_posterior(returns, DAYS)
    assert posterior.sharpe_mean is posterior.p_positive is None
    assert not posterior.converged
    assert "no Sharpe ratio" in posterior.note


def test_returns_that_are_not_finite_get_no_statement():
    posterior = sharpe_posterior(np.array([0.1, np.nan, 0.2]), DAYS)
    assert posterior.sharpe_mean is None
    assert "no statement" in posterior.note


def test_a_benchmark_of_other_bars_is_an_error():
    with pytest.raises(TradaxError, match="100 returns and 90 of the benchmark"):
        sharpe_posterior(np.ones(100), DAYS, benchmark=np.ones(90))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r_hat": 1.2}, "did not converge"),
        ({"r_hat": np.nan}, "did not converge"),
        ({"divergences": 3}, "3 divergences"),
        ({"deviation": np.full((100, 1), 0.03)}, "deviation is 3 times"),
        ({"mean": np.full((100, 1), 0.01)}, "standard errors above"),
    ],
)
def test_no_statement_where_sampling_or_the_model_failed(monkeypatch, changes, said):
    returns = 0.01 * np.random.default_rng(0).choice([-1.0, 1.0], 500)
    good = module._Sampled(
        mean=np.full((100, 1), returns.mean()),
        deviation=np.full((100, 1), 0.01),
        r_hat=1.0,
        divergences=0,
    )
    monkeypatch.setattr(module, "_sample", lambda *_: good)
    assert sharpe_posterior(returns, DAYS).note == ""
    monkeypatch.setattr(module, "_sample", lambda *_: good._replace(**changes))
    posterior = sharpe_posterior(returns, DAYS)
    assert said in posterior.note
    assert posterior.sharpe_mean is posterior.sharpe_interval is posterior.p_positive is None
