"""What the policy bought and sold in the test: executions and round trips, or rebalances."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tradax.evaluation.backtest import Backtest, Curve
from tradax.reporting.charts import dates
from tradax.reporting.downloads import csv_text, download
from tradax.reporting.frame import Part, Row, Section, facts_table, number, numbers_table

if TYPE_CHECKING:
    import polars as pl

MOST_ROWS = 200
"""Rows of a table that are on the page."""
FLAT = 0.01
"""Of net worth. A policy of continuous size rarely sells the last hundredth of a share."""


def trades_part(backtest: Backtest) -> Part:
    """The newest rows of every table, all of them to download, and figures of round trips."""
    tables = trade_tables(backtest)
    if "rebalances.csv" in tables:
        table = tables["rebalances.csv"]
        body = _shown("Rebalances", _REBALANCES, _REBALANCE_WORDS, table, "rebalances.csv")
        figures = {"rebalances": table.height}
    else:
        done, trips = tables["trades.csv"], tables["round_trips.csv"]
        summed = trip_figures(trips)
        body = [
            facts_table("Round trips that have ended", _in_words(summed)),
            *_shown("Executions", _EXECUTIONS, _EXECUTION_WORDS, done, "trades.csv"),
            *_shown("Round trips", _ROUND_TRIPS, _ROUND_TRIP_WORDS, trips, "round_trips.csv"),
        ]
        figures = {"executions": done.height, "round_trips": summed._asdict()}
    if not any(table.height for table in tables.values()):
        body = ["<p>The policy never traded.</p>"]
    return Part(Section("trades", "Trades", "\n".join(body)), [], {"trades": figures})


def trade_tables(backtest: Backtest) -> dict[str, pl.DataFrame]:
    """Name of the CSV file -> table."""
    if backtest.policy.weights is not None:
        return {"rebalances.csv": rebalances(backtest)}
    curve = backtest.policy
    return {"trades.csv": executions(curve), "round_trips.csv": round_trips(curve)}


def executions(curve: Curve) -> pl.DataFrame:
    """A row for every bar on which something was bought or sold.

    `shares` are those bought plus those sold; `side` says what became of the position, "in and
    out" where it is as large as before. `fill_price` is that of the last fill, `value` (of what was
    bought and sold) and `cost` are in currency, and `position` (shares) and `net_worth` are those
    at the bar's close.
    """
    import polars as pl

    bars = np.flatnonzero(curve.traded > 0)
    sides = np.array(["sell", "in and out", "buy"])
    return pl.DataFrame(
        {
            "timestamp": np.array(dates(curve.timestamps))[bars + 1],
            "side": sides[np.sign(curve.change[bars]).astype(int) + 1],
            "shares": curve.traded[bars],
            "fill_price": curve.fill_price[bars],
            "value": curve.turnover[bars],
            "cost": curve.cost[bars],
            "position": curve.shares[bars],
            "net_worth": curve.net_worth[bars + 1],
        }
    )


def round_trips(curve: Curve) -> pl.DataFrame:
    """A row for every stretch from flat to flat, or to a position of the other sign.

    `profit`, in currency, is what net worth gained from its entry to its exit, so after costs, and
    `return` is that over the net worth at its entry: profits add up to the gain of the test, and
    returns compound to it, up to what was earned on positions below `FLAT`. Where the sign turns
    within a bar, the bar's gain is divided at the fill price, and its cost by shares. `bars` counts
    the closes at which the position was held. The last trip may have no `exit`.
    """
    import polars as pl

    small = np.abs(curve.shares) * curve.price[1:] < FLAT * curve.net_worth[1:]
    sign = np.where(small, 0.0, np.sign(curve.shares))
    before = np.concatenate([[0.0], sign[:-1]])
    turns = sign != before
    entries = np.flatnonzero(turns & (sign != 0))
    exits = np.flatnonzero(turns & (before != 0))
    is_open = len(entries) > len(exits)
    # Bought and sold before the bar's close: no position is seen, but something was earned.
    most = 2 * FLAT * np.maximum(curve.net_worth[:-1], curve.net_worth[1:])
    within = np.flatnonzero((sign == 0) & (before == 0) & (curve.turnover > most))
    worth_at_turn = _worth_at_turns(curve)
    n = len(sign)
    first = np.concatenate([entries, within])
    last = np.concatenate([exits, [n] * is_open, within]).astype(int)
    start = np.where(before[first] == 0, curve.net_worth[first], worth_at_turn[first])
    closed = np.minimum(last, n - 1)
    turned = (last < n) & (sign[closed] != 0)
    end = np.where(turned, worth_at_turn[closed], curve.net_worth[closed + 1])
    stamps = np.array([*dates(curve.timestamps[1:]), None], object)
    sides = np.array(["short", "within a bar", "long"])
    order = np.argsort(first, kind="stable")
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = end / start - 1.0
    return pl.DataFrame(
        {
            "entry": stamps[first][order].tolist(),
            "exit": stamps[last][order].tolist(),
            "side": sides[sign[first].astype(int) + 1][order],
            "bars": (last - first)[order],
            "return": growth[order],
            "profit": (end - start)[order],
        },
        schema_overrides={"entry": pl.String, "exit": pl.String},
    )


def _worth_at_turns(curve: Curve) -> np.ndarray:
    """[n], net worth when the old position was closed, on bars that turn it into the opposite."""
    held = np.concatenate([[0.0], curve.shares[:-1]])
    fill = np.where(curve.fill_price > 0, curve.fill_price, curve.price[1:])
    both = np.abs(held) + np.abs(curve.shares)
    part = np.abs(held) / np.where(both > 0, both, 1.0)
    return curve.net_worth[:-1] + held * (fill - curve.price[:-1]) - curve.cost * part


class TripFigures(NamedTuple):
    """Of round trips that have ended; None where there are none of the kind."""

    number: int
    winners: float | None
    """Share of those with a return above 0."""
    mean_win: float | None
    """Mean return of those above 0."""
    mean_loss: float | None
    """Mean return of the others."""
    longest_bars: int | None
    still_open: bool
    """A further one has no exit yet."""


def trip_figures(trips: pl.DataFrame) -> TripFigures:
    """Args: trips: of `round_trips`."""
    ended = trips.filter(trips["exit"].is_not_null())
    returns = ended["return"].to_numpy()
    won = returns > 0
    return TripFigures(
        number=ended.height,
        winners=_mean(won),
        mean_win=_mean(returns[won]),
        mean_loss=_mean(returns[~won]),
        longest_bars=int(ended["bars"].to_numpy().max()) if ended.height else None,
        still_open=ended.height < trips.height,
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def rebalances(backtest: Backtest) -> pl.DataFrame:
    """A row for every bar on which a portfolio traded.

    `turnover` and `cost` are in currency, `turnover_share` is of net worth before. The asset whose
    weight changed most since the close before is named; that change holds the drift by prices too.
    """
    import polars as pl

    curve = backtest.policy
    assert curve.weights is not None
    bars = np.flatnonzero(curve.turnover > 0)
    changes = np.diff(curve.weights, axis=0, prepend=0.0)[bars]  # [bars, assets]
    largest = np.abs(changes).argmax(axis=1)
    worth = curve.net_worth[bars]
    return pl.DataFrame(
        {
            "timestamp": np.array(dates(curve.timestamps))[bars + 1],
            "turnover": curve.turnover[bars],
            "turnover_share": curve.turnover[bars] / np.where(worth > 0, worth, np.nan),
            "cost": curve.cost[bars],
            "asset": [backtest.assets[i] for i in largest],
            "change": changes[np.arange(len(bars)), largest],
            "net_worth": curve.net_worth[bars + 1],
        },
        schema_overrides={"asset": pl.String},
    )


_MONEY, _SHARE = "{:,.2f}".format, "{:.2%}".format
# Column -> its name on the page, and how its values are written.
_EXECUTIONS = {
    "timestamp": ("Date", str),
    "side": ("Side", str),
    "shares": ("Shares", number),
    "fill_price": ("Fill price", lambda p: f"{p:,.2f}" if p >= 1000 else f"{p:#.6g}"),
    "value": ("Value", _MONEY),
    "cost": ("Cost", _MONEY),
    "position": ("Position after", number),
    "net_worth": ("Net worth", _MONEY),
}
_ROUND_TRIPS = {
    "entry": ("Entry", str),
    "exit": ("Exit", lambda stamp: stamp or "open"),
    "side": ("Side", str),
    "bars": ("Bars", "{:,d}".format),
    "return": ("Return", _SHARE),
    "profit": ("Profit", _MONEY),
}
_REBALANCES = {
    "timestamp": ("Date", str),
    "turnover": ("Turnover", _MONEY),
    "turnover_share": ("Of net worth", _SHARE),
    "cost": ("Cost", _MONEY),
    "asset": ("Largest change", str),
    "change": ("By", "{:+.2%}".format),
    "net_worth": ("Net worth", _MONEY),
}
_EXECUTION_WORDS = (
    "Bars on which something was bought or sold. Shares are those bought plus those sold; the fill "
    "price is that of the last fill, and position and net worth are those at the bar's close."
)
_ROUND_TRIP_WORDS = (
    f"From flat to flat, or to a position of the other sign; less than {FLAT:.0%} of net worth "
    "counts as flat. The profit is after costs, and the return is the profit over the net worth at "
    "entry, so that returns compound to that of the test."
)
_REBALANCE_WORDS = (
    "Bars on which the portfolio traded, with the asset whose weight changed most since the close "
    "before, drift by prices included."
)


def _shown(
    title: str,
    columns: dict[str, tuple[str, Any]],
    words: str,
    table: pl.DataFrame,
    file: str,
) -> list[str]:
    """Heading, explanation, the newest rows, and the button."""
    rows = [
        Row(cells[0], cells[1:])
        for values in table.select(*columns).tail(MOST_ROWS).reverse().iter_rows()
        for cells in [
            [
                _cell(value, write)
                for value, (_, write) in zip(values, columns.values(), strict=True)
            ]
        ]
    ]
    count = f"{table.height:,} in all, the newest first"
    if table.height > MOST_ROWS:
        count += f"; the newest {MOST_ROWS} are shown here, and all are in {file}"
    head = [name for name, _ in columns.values()]
    return [
        f"<h3>{title}</h3>",
        f"<p>{words}</p>",
        numbers_table(f"{title}: {count}.", head, rows, tall=True) if rows else "<p>None.</p>",
        download(f"Download {title.lower()} as CSV", file, csv_text(table)) if rows else "",
    ]


def _cell(value: Any, write: Any) -> str:
    return "n/a" if isinstance(value, float) and math.isnan(value) else write(value)


def _in_words(figures: TripFigures) -> dict[str, str]:
    shares = (figures.winners, figures.mean_win, figures.mean_loss)
    winners, mean_win, mean_loss = ("n/a" if x is None else f"{x:.2%}" for x in shares)
    longest = figures.longest_bars
    return {
        "Number": f"{figures.number:,}" + (", and one is still open" * figures.still_open),
        "Share of winners": winners,
        "Mean return of winners": mean_win,
        "Mean return of the others": mean_loss,
        "Longest": "n/a" if longest is None else f"{longest:,} bars",
    }
