"""Read and check price bars: CSV, Parquet, polars and pandas frames.

Nothing is repaired in silence. Every problem is a line that names file, row and column, says what
is wrong and what to do.
"""

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tradax.data.table import (
    TIMESTAMP,
    Problems,
    Table,
    from_pandas,
    parse_numbers,
    parse_timestamps,
    plain_name,
    read_table,
)
from tradax.errors import DataError

PRICES = ("open", "high", "low", "close")

_SYMBOL = ("symbol", "ticker", "tic")
_ADJUSTED = ("adjclose", "adjustedclose", "closeadj", "closeadjusted")
_TOLERANCE = 1e-6  # of a price: what rounding in a vendor's file can do
_SHOWN = 20


@dataclass(frozen=True)
class Bars:
    """Price bars of S symbols on one calendar of T timestamps."""

    symbols: tuple[str, ...]
    timestamps: np.ndarray
    """[T] datetime64[us], strictly increasing; UTC where the data gave a zone."""
    open: np.ndarray
    """[S, T], like the next four."""
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    signals: dict[str, np.ndarray]
    """The user's own columns, each [S, T]."""
    has_range: bool
    """False where only closes are known; open, high and low then equal them."""
    has_volume: bool
    source: str
    """Sample name or file names."""

    def __len__(self) -> int:
        return len(self.timestamps)

    def select(self, symbols: Sequence[str]) -> "Bars":
        """Only these symbols, in this order.

        Raises:
            DataError: a symbol is not there; the message lists near ones.
        """
        for symbol in symbols:
            if symbol not in self.symbols:
                close = difflib.get_close_matches(symbol, self.symbols, n=3) or self.symbols[:20]
                raise DataError(
                    f"{self.source}: no symbol {symbol}; did you mean {', '.join(close)}?"
                )
        index = [self.symbols.index(symbol) for symbol in symbols]
        series = {name: getattr(self, name)[index] for name in (*PRICES, "volume")}
        signals = {name: values[index] for name, values in self.signals.items()}
        return replace(self, symbols=tuple(symbols), signals=signals, **series)

    @property
    def sha256(self) -> str:
        """Of symbols, timestamps and all values."""
        digest = hashlib.sha256(repr((self.symbols, sorted(self.signals))).encode())
        series = [getattr(self, name) for name in (*PRICES, "volume")]
        series += [self.signals[name] for name in sorted(self.signals)]
        for values in (self.timestamps.astype(np.int64), *series):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    @property
    def periods_per_year(self) -> float:
        """Bars a year: 252 for business days, 365 for calendar days, 52 weekly, 12 monthly.

        Intraday: the bars that a day has at the median, times 252, or 365 where weekends trade.
        """
        days = self.timestamps.astype("datetime64[D]")
        if len(days) < 3:
            return 252.0
        # In UTC, Tokyo's week begins on Sunday and New York's futures end theirs on Friday; only
        # a market that never closes has Saturdays and Sundays.
        weekday = (days.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
        always = min(np.mean(weekday == 5), np.mean(weekday == 6)) > 0.05
        of_year = 365.0 if always else 252.0
        unique, counts = np.unique(days, return_counts=True)
        per_day = float(np.median(counts))
        if per_day > 1:
            return of_year * per_day
        gap = float(np.median(np.diff(unique).astype(float)))
        for longest, periods in ((2, of_year), (8, 52.0), (32, 12.0), (95, 4.0)):
            if gap <= longest:
                return periods
        return 1.0

    def write_parquet(self, path: Path | str) -> None:
        """One long file with a symbol column, which `read_bars` reads."""
        import polars as pl

        columns: dict[str, Any] = {
            "symbol": np.repeat(np.array(self.symbols), len(self)),
            "timestamp": np.tile(self.timestamps, len(self.symbols)),
        }
        names = (*(PRICES if self.has_range else ("close",)), *(("volume",) * self.has_volume))
        columns |= {name: getattr(self, name).ravel() for name in names}
        columns |= {name: values.ravel() for name, values in self.signals.items()}
        pl.DataFrame(columns).write_parquet(path)


def read_bars(
    paths: Sequence[str | Path],
    *,
    symbols: Sequence[str] | None = None,
    signals: Sequence[str] | None = None,
    closes_only: bool = False,
    intersection: bool = False,
) -> Bars:
    """Bars from CSV or Parquet: one file a symbol (its name), or one long file for several.

    Column names are matched without regard to case, spaces and underscores. An adjusted close
    rescales open, high, low and close.

    Args:
        signals: columns to pass through as features; None: all that are numeric.
        closes_only: the files have no open, high and low; volume is optional then.
        intersection: keep only the timestamps that all symbols share.

    Raises:
        DataError: all problems of the first bad file, at most 20 of them.
    """
    paths = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    series: dict[str, _Series] = {}
    for path in paths:
        problems = Problems(str(path), limit=_SHOWN)
        table = read_table(path, problems)
        found = _parse(table, problems, path.stem, signals, closes_only) if table else {}
        problems.raise_if_any()
        for symbol in found:
            if symbol in series:
                raise DataError(f"{path}: symbol {symbol} is in another file too; keep one of them")
        series |= found
    source = ", ".join(path.name for path in paths)
    return _assemble(series, source, symbols, intersection)


def bars_from_frame(
    frame: Any,
    *,
    symbols: Sequence[str] | None = None,
    signals: Sequence[str] | None = None,
    closes_only: bool = False,
    intersection: bool = False,
    source: str = "frame",
) -> Bars:
    """As `read_bars`, from a polars or pandas frame (a DatetimeIndex is the timestamp).

    Raises:
        DataError: all problems of the frame, at most 20 of them.
    """
    import polars as pl

    if not isinstance(frame, pl.DataFrame):
        if not (hasattr(frame, "index") and hasattr(frame, "reset_index")):
            raise DataError(f"data is a {type(frame).__name__}; give a polars or pandas DataFrame")
        frame = from_pandas(frame, source)
    problems = Problems(source, limit=_SHOWN)
    table = Table(frame, lambda i: f"row {i + 1}")
    series = _parse(table, problems, source, signals, closes_only)
    problems.raise_if_any()
    return _assemble(series, source, symbols, intersection)


def check_file(path: str | Path, *, closes_only: bool = False) -> list[str]:
    """All problems of a file (at most 1,000), one line each; none if it can be used."""
    path = Path(path)
    problems = Problems(str(path), limit=1_000)
    table = read_table(path, problems)
    found = _parse(table, problems, path.stem, None, closes_only) if table else {}
    if found:
        try:
            _assemble(found, str(path), None, intersection=False)
        except DataError as error:
            return list(error.problems)
    return problems.lines


@dataclass(frozen=True)
class _Series:
    """One symbol's columns, each [T]."""

    timestamps: np.ndarray
    columns: dict[str, np.ndarray]
    signals: dict[str, np.ndarray]
    has_range: bool
    has_volume: bool


def _parse(
    table: Table,
    problems: Problems,
    symbol: str,
    signals: Sequence[str] | None,
    closes_only: bool,
) -> dict[str, _Series]:
    """Every symbol's columns, checked; problems are added, not raised."""
    frame, before = table.frame, problems.count
    by_name: dict[str, str] = {}
    for column in frame.columns:
        by_name.setdefault(plain_name(column), column)
    _check_meanings(frame.columns, problems)

    def find(names: Sequence[str]) -> str | None:
        return next((by_name[name] for name in names if name in by_name), None)

    stamp, symbol_column, adjusted = find(TIMESTAMP), find(_SYMBOL), find(_ADJUSTED)
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
        name: _Series(
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
    for names in (TIMESTAMP, _SYMBOL, _ADJUSTED, *((name,) for name in (*PRICES, "volume"))):
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
    names = table.frame[column].cast(pl.String).str.strip_chars().fill_null("")
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
        problems.add_rows(table, where, column, lambda row: f"{_short(timestamps[row])}{of} {what}")

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


def _assemble(
    series: dict[str, _Series], source: str, symbols: Sequence[str] | None, intersection: bool
) -> Bars:
    """Put symbols on one calendar; different calendars are an error unless asked for."""
    if symbols is not None:
        unknown = [s for s in symbols if s not in series]
        if unknown:
            close = difflib.get_close_matches(unknown[0], series, n=3) or list(series)[:20]
            raise DataError(f"{source}: no symbol {unknown[0]}; did you mean {', '.join(close)}?")
        series = {symbol: series[symbol] for symbol in symbols}
    if not series:
        raise DataError("no data given; name at least one file and one symbol")
    names = list(series)
    first = series[names[0]]
    stamps = first.timestamps
    for name in names[1:]:
        stamps = np.intersect1d(stamps, series[name].timestamps)
    for name in names:
        own = series[name].timestamps
        if len(own) == len(stamps) or intersection:
            continue
        raise DataError(
            f"{source}: {names[0]} has {len(first.timestamps)} rows from "
            f"{_short(first.timestamps[0])} to {_short(first.timestamps[-1])}, but all "
            f"{len(names)} symbols share only {len(stamps)} timestamps ({name} has {len(own)}); "
            "use --intersection "
            "(intersection=True) to keep those, or give files of one calendar"
        )
    if len(stamps) == 0:
        raise DataError(f"{source}: the symbols share no timestamp")
    kept = {name: np.searchsorted(s.timestamps, stamps) for name, s in series.items()}
    if any(s.signals.keys() != first.signals.keys() for s in series.values()):
        raise DataError(f"{source}: the symbols have different signal columns; name them alike")

    def stack(get: Callable[[_Series], np.ndarray]) -> np.ndarray:
        return np.stack([get(series[name])[kept[name]] for name in names])

    return Bars(
        tuple(names),
        stamps,
        *(stack(lambda s, c=column: s.columns[c]) for column in (*PRICES, "volume")),
        signals={key: stack(lambda s, k=key: s.signals[k]) for key in first.signals},
        has_range=all(s.has_range for s in series.values()),
        has_volume=all(s.has_volume for s in series.values()),
        source=source,
    )


def _short(stamp: np.datetime64) -> str:
    """A timestamp without a midnight."""
    return str(stamp.astype("datetime64[s]")).removesuffix("T00:00:00")
