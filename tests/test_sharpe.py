"""Sharpe ratios against the papers' own examples, skfolio, scipy and statsmodels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradax.data import samples
from tradax.errors import TradaxError
from tradax.evaluation.sharpe import (
    annual_sharpe,
    annualisation_factor,
    deflated_sharpe,
    expected_highest_sharpe,
    minimum_track_record,
    probabilistic_sharpe,
    sharpe_ratio,
)

DAYS = 252.0


def real() -> np.ndarray:
    """Daily returns of 20 stocks, [8312, 20]."""
    close = samples.load("us20").close.T
    return close[1:] / close[:-1] - 1.0


def with_sharpe(shape: np.ndarray, sharpe: float) -> np.ndarray:
    """Returns of that shape whose Sharpe ratio is `sharpe`."""
    return 0.01 * (shape - shape.mean() + sharpe * shape.std(ddof=1))


def test_probabilistic_sharpe_equals_the_one_by_hand():
    # Mean 0.005, SR 0.3873, skewness 0, kurtosis 1.64: Phi(0.3873 sqrt(3) / sqrt(1.024)).
    returns = np.array([0.01, -0.01, 0.02, 0.0])
    assert probabilistic_sharpe(returns) == pytest.approx(0.746307, abs=1e-6)
    assert sharpe_ratio(returns) == pytest.approx(0.387298, abs=1e-6)


def test_minimum_track_record_equals_the_papers_example():
    # Bailey and Lopez de Prado 2012: daily normal returns with an annual Sharpe ratio of 2 need
    # 2.73 years to be above 1 with 95% confidence. With a sixth of -1, a sixth of 1, else 0, the
    # kurtosis is 3.
    returns = with_sharpe(np.tile([-1.0, 0.0, 0.0, 0.0, 0.0, 1.0], 1000), 2.0 / math.sqrt(DAYS))
    bars = minimum_track_record(returns, threshold=1.0 / math.sqrt(DAYS))
    assert bars / DAYS == pytest.approx(2.73, abs=0.005)
    assert minimum_track_record(returns, threshold=2.1 / math.sqrt(DAYS)) is None
    assert minimum_track_record(-returns) is None


def test_deflated_sharpe_equals_the_papers_example():
    # Bailey and Lopez de Prado 2014: annual Sharpe ratio 2.5 over 1,250 of 250 days a year,
    # skewness -3, kurtosis 10, 100 trials with a variance of 1/2: SR0 is 0.1132, DSR 0.9004.
    deviation = math.sqrt(0.5 / 250)
    assert expected_highest_sharpe(100, deviation) == pytest.approx(0.1132, abs=5e-5)
    shape = np.repeat([-1.0, 0.0], [105, 1145])  # only two values have a kurtosis of 1 + 3^2
    trials = np.concatenate([np.linspace(-1, 1, 99), [0.0]])
    trials *= deviation / trials.std(ddof=1)
    deflated = deflated_sharpe(with_sharpe(shape, 2.5 / math.sqrt(250)), trials)
    assert deflated == pytest.approx(0.9004, abs=5e-4)


def test_probabilistic_and_deflated_sharpe_equal_those_of_skfolio():
    from skfolio import measures

    simulated = 0.01 * np.random.default_rng(0).standard_t(4, (500, 20)) + 0.0005
    for columns in (real(), simulated):
        sharpes = np.array([sharpe_ratio(column) for column in columns.T])
        for column in columns.T[:5]:
            for threshold in (0.0, 0.03):
                assert probabilistic_sharpe(column, threshold) == pytest.approx(
                    measures.probabilistic_sharpe_ratio(column, threshold), abs=1e-12
                )
            assert deflated_sharpe(column, sharpes) == pytest.approx(
                measures.deflated_sharpe_ratio(column, sharpes), abs=1e-12
            )


def test_minimum_track_record_is_where_the_probabilistic_sharpe_ratio_reaches_its_confidence():
    from scipy import stats

    for column in real().T[:3]:
        bars = minimum_track_record(column, threshold=0.01, confidence=0.9)
        sharpe = sharpe_ratio(column)
        variance = (
            1.0
            - stats.skew(column) * sharpe
            + (stats.kurtosis(column, fisher=False) - 1.0) / 4.0 * sharpe**2
        )
        z = (sharpe - 0.01) * math.sqrt(bars - 1.0) / math.sqrt(variance)
        assert stats.norm.cdf(z) == pytest.approx(0.9, abs=1e-12)


def test_expected_highest_sharpe_is_the_mean_of_simulated_maxima():
    rng = np.random.default_rng(0)
    for trials in (5, 50):
        maxima = rng.normal(0, 0.03, (20_000, trials)).max(axis=1)
        assert expected_highest_sharpe(trials, 0.03) == pytest.approx(maxima.mean(), rel=0.04)
    assert expected_highest_sharpe(1, 0.03) == expected_highest_sharpe(9, 0.0) == 0.0


def test_deflated_sharpe_falls_as_trials_are_added():
    rng = np.random.default_rng(0)
    returns = rng.normal(0.0008, 0.01, 750)
    others = rng.normal(0.0, 0.03, 50)
    own = sharpe_ratio(returns)
    values = [deflated_sharpe(returns, np.array([own, *others[:n]])) for n in (0, 10, 50)]
    assert values[0] == probabilistic_sharpe(returns)
    assert values[0] > values[1] > values[2]
    # Trials that never traded have no Sharpe ratio, and were trials all the same.
    assert deflated_sharpe(returns, np.array([own, *others]), trials=80) < values[2]


def test_annualisation_equals_the_closed_form_of_a_first_order_autoregression():
    # Lo 2002: eta(q)^-2 = (1 + 2 rho/(1 - rho) (1 - (1 - rho^q)/(q (1 - rho)))) / q.
    for rho, q in ((0.2, 12), (-0.3, 252), (0.0, 52)):
        share = (1.0 - rho**q) / (q * (1.0 - rho))
        closed = math.sqrt(q / (1.0 + 2.0 * rho / (1.0 - rho) * (1.0 - share)))
        given = [rho**k for k in range(1, q)]
        assert annualisation_factor(given, q) == pytest.approx(closed, rel=1e-12)
    assert annualisation_factor([0.2**k for k in range(1, 12)], 12) == pytest.approx(2.88, abs=5e-3)
    assert annualisation_factor([], DAYS) == pytest.approx(math.sqrt(DAYS), rel=1e-15)
    assert annualisation_factor([-0.9], 12) is None


def test_annual_sharpe_uses_the_autocorrelations_that_statsmodels_computes():
    from statsmodels.tsa.stattools import acf

    for column in real().T[:3]:
        rho = acf(column, nlags=10, fft=False)[1:]
        weights = DAYS - np.arange(1, 11)
        expected = sharpe_ratio(column) * DAYS / math.sqrt(DAYS + 2.0 * weights @ rho)
        assert annual_sharpe(column, DAYS, lags=10) == pytest.approx(expected, rel=1e-10)
        assert annual_sharpe(column, DAYS, lags=0) == pytest.approx(
            sharpe_ratio(column) * math.sqrt(DAYS), rel=1e-12
        )


def test_smoothed_returns_do_not_gain_from_annualisation():
    rng = np.random.default_rng(0)
    raw = rng.normal(0.0005, 0.01, 20_001)
    smoothed = (raw[1:] + raw[:-1]) / 2.0  # half the variance, the same mean
    naive = sharpe_ratio(smoothed) * math.sqrt(DAYS)
    assert naive > 1.3 * annual_sharpe(raw, DAYS)
    assert annual_sharpe(smoothed, DAYS) == pytest.approx(annual_sharpe(raw, DAYS), rel=0.1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=30), st.floats(0.1, 10))
def test_probabilistic_sharpe_is_a_probability_and_has_no_unit(returns, unit):
    returns = np.array(returns)
    if returns.std() > 1e-4:
        value = probabilistic_sharpe(returns)
        assert value is not None
        assert 0.0 <= value <= 1.0
        assert probabilistic_sharpe(returns * unit) == pytest.approx(value, abs=1e-9)


def test_what_has_no_sharpe_ratio_is_none_and_what_is_no_number_an_error():
    for returns in (np.full(10, 0.01), np.zeros(10), np.array([0.1, 0.2]), np.array([])):
        assert sharpe_ratio(returns) is None
        assert probabilistic_sharpe(returns) is None
        assert minimum_track_record(returns) is None
        assert deflated_sharpe(returns, np.array([0.1, 0.2])) is None
        assert annual_sharpe(returns, DAYS) is None
    holes = np.array([0.1, np.nan, 0.2, np.inf])
    with pytest.raises(TradaxError, match="2 of 4 values are NaN or infinite"):
        probabilistic_sharpe(holes)
    good = np.array([0.1, 0.0, 0.2, 0.1])
    with pytest.raises(TradaxError, match="1 of 2 values are NaN"):
        deflated_sharpe(good, np.array([0.1, np.nan]))
    with pytest.raises(TradaxError, match="2 trials, but 3 Sharpe ratios"):
        deflated_sharpe(good, np.array([0.1, 0.2, 0.3]), trials=2)
    with pytest.raises(TradaxError, match="0 trials"):
        expected_highest_sharpe(0, 0.1)
    with pytest.raises(TradaxError, match="confidence is 2"):
        minimum_track_record(good, confidence=2)
    with pytest.raises(TradaxError, match="4 lags of 4 returns"):
        annual_sharpe(good, DAYS, lags=4)
    with pytest.raises(TradaxError, match="1 axes"):
        sharpe_ratio(np.zeros((3, 2)))
