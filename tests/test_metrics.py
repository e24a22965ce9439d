"""Figures of a backtest: by hand, then what must always hold."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradax.evaluation.metrics import compute

QUARTERS = 4.0


def a_year_by_hand():
    """Returns +10%, -10%, 0, +20% in the four quarters of a year."""
    return compute(
        net_worth=np.array([100.0, 110.0, 99.0, 99.0, 118.8]),
        shares=np.array([1.0, 1.0, 0.0, 2.0]),
        cost=np.array([1.0, 0.0, 0.5, 0.5]),
        turnover=np.array([100.0, 0.0, 99.0, 99.0]),
        periods_per_year=QUARTERS,
    )


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("total_return", 0.188),
        ("annual_return", 0.188),
        ("volatility", 2 * np.sqrt(0.05 / 3)),  # squared deviations sum to 0.05
        ("sharpe", 0.05 / np.sqrt(0.05 / 3) * 2),
        ("sortino", 0.05 / np.sqrt(0.01 / 4) * 2),
        ("calmar", 1.88),
        ("max_drawdown", 0.1),
        ("max_drawdown_bars", 2),
        ("turnover", 298.0 / 105.36),
        ("costs", 2.0),
        ("exposure", 0.75),
        ("trades", 3),
        ("hit_rate", 0.5),
    ],
)
def test_figure_equals_the_one_by_hand(figure, value):
    assert getattr(a_year_by_hand(), figure) == pytest.approx(value, abs=1e-12)


def test_two_years_compound():
    worth = np.array([100.0, 104, 103, 108, 110, 108, 112, 115, 121])
    figures = compute(worth, np.ones(8), np.zeros(8), np.eye(8)[0] * 100, QUARTERS)
    assert figures.annual_return == pytest.approx(0.1)
    assert figures.turnover == pytest.approx(100 / 2 / worth.mean())


def test_hit_rate_counts_the_bar_that_sells_and_not_those_outside():
    # Bought during bar 0, sold during bar 1, which still gained; bars 2 and 3 are outside.
    figures = compute(
        net_worth=np.array([100.0, 99.9, 105.0, 105.0, 105.1]),
        shares=np.array([1.0, 0.0, 0.0, 0.0]),
        cost=np.zeros(4),
        turnover=np.array([100.0, 105.0, 0.0, 0.0]),
        periods_per_year=QUARTERS,
    )
    assert figures.hit_rate == 0.5
    assert figures.exposure == 0.25


def test_drawdown_that_never_ends_counts_to_the_last_bar():
    worth = np.array([100.0, 120.0, 90.0, 110.0, 60.0])
    figures = compute(worth, np.ones(4), np.zeros(4), np.zeros(4), QUARTERS)
    assert figures.max_drawdown == pytest.approx(0.5)
    assert figures.max_drawdown_bars == 3


def test_cash_has_no_ratio():
    zero = np.zeros(10)
    figures = compute(np.full(11, 100.0), zero, zero, zero, 252)
    assert figures.total_return == figures.volatility == figures.max_drawdown == 0.0
    assert figures.sharpe is figures.sortino is figures.calmar is figures.hit_rate is None


def test_interest_in_float32_has_no_sharpe_ratio():
    worth = np.float32(100_000) * np.cumprod(np.full(500, 1.00016)).astype(np.float32)
    zero = np.zeros(499)
    assert compute(worth, zero, zero, zero, 252).sharpe is None


def test_only_gains_leave_sortino_and_calmar_undefined():
    figures = compute(np.array([100.0, 101, 103]), np.ones(2), np.zeros(2), np.zeros(2), 252)
    assert figures.sharpe is not None
    assert figures.sortino is figures.calmar is None


def test_a_short_span_of_minutes_is_not_annualised_to_infinity():
    worth = np.array([100.0, 103.0, 102.0])
    figures = compute(worth, np.ones(2), np.zeros(2), np.zeros(2), 252 * 390)
    assert figures.annual_return is figures.calmar is None
    json.dumps(figures.as_dict(), allow_nan=False)


def test_ruin_is_a_loss_of_everything():
    worth = np.array([100.0, 50.0, -5.0, -5.0])
    figures = compute(worth, np.ones(3), np.zeros(3), np.zeros(3), 252)
    assert figures.annual_return == -1.0
    assert figures.total_return == pytest.approx(-1.05)


paths = st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=40).map(
    lambda returns: 100.0 * np.cumprod([1.0, *(1.0 + r for r in returns)])
)


@settings(deadline=None, max_examples=50)
@given(paths, st.floats(0.01, 1e6))
def test_ratios_do_not_depend_on_the_currency(worth, unit):
    n = len(worth) - 1
    shares, cost, turnover = np.arange(n) % 2.0, np.ones(n), np.arange(n) % 3.0
    one = compute(worth, shares, cost, turnover, 252).as_dict()
    other = compute(worth * unit, shares, cost * unit, turnover * unit, 252).as_dict()
    assert other.pop("costs") == pytest.approx(one.pop("costs") * unit)
    for name in ("hit_rate", "max_drawdown_bars"):  # two equal prices may round either way
        one.pop(name), other.pop(name)
    for name, value in one.items():
        if value is None:
            assert other[name] is None
        else:
            assert other[name] == pytest.approx(value, rel=1e-6, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(paths)
def test_figures_stay_in_their_ranges(worth):
    n = len(worth) - 1
    figures = compute(worth, np.ones(n), np.zeros(n), np.zeros(n), 252)
    assert 0.0 <= figures.max_drawdown < 1.0
    assert 0 <= figures.max_drawdown_bars <= n
    assert figures.max_drawdown >= 1.0 - worth[-1] / worth.max() - 1e-12
    assert (figures.max_drawdown > 0) == (figures.max_drawdown_bars > 0)
    assert figures.sharpe is None or np.sign(figures.sharpe) == np.sign(
        np.mean(worth[1:] / worth[:-1] - 1)
    )
