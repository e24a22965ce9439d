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

from tradax.data.series import PRICES, Series, parse_series, short
from tradax.data.table import Problems, Table, from_pandas, read_table
from tradax.errors import DataError

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
        check_once(symbols)
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

        Days of a market that opens on Sundays and not on Saturdays: 313. Intraday: the bars that a
        day has at the median, times 252, or 365 where weekends trade. Anything else by the median
        time between two bars; every second business day is 126.
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
        gap = float(np.median(np.diff(self.timestamps).astype("timedelta64[s]").astype(float)))
        gap /= 86_400.0
        for usual, periods in ((7.0, 52.0), (30.44, 12.0), (91.3, 4.0), (365.25, 1.0)):
            if abs(gap / usual - 1.0) < 0.15:
                return periods
        if gap < 6 and not always:
            business = float(np.median(np.busday_count(unique[:-1], unique[1:])))
            if np.mean(weekday == 6) > 0.12 and np.mean(weekday == 4) > 0.12:
                of_year = 313.0  # Sunday to Friday, where Sunday is not the first of five days
            return of_year / max(business, 1.0)
        return 365.0 if abs(gap - 1.0) < 0.15 else 365.25 / gap

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
    series: dict[str, Series] = {}
    for path in paths:
        problems = Problems(str(path), limit=_SHOWN)
        table = read_table(path, problems)
        found = parse_series(table, problems, path.stem, signals, closes_only) if table else {}
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
    series = parse_series(table, problems, source, signals, closes_only)
    problems.raise_if_any()
    return _assemble(series, source, symbols, intersection)


def check_file(path: str | Path, *, closes_only: bool = False) -> list[str]:
    """All problems of a file (at most 1,000), one line each; none if it can be used."""
    path = Path(path)
    problems = Problems(str(path), limit=1_000)
    table = read_table(path, problems)
    found = parse_series(table, problems, path.stem, None, closes_only) if table else {}
    if found:
        try:
            _assemble(found, str(path), None, intersection=False)
        except DataError as error:
            return list(error.problems)
    return problems.lines


def check_once(symbols: Sequence[str]) -> None:
    """Raises DataError for a symbol that is asked for twice."""
    twice = [symbol for i, symbol in enumerate(symbols) if symbol in symbols[:i]]
    if twice:
        raise DataError(f"symbol {twice[0]} is asked for twice; name each once")


def _assemble(
    series: dict[str, Series], source: str, symbols: Sequence[str] | None, intersection: bool
) -> Bars:
    """Put symbols on one calendar; different calendars are an error unless asked for."""
    if symbols is not None:
        check_once(symbols)
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
            f"{short(first.timestamps[0])} to {short(first.timestamps[-1])}, but all "
            f"{len(names)} symbols share only {len(stamps)} timestamps ({name} has {len(own)}); "
            "use --intersection "
            "(intersection=True) to keep those, or give files of one calendar"
        )
    if len(stamps) == 0:
        raise DataError(f"{source}: the symbols share no timestamp")
    kept = {name: np.searchsorted(s.timestamps, stamps) for name, s in series.items()}
    if any(s.signals.keys() != first.signals.keys() for s in series.values()):
        raise DataError(f"{source}: the symbols have different signal columns; name them alike")

    def stack(get: Callable[[Series], np.ndarray]) -> np.ndarray:
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
