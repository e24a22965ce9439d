"""Read and check price bars: CSV, Parquet, polars and pandas frames.

Nothing is repaired in silence. Every problem is a line that names file, row and column, says what
is wrong and what to do.
"""

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tradax.errors import DataError

if TYPE_CHECKING:
    import polars as pl

PRICES = ("open", "high", "low", "close")

_TIMESTAMP = ("timestamp", "date", "datetime", "time")
_SYMBOL = ("symbol", "ticker", "tic")
_ADJUSTED = ("adjclose", "adjustedclose", "closeadj", "closeadjusted")
_TOLERANCE = 1e-6  # of a price: what rounding in a vendor's file can do
_SHOWN = 20

_DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d")
_TIME_FORMATS = ("%H:%M", "%H:%M:%S", "%H:%M:%S%.f", "%H:%M:%S%.f%z", "%H:%M%z")


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
        weekends = np.mean(~np.is_busday(days)) > 0.15
        of_year = 365.0 if weekends else 252.0
        unique, counts = np.unique(days, return_counts=True)
        if len(unique) < len(days):
            return of_year * float(np.median(counts))
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
    series: dict[str, _Series] = {}
    for path in map(Path, paths):
        problems = _Problems(str(path), limit=_SHOWN)
        table = _read_table(path, problems)
        found = _parse(table, problems, path.stem, signals, closes_only) if table else {}
        problems.raise_if_any()
        for symbol in found:
            if symbol in series:
                raise DataError(f"{path}: symbol {symbol} is in another file too; keep one of them")
        series |= found
    source = ", ".join(Path(path).name for path in paths)
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
        if "datetime" in str(frame.index.dtype) or frame.index.name is not None:
            frame = frame.rename_axis(frame.index.name or "timestamp").reset_index()
        frame = pl.from_pandas(frame)
    problems = _Problems(source, limit=_SHOWN)
    table = _Table(frame, lambda i: f"row {i + 1}")
    series = _parse(table, problems, source, signals, closes_only)
    problems.raise_if_any()
    return _assemble(series, source, symbols, intersection)


def check_file(path: str | Path, *, closes_only: bool = False) -> list[str]:
    """All problems of a file (at most 1,000), one line each; none if it can be used."""
    path = Path(path)
    problems = _Problems(str(path), limit=1_000)
    table = _read_table(path, problems)
    if table:
        _parse(table, problems, path.stem, None, closes_only)
    return problems.lines


@dataclass(frozen=True)
class _Table:
    frame: "pl.DataFrame"
    row_name: Callable[[int], str]


@dataclass(frozen=True)
class _Series:
    """One symbol's columns, each [T]."""

    timestamps: np.ndarray
    columns: dict[str, np.ndarray]
    signals: dict[str, np.ndarray]
    has_range: bool
    has_volume: bool


class _Problems:
    def __init__(self, source: str, limit: int):
        self.source, self.limit, self.count = source, limit, 0
        self._lines: list[str] = []

    def add(self, where: str, message: str) -> None:
        self.count += 1
        if len(self._lines) < self.limit:
            self._lines.append(f"{self.source}{', ' if where else ''}{where}: {message}")

    def add_rows(
        self, table: _Table, rows: np.ndarray, column: str, message: Callable[[int], str]
    ) -> None:
        """One problem for each of `rows`."""
        room = max(self.limit - len(self._lines), 0)
        for row in rows[:room]:
            self.add(f"{table.row_name(int(row))}, column {column}", message(int(row)))
        self.count += max(len(rows) - room, 0)

    @property
    def lines(self) -> list[str]:
        more = self.count - len(self._lines)
        return [*self._lines, *([f"{self.source}: and {more} more"] if more else [])]

    def raise_if_any(self) -> None:
        if self.count:
            raise DataError(*self.lines)


def _read_table(path: Path, problems: _Problems) -> _Table | None:
    import polars as pl

    if not path.is_file():
        problems.add("", "no such file; check the name")
        return None
    if path.stat().st_size == 0:
        problems.add("", "the file is empty")
        return None
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _Table(pl.read_parquet(path), lambda i: f"row {i + 1}")
        with path.open("rb") as file:
            header = file.readline().decode("utf-8-sig").strip().split(",")
        names = [name.strip().strip('"') for name in header]
        for name in {n for n in names if names.count(n) > 1 and n}:
            problems.add("line 1", f"two columns are called {name}; rename or delete one")
        if problems.count:
            return None
        # As text, so that the first bad number can be named; line 1 is the header.
        frame = pl.read_csv(path, infer_schema=False)
        return _Table(frame, lambda i: f"line {i + 2}")
    except UnicodeDecodeError:
        problems.add("", "the text is not UTF-8; save it as UTF-8")
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        kind = "Parquet" if path.suffix.lower() in (".parquet", ".pq") else "CSV"
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        text = "the text is not UTF-8" if "utf-8" in text.lower() else text
        problems.add("", f"cannot be read as {kind} ({text}); write it anew")
    return None


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _parse(
    table: _Table,
    problems: _Problems,
    symbol: str,
    signals: Sequence[str] | None,
    closes_only: bool,
) -> dict[str, _Series]:
    """Every symbol's columns, checked; problems are added, not raised."""
    frame = table.frame
    by_name: dict[str, str] = {}
    for column in frame.columns:
        plain = _plain(column)
        if plain in by_name and plain in (*PRICES, "volume", *_TIMESTAMP):
            problems.add("", f"columns {by_name[plain]} and {column} mean the same; delete one")
        by_name.setdefault(plain, column)

    def find(names: Sequence[str]) -> str | None:
        return next((by_name[name] for name in names if name in by_name), None)

    stamp, symbol_column, adjusted = find(_TIMESTAMP), find(_SYMBOL), find(_ADJUSTED)
    needed = ("close",) if closes_only else (*PRICES, "volume")
    if closes_only and "close" not in by_name and adjusted:
        by_name["close"] = adjusted
    if stamp is None:
        problems.add("", f"no timestamp column; name it one of {', '.join(_TIMESTAMP)}")
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
    for name in signals or ():
        if _plain(name) not in by_name:
            problems.add("", f"no signal column {name}; columns are {', '.join(frame.columns)}")
    if frame.height == 0:
        problems.add("", "no rows; the file holds only a header")
    if problems.count or stamp is None:
        return {}

    timestamps = _timestamps(table, stamp, problems)
    wanted = {name: by_name[name] for name in needed}
    if closes_only and "volume" in by_name:
        wanted["volume"] = by_name["volume"]
    numbers = {name: _numbers(table, column, problems) for name, column in wanted.items()}
    if adjusted:
        numbers["adjusted"] = _numbers(table, adjusted, problems)
    used = {stamp, symbol_column, adjusted, *by_name.values()} - set(frame.columns)
    used |= {stamp, symbol_column, adjusted, *(by_name.get(n) for n in (*PRICES, "volume"))}
    extra: dict[str, np.ndarray] = {}
    for column in frame.columns:
        chosen = signals is None or _plain(column) in {_plain(s) for s in signals}
        if column in used or not chosen or _is_index(table, column):
            continue
        if signals is not None or _looks_numeric(table, column):
            extra[column] = _numbers(table, column, problems)
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


def _timestamps(table: _Table, column: str, problems: _Problems) -> np.ndarray:
    """[rows] datetime64[us], UTC where a zone was given; NaT where a problem was added."""
    import polars as pl

    series = table.frame[column]
    text = series.cast(pl.String, strict=False)
    if series.dtype == pl.Date or isinstance(series.dtype, pl.Datetime):
        if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone:
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        parsed = series.cast(pl.Datetime("us"))
    elif series.dtype.is_numeric():
        parsed = None
    else:
        text = text.str.strip_chars().str.replace(r"[Zz]$", "+00:00")
        parsed = _parse_text(text)
    if parsed is None or parsed.null_count() == len(parsed):
        unix = text.cast(pl.Float64, strict=False)
        size = float(np.nanmedian(np.abs(unix.to_numpy()))) if unix.null_count() < len(unix) else 0
        if 1e8 < size < 1e20:
            # Seconds, milliseconds, microseconds or nanoseconds since 1970, by their size.
            units = ((1e11, 1e6), (1e14, 1e3), (1e17, 1), (1e20, 1e-3))
            scale = next(factor for limit, factor in units if size < limit)
            parsed = (unix * scale).cast(pl.Int64).cast(pl.Datetime("us"))
    if parsed is None:
        parsed = pl.Series([None] * len(text), dtype=pl.Datetime("us"))
    bad = np.flatnonzero(parsed.is_null().to_numpy())
    problems.add_rows(
        table,
        bad,
        column,
        lambda row: (
            f"{series[row]!r} is not a date; write it as 2024-12-31 or 2024-12-31T16:00:00+00:00"
        ),
    )
    return parsed.to_numpy().astype("datetime64[us]")


def _parse_text(text: "pl.Series") -> "pl.Series":
    """By the format that reads most of the column. Whether days or months come first in
    01/02/2024 is never guessed."""
    import polars as pl

    best = None
    formats = [(date, pl.Date) for date in _DATE_FORMATS]
    formats += [
        (date + separator + time, pl.Datetime("us", "UTC" if "%z" in time else None))
        for date in _DATE_FORMATS[:2]
        for separator in (" ", "T")
        for time in _TIME_FORMATS
    ]
    for form, kind in formats:
        parsed = text.str.strptime(kind, form, strict=False)
        if isinstance(kind, pl.Datetime) and kind.time_zone:
            parsed = parsed.dt.replace_time_zone(None)
        parsed = parsed.cast(pl.Datetime("us"))
        if best is None or parsed.null_count() < best.null_count():
            best = parsed
        if best.null_count() == 0:
            break
    assert best is not None
    if best.null_count():
        # Taken only where the days tell which of the two is meant.
        slashed = [text.str.strptime(pl.Date, f, strict=False) for f in ("%m/%d/%Y", "%d/%m/%Y")]
        sure = [s for s in slashed if s.null_count() == 0]
        if len(sure) == 1:
            return sure[0].cast(pl.Datetime("us"))
    return best


def _numbers(table: _Table, column: str, problems: _Problems) -> np.ndarray:
    """[rows] float64; problems for text, gaps, NaN and infinities."""
    import polars as pl

    series = table.frame[column]
    text = series.str.strip_chars() if series.dtype == pl.String else series
    values = text.cast(pl.Float64, strict=False).to_numpy()
    finite = np.isfinite(values)
    if not finite.all():

        def message(row: int) -> str:
            original = series[row]
            if original is None or original == "":
                return "the value is missing; fill it or delete the row"
            if isinstance(original, str) and original.strip().lower().strip("+-") not in (
                "nan",
                "inf",
                "infinity",
            ):
                return f"{original!r} is not a number; use digits and a decimal point"
            return f"the value is {original}; fill it with a finite number or delete the row"

        problems.add_rows(table, np.flatnonzero(~finite), column, message)
    return values


def _check_sign(
    table: _Table, problems: _Problems, name: str, column: str, values: np.ndarray
) -> None:
    with np.errstate(invalid="ignore"):
        bad = values < 0 if name == "volume" else values <= 0
    what = "a volume cannot be negative" if name == "volume" else "a price must be above 0"
    rows = np.flatnonzero(bad & np.isfinite(values))
    problems.add_rows(
        table, rows, column, lambda row: f"{values[row]:g}: {what}; correct it or delete the row"
    )


def _check_range(
    table: _Table, problems: _Problems, columns: dict[str, str], numbers: dict[str, np.ndarray]
) -> None:
    high, low = numbers["high"], numbers["low"]
    slack = _TOLERANCE * np.abs(high)
    with np.errstate(invalid="ignore"):
        crossed = high < low - slack
    problems.add_rows(
        table,
        np.flatnonzero(crossed),
        columns["high"],
        lambda row: f"high {high[row]:g} is below low {low[row]:g}; correct one of them",
    )
    for name in ("open", "close"):
        values = numbers[name]
        with np.errstate(invalid="ignore"):
            outside = ((values > high + slack) | (values < low - slack)) & ~crossed
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
    table: _Table, column: str | None, symbol: str, problems: _Problems
) -> dict[str, np.ndarray]:
    """Symbol -> its rows, in the order of the file."""
    import polars as pl

    if column is None:
        return {symbol: np.arange(table.frame.height)}
    names = table.frame[column].cast(pl.String)
    empty = np.flatnonzero((names.is_null() | (names.str.strip_chars() == "")).to_numpy())
    problems.add_rows(table, empty, column, lambda row: "no symbol; name it or delete the row")
    codes = names.fill_null("").to_numpy()
    return {
        str(name): np.flatnonzero(codes == name) for name in dict.fromkeys(codes.tolist()) if name
    }


def _check_order(
    table: _Table,
    problems: _Problems,
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


def _looks_numeric(table: _Table, column: str) -> bool:
    """Whether an extra column is a signal: its first value is a number."""
    import polars as pl

    series = table.frame[column]
    if series.dtype != pl.String:
        return series.dtype.is_numeric()
    first = series.drop_nulls().head(1).str.strip_chars().cast(pl.Float64, strict=False)
    return len(first) == 1 and first.null_count() == 0


def _is_index(table: _Table, column: str) -> bool:
    """Whether a column without a name is the row number that a data frame left in its CSV."""
    return _plain(column) in ("", "index") or _plain(column).startswith("unnamed")


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
    signals = {tuple(s.signals) for s in series.values()}
    if len(signals) > 1:
        raise DataError(f"{source}: the symbols have different signal columns; name them alike")

    def stack(get: Callable[[_Series], np.ndarray]) -> np.ndarray:
        return np.stack([get(series[name])[kept[name]] for name in names])

    return Bars(
        tuple(names),
        stamps,
        *(stack(lambda s, c=column: s.columns[c]) for column in (*PRICES, "volume")),
        signals={key: stack(lambda s, k=key: s.signals[k]) for key in signals.pop()},
        has_range=all(s.has_range for s in series.values()),
        has_volume=all(s.has_volume for s in series.values()),
        source=source,
    )


def _short(stamp: np.datetime64) -> str:
    """A timestamp without a midnight."""
    return str(stamp.astype("datetime64[s]")).removesuffix("T00:00:00")
