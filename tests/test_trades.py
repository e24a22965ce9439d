"""Executions, round trips and rebalances of the test, against what one reckons by hand."""

import dataclasses
import io

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from test_verdict import simulated, walk, with_edge
from tradax.evaluation.backtest import Backtest, Curve
from tradax.reporting.downloads import MOST_EMBEDDED, csv_text, download
from tradax.reporting.series import csv_files, series
from tradax.reporting.trades import (
    MOST_ROWS,
    executions,
    rebalances,
    round_trips,
    trades_part,
    trip_figures,
)


def by_hand() -> Curve:
    """Long 10, short 5 (the sign turns at 111), flat, in and out within a bar, long 2 to the end.

    The account starts with 1,000; every fill costs 1 a share.
    """
    close = np.array([100.0, 104.0, 110.0, 108.0, 106.0, 106.0, 107.0])
    fill = np.array([101.0, 0.0, 111.0, 107.0, 106.5, 106.0])
    shares = np.array([10.0, 10.0, -5.0, 0.0, 0.0, 2.0])
    traded = np.array([10.0, 0.0, 15.0, 5.0, 8.0, 2.0])
    cost = traded * 1.0
    gain = np.array(
        [
            10 * (104 - 101) - 10,
            10 * (110 - 104),
            10 * (111 - 110) - 5 * (108 - 111) - 15,  # 10 sold, 5 sold short
            -5 * (107 - 108) - 5,
            -8,  # bought and sold at one price
            2 * (107 - 106) - 2,
        ],
        float,
    )
    return dataclasses.replace(
        with_edge(6).policy,
        timestamps=np.datetime64("2020-01-01") + np.arange(7),
        net_worth=1000.0 + np.concatenate([[0.0], np.cumsum(gain)]),
        price=close,
        shares=shares,
        traded=traded,
        change=np.diff(shares, prepend=0.0),
        fill_price=fill,
        cost=cost,
        turnover=traded * fill,
    )


def test_executions_as_reckoned_by_hand():
    assert executions(by_hand()).rows() == [
        ("2020-01-02", "buy", 10.0, 101.0, 1010.0, 10.0, 10.0, 1020.0),
        ("2020-01-04", "sell", 15.0, 111.0, 1665.0, 15.0, -5.0, 1090.0),
        ("2020-01-05", "buy", 5.0, 107.0, 535.0, 5.0, 0.0, 1090.0),
        ("2020-01-06", "in and out", 8.0, 106.5, 852.0, 8.0, 0.0, 1082.0),
        ("2020-01-07", "buy", 2.0, 106.0, 212.0, 2.0, 2.0, 1082.0),
    ]


def test_round_trips_as_reckoned_by_hand():
    trips = round_trips(by_hand())
    # The long one gains 20 + 60 + 10 less 10 of the 15 that turning cost; the short one the rest.
    assert trips.drop("return").rows() == [
        ("2020-01-02", "2020-01-04", "long", 2, 80.0),
        ("2020-01-04", "2020-01-05", "short", 1, 10.0),
        ("2020-01-06", "2020-01-06", "within a bar", 0, -8.0),
        ("2020-01-07", None, "long", 1, 0.0),
    ]
    np.testing.assert_allclose(trips["return"], [80 / 1000, 10 / 1080, -8 / 1090, 0.0], rtol=1e-12)
    figures = trip_figures(trips)
    assert (figures.number, figures.longest_bars, figures.still_open) == (3, 2, True)
    assert figures.winners == pytest.approx(2 / 3)
    assert figures.mean_win == pytest.approx((80 / 1000 + 10 / 1080) / 2)
    assert figures.mean_loss == pytest.approx(-8 / 1090)


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=2, max_size=40))
def test_profits_add_up_to_the_gain_and_returns_compound_to_it(weights):
    returns = np.random.default_rng(len(weights)).normal(0, 0.01, len(weights))
    curve = simulated(walk(returns), np.array(weights)).policy
    trips = round_trips(curve)
    worth = curve.net_worth
    assert trips["profit"].sum() == pytest.approx(worth[-1] - worth[0], abs=1e-6)
    assert (1 + trips["return"]).product() == pytest.approx(worth[-1] / worth[0], rel=1e-12)
    held = trips.filter(trips["side"] != "within a bar")
    assert held["bars"].sum() == np.count_nonzero(curve.shares)


def portfolio() -> Backtest:
    one = with_edge(3)
    policy = dataclasses.replace(
        one.policy,
        net_worth=np.array([1000.0, 990.0, 1010.0, 1000.0]),
        weights=np.array([[0.5, 0.3], [0.52, 0.29], [0.5, -0.1]]),
        turnover=np.array([800.0, 0.0, 404.0]),
        cost=np.array([0.8, 0.0, 0.4]),
        actions=np.zeros((3, 3)),
    )
    return dataclasses.replace(one, policy=policy, assets=("A", "B"))


def test_rebalances_as_reckoned_by_hand():
    table = rebalances(portfolio())
    assert table.drop("change", "turnover_share").rows() == [
        ("2020-01-02", 800.0, 0.8, "A", 990.0),
        ("2020-01-04", 404.0, 0.4, "B", 1000.0),
    ]
    np.testing.assert_allclose(table["change"], [0.5, -0.39])
    np.testing.assert_allclose(table["turnover_share"], [0.8, 0.4])


def test_series_has_every_bar_of_policy_and_baselines():
    backtest = with_edge(5)
    table = pl.read_csv(io.StringIO(csv_files(backtest)["test.csv"]))
    assert ",".join(table.columns) == (
        "timestamp,close,net_worth,return,shares,traded,fill_price,cost,action_0,action_1,"
        "gross_net_worth,buy_and_hold_net_worth,cash_net_worth,random_net_worth"
    )
    assert table["timestamp"].to_list() == [f"2020-01-0{day}" for day in range(1, 7)]
    np.testing.assert_allclose(table["net_worth"], backtest.policy.net_worth, rtol=1e-8)
    np.testing.assert_allclose(table["cash_net_worth"], backtest.baselines["cash"].net_worth)
    assert table["shares"].to_list()[0] is None
    np.testing.assert_allclose(table["shares"][1:], backtest.policy.shares, rtol=1e-8)
    assert set(csv_files(backtest)) == {"test.csv", "trades.csv", "round_trips.csv"}


def test_series_of_a_portfolio_has_a_weight_for_every_asset():
    table = series(portfolio())
    held = ["weight_A", "weight_B", "turnover", "cost", "action_0", "action_1", "action_2"]
    assert table.columns[:11] == ["timestamp", "index", "net_worth", "return", *held]
    assert set(csv_files(portfolio())) == {"test.csv", "rebalances.csv"}


def test_csv_keeps_every_digit_of_a_float32():
    values = np.random.default_rng(0).lognormal(0, 20, 1000).astype(np.float32)
    text = csv_text(pl.DataFrame({"x": values.astype(float)}))
    read = pl.read_csv(io.StringIO(text))["x"].to_numpy()
    np.testing.assert_array_equal(read.astype(np.float32), values)
    nothing = csv_text(pl.DataFrame({"x": [np.nan, np.inf, None, 1.5], "y": [1, 2, 3, 4]}))
    assert nothing == "x,y\n,1\n,2\n,3\n1.5,4\n"


def test_the_page_shows_the_newest_rows_and_says_how_many_there_are():
    backtest = simulated(walk(np.zeros(1000)), np.arange(1000) % 2.0)
    body = trades_part(backtest).section.body
    assert "Executions: 999 in all, the newest first; the newest 200 are shown here" in body
    executed = body.split("<h3>Round trips</h3>")[0]
    assert executed.count("<tr>") - executed.split("<h3>Executions")[0].count("<tr>") == (
        MOST_ROWS + 1
    )
    assert "Download executions as CSV" in body
    figures = trades_part(backtest).summary["trades"]
    assert figures["executions"] == 999
    assert figures["round_trips"]["number"] == 499


def test_rebalances_and_a_policy_that_never_trades_have_their_words():
    assert "<td>-39.00%</td>" in trades_part(portfolio()).section.body
    nothing = trades_part(simulated(walk(np.zeros(5)), np.zeros(5)))
    assert nothing.section.body == "<p>The policy never traded.</p>"
    assert nothing.summary["trades"]["round_trips"]["winners"] is None


def test_what_is_too_long_for_the_page_is_named():
    assert "<button" in download("Save", "test.csv", "a" * MOST_EMBEDDED)
    assert "<code>test.csv</code>" in download("Save", "test.csv", "a" * (MOST_EMBEDDED + 1))
    assert "<button" not in download("Save", "test.csv", "a" * (MOST_EMBEDDED + 1))
    assert "</script><b>" not in download("Save", "a.csv", "</script><b>")
