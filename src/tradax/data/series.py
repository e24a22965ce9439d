"""What the columns of a table of bars mean, and every check of their values: a symbol's series."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tradax.data.table import (
    TIMESTAMP,
    Problems,
    Table,
    parse_numbers,
    parse_timestamps,
    plain_name,
    plain_values,
)

PRICES = ("open", "high", "low", "close")
SYMBOL = ("symbol", "ticker", "tic")
"""Names that the column of symbols may have."""

_ADJUSTED = ("adjclose", "adjustedclose", "closeadj", "closeadjusted")
_TOLERANCE = 1e-6  # of a price: what rounding in a vendor's file can do


@dataclass(frozen=True)
class Series:
    """One symbol's columns, each [T]."""

    timestamps: np.ndarray
    columns: dict[str, np.ndarray]
    signals: dict[str, np.ndarray]
    has_range: bool
    has_volume: bool


def parse_series(
    table: Table,
    problems: Problems,
    symbol: str,
    signals: Sequence[str] | None,
    closes_only: bool,
) -> dict[str, Series]:
    """Every symbol's columns, checked; problems are added, not raised."""
    frame, before = table.frame, problems.count
    by_name: dict[str, str] = {}
    for column in frame.columns:
        by_name.setdefault(plain_name(column), column)
    _check_meanings(frame.columns, problems)

    def find(names: Sequence[str]) -> str | None:
        return next((by_name[name] for name in names if name in by_name), None)

    stamp, symbol_column, adjusted = find(TIMESTAMP), find(SYMBOL), find(_ADJUSTED)
    needed = ("close",) if closes_only else (*PRICES, "volume")
    if closes_only and "close" not in by_name and adjusted:
        by_name["close"], adjusted = adjusted, None
    if stamp is None:
        problems.add("", f"no timestamp column; name it one of {', '.join(TIMESTAMP)}")
    for name in needed:
        if name not in by_name:
            hint = ""
            if (
                not closes_only
                and "close" in by_name
                and (name == "volume" or not any(n in by_name for n in ("open", "high", "low")))
            ):
                hint = ", or use --closes-only (closes_only=True) to train on closes alone"
            problems.add("", f"no column {name}; add it{hint}")
    used = {stamp, symbol_column, adjusted, *(by_name.get(n) for n in (*PRICES, "volume"))}
    chosen = []
    signals = [signals] if isinstance(signals, str) else signals
    for name in signals or ():
        column = name if name in frame.columns else by_name.get(plain_name(name))
        if column is None:
            problems.add("", f"no signal column {name}; columns are {', '.join(frame.columns)}")
        elif column in used:
            problems.add("", f"column {name} is no signal: it is read already; leave it out")
        else:
            chosen.append(column)
    if signals is None:
        chosen = [c for c in frame.columns if c not in used and _is_signal(table, c)]
    if frame.height == 0:
        problems.add("", "no rows; the file holds only a header")
    if problems.count > before or stamp is None:
        return {}

    timestamps = parse_timestamps(table, stamp, problems)
    wanted = {name: by_name[name] for name in needed}
    if closes_only and "volume" in by_name:
        wanted["volume"] = by_name["volume"]
    numbers = {name: parse_numbers(table, column, problems) for name, column in wanted.items()}
    if adjusted:
        numbers["adjusted"] = parse_numbers(table, adjusted, problems)
    extra = {column: parse_numbers(table, column, problems) for column in chosen}
    for name, column in (*wanted.items(), ("adjusted", adjusted)):
        if name in numbers and column is not None:
            _check_sign(table, problems, name, column, numbers[name])
    if not closes_only:
        _check_range(table, problems, wanted, numbers)
    groups = _groups(table, symbol_column, symbol, problems)
    for name, rows in groups.items():
        _check_order(table, problems, stamp, name if symbol_column else None, rows, timestamps)
    if problems.count:
        return {}

    if adjusted:
        ratio = numbers["adjusted"] / numbers["close"]
        for name in PRICES:
            if name in numbers:
                numbers[name] = numbers[name] * ratio
    close = numbers["close"]
    columns = {name: numbers.get(name, close) for name in PRICES}
    columns["volume"] = numbers.get("volume", np.zeros_like(close))
    return {
        name: Series(
            timestamps[rows],
            {key: values[rows] for key, values in columns.items()},
            {key: values[rows] for key, values in extra.items()},
            has_range=not closes_only,
            has_volume="volume" in numbers,
        )
        for name, rows in groups.items()
    }


def _check_meanings(columns: Sequence[str], problems: Problems) -> None:
    """No two columns may say the same thing: which of them is right is not ours to guess."""
    for names in (TIMESTAMP, SYMBOL, _ADJUSTED, *((name,) for name in (*PRICES, "volume"))):
        same = [column for column in columns if plain_name(column) in names]
        if len(same) > 1:
            hint = " or join them into one" if names == TIMESTAMP else ""
            problems.add("", f"columns {' and '.join(same)} mean the same; delete one{hint}")


def _check_sign(
    table: Table, problems: Problems, name: str, column: str, values: np.ndarray
) -> None:
    with np.errstate(invalid="ignore"):
        bad = values < 0 if name == "volume" else values <= 0
    what = "a volume cannot be negative" if name == "volume" else "a price must be above 0"
    rows = np.flatnonzero(bad & np.isfinite(values))
    problems.add_rows(
        table, rows, column, lambda row: f"{values[row]:g}: {what}; correct it or delete the row"
    )


def _check_range(
    table: Table, problems: Problems, columns: dict[str, str], numbers: dict[str, np.ndarray]
) -> None:
    high, low = numbers["high"], numbers["low"]
    slack = _TOLERANCE * np.abs(high)
    # What is not a price at all has been reported.
    known = np.logical_and.reduce([np.isfinite(numbers[n]) & (numbers[n] > 0) for n in PRICES])
    with np.errstate(invalid="ignore"):
        crossed = known & (high < low - slack)
    problems.add_rows(
        table,
        np.flatnonzero(crossed),
        columns["high"],
        lambda row: f"high {high[row]:g} is below low {low[row]:g}; correct one of them",
    )
    for name in ("open", "close"):
        values = numbers[name]
        with np.errstate(invalid="ignore"):
            outside = known & ((values > high + slack) | (values < low - slack)) & ~crossed
        problems.add_rows(
            table,
            np.flatnonzero(outside),
            columns[name],
            lambda row, name=name, values=values: (
                f"{name} {values[row]:g} is outside [low, high] = [{low[row]:g}, {high[row]:g}]; "
                "correct one of them"
            ),
        )


def _groups(
    table: Table, column: str | None, symbol: str, problems: Problems
) -> dict[str, np.ndarray]:
    """Symbol -> its rows, in the order of the file."""
    import polars as pl

    if column is None:
        return {symbol: np.arange(table.frame.height)}
    series = plain_values(table, column, problems, "names")
    if series is not None and series.dtype.is_temporal():
        problems.add(f"column {column}", f"holds {series.dtype}; it must hold names")
        series = None
    if series is None:
        return {}
    names = series.cast(pl.String).str.strip_chars().fill_null("")
    empty = np.flatnonzero((names == "").to_numpy())
    problems.add_rows(table, empty, column, lambda row: "no symbol; name it or delete the row")
    rows = pl.DataFrame({"name": names}).with_row_index()
    groups = rows.group_by("name", maintain_order=True).agg("index")
    return {
        name: indices.to_numpy().astype(np.int64)
        for name, indices in zip(groups["name"], groups["index"], strict=True)
        if name
    }


def _check_order(
    table: Table,
    problems: Problems,
    column: str,
    symbol: str | None,
    rows: np.ndarray,
    timestamps: np.ndarray,
) -> None:
    stamps = timestamps[rows]
    of = f" of {symbol}" if symbol else ""
    step = np.diff(stamps.astype(np.int64))
    known = ~np.isnat(stamps[1:]) & ~np.isnat(stamps[:-1])

    def say(where: np.ndarray, what: str) -> None:
        problems.add_rows(table, where, column, lambda row: f"{short(timestamps[row])}{of} {what}")

    say(rows[1:][known & (step == 0)], "stands twice; delete one of the rows")
    say(rows[1:][known & (step < 0)], "comes after a later time; sort the rows by time")


def _is_signal(table: Table, column: str) -> bool:
    """Whether an extra column is a signal: most of its values are numbers.

    Not the row numbers that a data frame left in its CSV, in a column without a name.
    """
    import polars as pl

    series = table.frame[column].drop_nulls()
    if series.dtype == pl.String:
        series = series.str.strip_chars()
        series = series.filter(series != "")
    elif not series.dtype.is_numeric():
        return False
    numbers = series.cast(pl.Float64, strict=False)
    if len(numbers) == 0 or 2 * numbers.null_count() > len(numbers):
        return False
    nameless = plain_name(column) in ("", "index") or plain_name(column).startswith("unnamed")
    return not (nameless and (numbers == numbers.round()).all())


def short(stamp: np.datetime64) -> str:
    """A timestamp without a midnight."""
    return str(stamp.astype("datetime64[s]")).removesuffix("T00:00:00")
