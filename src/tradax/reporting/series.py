"""The test bar by bar, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tradax.evaluation.backtest import Backtest
from tradax.reporting.charts import dates, strategies
from tradax.reporting.downloads import csv_text
from tradax.reporting.trades import trade_tables

if TYPE_CHECKING:
    import polars as pl


def csv_files(backtest: Backtest) -> dict[str, str]:
    """Name -> content of what a run's folder keeps of its test as CSV."""
    return {
        "test.csv": csv_text(series(backtest)),
        **{name: csv_text(table) for name, table in trade_tables(backtest).items()},
    }


def series(backtest: Backtest) -> pl.DataFrame:
    """A row a bar; the first is the bar before, at whose close the test began.

    Columns: timestamp; close (of a portfolio `index`: what 1 is worth that was put equally into
    all assets); of the policy net_worth, return, shares or weight_SYMBOL, traded and fill_price (of
    a portfolio turnover, in currency), cost, action or action_0, action_1, ...; then
    STRATEGY_net_worth of its gross orders and of every baseline.
    """
    import polars as pl

    curve = backtest.policy
    columns: dict[str, np.ndarray | list[str]] = {"timestamp": dates(curve.timestamps)}
    columns["close" if curve.weights is None else "index"] = curve.price
    columns |= {"net_worth": curve.net_worth, "return": _from_first_bar(curve.returns)}
    if curve.weights is None:
        held = {"shares": curve.shares, "traded": curve.traded, "fill_price": curve.fill_price}
    else:
        held = {
            f"weight_{name}": w for name, w in zip(backtest.assets, curve.weights.T, strict=True)
        }
        held["turnover"] = curve.turnover
    actions = curve.actions.reshape(len(curve.actions), -1)
    one = actions.shape[1] == 1
    held["cost"] = curve.cost
    held |= {"action" if one else f"action_{i}": action for i, action in enumerate(actions.T)}
    columns |= {name: _from_first_bar(values) for name, values in held.items()}
    columns |= {
        f"{name}_net_worth": other.net_worth
        for name, other in strategies(backtest).items()
        if name != "policy"
    }
    return pl.DataFrame(columns)


def _from_first_bar(values: np.ndarray) -> np.ndarray:
    """[n] -> [n + 1]: nothing was done before the first bar."""
    return np.concatenate([[np.nan], np.asarray(values, np.float64)])
