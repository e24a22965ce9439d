"""A table of prices before it is bars: reading it, and reading its cells as numbers and times.

Whatever cannot be read is a line in `Problems` that names the row and the column as a person sees
them in an editor.
"""

import csv
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tradax.errors import DataError

if TYPE_CHECKING:
    import polars as pl

TIMESTAMP = ("timestamp", "date", "datetime", "time")
"""Names that the column of times may have."""

_MOST_ANNOUNCED = 2**29  # bytes; smaller tables are read whatever their file's size
_MOST_RATIO = 100  # of memory to file, above that
_ERA_SECONDS = (-30_610_224_000, 253_402_300_799)  # years 1000 to 9999, since 1970
_DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d")
_TIME_FORMATS = ("%H:%M", "%H:%M:%S", "%H:%M:%S%.f", "%H:%M:%S%.f%z", "%H:%M%z")


@dataclass(frozen=True)
class Table:
    frame: "pl.DataFrame"
    row_name: Callable[[int], str]


class Problems:
    def __init__(self, source: str, limit: int):
        self.source, self.limit, self.count = source, limit, 0
        self._lines: list[str] = []

    def add(self, where: str, message: str) -> None:
        self.count += 1
        if len(self._lines) < self.limit:
            self._lines.append(f"{self.source}{', ' if where else ''}{where}: {message}")

    def add_rows(
        self, table: Table, rows: np.ndarray, column: str, message: Callable[[int], str]
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


def read_table(path: Path, problems: Problems) -> Table | None:
    import polars as pl

    if not path.is_file():
        problems.add("", "no such file; check the name")
        return None
    if path.stat().st_size == 0:
        problems.add("", "the file is empty")
        return None
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    try:
        if is_parquet:
            return _read_parquet(path)
        with path.open("rb") as file:
            header = file.readline().decode("utf-8-sig").strip()
            n_lines = 1 + sum(1 for _ in file)
        _check_header(header, problems)
        if problems.count:
            return None
        # As text, so that the first bad number can be named.
        frame = pl.read_csv(path, infer_schema=False, glob=False)
        return _without_blank_lines(frame, n_lines, problems)
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,  # polars, on some damaged Parquet files
        OSError,
        ValueError,
        csv.Error,
    ) as error:
        if not is_parquet and (found := _bad_line(path)):
            problems.add(*found)
            return None
        kind = "Parquet" if is_parquet else "CSV"
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        problems.add("", f"cannot be read as {kind} ({text}); write it anew")
    return None


def _read_parquet(path: Path) -> Table:
    """Raises ValueError where the file announces far more than it can hold, or holds less."""
    import polars as pl
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            announced = _announced_bytes(file.metadata)
            size = path.stat().st_size
            if announced > max(_MOST_ANNOUNCED, _MOST_RATIO * size):
                raise ValueError(f"{size:,} bytes announce {announced:,}, which prices never do")
            # Not by polars, which on some damaged files ends the whole process.
            table = file.read()
            table.validate(full=True)
    except (pyarrow.ArrowException, MemoryError, OverflowError) as error:
        raise ValueError(str(error)) from None
    frame = pl.DataFrame(pl.from_arrow(table))
    if any(len(series) != frame.height for series in frame):
        raise ValueError("its columns are of different lengths")
    return Table(frame, lambda i: f"row {i + 1}")


def _announced_bytes(metadata: Any) -> int:
    """Memory that a Parquet file's columns take, by its own account."""
    columns = [metadata.schema.column(i) for i in range(metadata.num_columns)]
    if all(column.max_repetition_level == 0 for column in columns):
        return 8 * metadata.num_rows * metadata.num_columns
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    return 8 * sum(group.column(i).num_values for group in groups for i in range(group.num_columns))


def _bad_line(path: Path) -> tuple[str, str] | None:
    """The first line, and what is wrong with it, of a CSV file that could not be read."""
    expected = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                width = len(next(csv.reader([line.decode("utf-8")]), []))
            except UnicodeDecodeError:
                return f"line {number}", "the text is not UTF-8; save the file as UTF-8"
            except csv.Error as error:
                return f"line {number}", f"{error}; write one row a line, of plain numbers"
            if number == 1:
                expected = width
            if width > expected:
                return f"line {number}", (
                    f"{width} values where the header has {expected}; delete the extra ones, and "
                    "write numbers without commas"
                )
    return None


def _check_header(header: str, problems: Problems) -> None:
    if not header:
        problems.add("line 1", "the line is blank; the first line must name the columns")
    # polars unpacks what begins like an archive, without a limit on its size.
    if any(character < " " and character not in "\t\r" for character in header):
        problems.add("line 1", "holds control characters; write the table as plain text")
        return
    names = [name.strip() for name in next(csv.reader([header]), [])]
    for name in dict.fromkeys(n for n in names if names.count(n) > 1 and n):
        problems.add("line 1", f"two columns are called {name}; rename or delete one")
    for character, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and character in header:
            problems.add("line 1", f"columns are separated by {word}; write commas")


def _without_blank_lines(frame: "pl.DataFrame", n_lines: int, problems: Problems) -> Table:
    """Blank lines at the end are no rows; one before the end is a problem."""
    import polars as pl

    # A quoted cell may hold a line end: then lines cannot be counted, and rows are.
    word, first = ("line", 2) if frame.height + 1 == n_lines else ("row", 1)
    filled = frame.select(pl.any_horizontal(pl.all().is_not_null())).to_series().to_numpy()
    kept = np.flatnonzero(filled)
    blank = np.flatnonzero(~filled)
    for row in blank[blank < kept.max(initial=0)]:
        problems.add(f"{word} {row + first}", "the line is blank; delete it")
    return Table(frame[kept], lambda i: f"{word} {kept[i] + first}")


def from_pandas(frame: Any, source: str) -> "pl.DataFrame":
    import polars as pl

    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"{source}: two columns are called {twice}; rename or delete one")
    named = any(plain_name(str(name)) in TIMESTAMP for name in frame.index.names)
    if named:
        frame = frame.reset_index()
    elif "datetime" in str(frame.index.dtype):
        frame = frame.rename_axis("timestamp").reset_index()
    try:
        return pl.from_pandas(frame)
    except (TypeError, ValueError) as error:  # pyarrow's errors are among these
        text = str(error).splitlines()[0]
        raise DataError(f"{source}: {text}; let every column hold values of one kind") from None


def parse_timestamps(table: Table, column: str, problems: Problems) -> np.ndarray:
    """[rows] datetime64[us], UTC where a zone was given; NaT where a problem was added."""
    import polars as pl

    series = plain_values(table, column, problems, "dates")
    if series is None:
        return np.full(table.frame.height, np.datetime64("NaT", "us"))
    temporal = series.dtype.is_temporal()
    # polars cannot write times beyond its years as text, and ends in a panic.
    text = (series.to_physical() if temporal else series).cast(pl.String, strict=False)
    if temporal:
        series = _of_this_era(series)
        if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone:
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        parsed = series.cast(pl.Datetime("us"))
    elif series.dtype.is_numeric():
        parsed = None
    else:
        text = text.str.strip_chars().str.replace(r"[Zz]$", "+00:00")
        parsed = _parse_text(text)
    if parsed is None or (parsed.null_count() == len(parsed) and not temporal):
        unix = text.cast(pl.Float64, strict=False).fill_nan(None)
        unix = unix.set(unix.is_infinite(), None)
        size = float(np.nanmedian(np.abs(unix.to_numpy()))) if unix.null_count() < len(unix) else 0
        if 1e8 < size < 1e20:
            # Seconds, milliseconds, microseconds or nanoseconds since 1970, by their size.
            units = ((1e11, 1e6), (1e14, 1e3), (1e17, 1), (1e20, 1e-3))
            scale = next(factor for limit, factor in units if size < limit)
            parsed = (unix * scale).round().cast(pl.Int64, strict=False).cast(pl.Datetime("us"))
    if parsed is None:
        parsed = pl.Series([None] * len(text), dtype=pl.Datetime("us"))
    bad = np.flatnonzero(parsed.is_null().to_numpy())
    problems.add_rows(
        table,
        bad,
        column,
        lambda row: (
            f"{(text[row] or '')[:40]!r} is {_why_no_date(text[row])}; write it as 2024-12-31 or "
            "2024-12-31T16:00:00+00:00"
        ),
    )
    return parsed.to_numpy().astype("datetime64[us]")


def _of_this_era(series: "pl.Series") -> "pl.Series":
    """Dates or times of the years 1000 to 9999; null where there is another.

    A year of two digits, which a format with four reads as well, is none: its century is not said.
    """
    import polars as pl

    ticks = 1 / 86_400  # a second
    if isinstance(series.dtype, pl.Datetime):
        ticks = {"ms": 10**3, "us": 10**6, "ns": 10**9}[series.dtype.time_unit]
    first, last = (max(min(round(s * ticks), 2**63 - 1), -(2**63)) for s in _ERA_SECONDS)
    within = series.to_physical().is_between(first, last).fill_null(value=False)
    return series.zip_with(within, pl.Series([None], dtype=series.dtype))


def _why_no_date(text: str | None) -> str:
    parts = (text or "").split("/")
    if len(parts) == 3 and all(p.isdigit() and len(p) <= 2 for p in parts[:2]):
        if not parts[2].strip().isdigit():
            return "a date with slashes and a time, which are not read together"
        if len(parts[2].strip()) < 4:
            return "a date whose year has no century"
        return "day/month or month/day, which the column does not tell"
    return "not a date"


def _parse_text(text: "pl.Series") -> "pl.Series":
    """By the format that reads most of the column's start. Whether days or months come first in
    01/02/2024 is never guessed."""
    import polars as pl

    formats = [(date, pl.Date) for date in _DATE_FORMATS]
    formats += [
        (date + separator + time, pl.Datetime("us", "UTC" if "%z" in time else None))
        for date in _DATE_FORMATS[:2]
        for separator in (" ", "T")
        for time in _TIME_FORMATS
    ]

    def parse(text: "pl.Series", form: str, kind: Any) -> "pl.Series":
        parsed = text.str.strptime(kind, form, strict=False)
        if isinstance(kind, pl.Datetime) and kind.time_zone:
            parsed = parsed.dt.replace_time_zone(None)
        return _of_this_era(parsed.cast(pl.Datetime("us")))

    start = text.head(100)  # two dozen attempts at a million rows would take seconds
    best = parse(text, *min(formats, key=lambda f: parse(start, *f).null_count()))
    if best.null_count():
        # Taken only where the days tell which of the two is meant.
        slashed = [parse(text, form, pl.Date) for form in ("%m/%d/%Y", "%d/%m/%Y")]
        sure = [s for s in slashed if s.null_count() == 0]
        if len(sure) == 1:
            return sure[0]
    return best


def parse_numbers(table: Table, column: str, problems: Problems) -> np.ndarray:
    """[rows] float64; problems for text, gaps, NaN and infinities."""
    import polars as pl

    series = plain_values(table, column, problems, "numbers")
    if series is None:
        return np.full(table.frame.height, np.nan)
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
                return f"{original[:40]!r} is not a number; use digits and a decimal point"
            return f"the value is {original}; fill it with a finite number or delete the row"

        problems.add_rows(table, np.flatnonzero(~finite), column, message)
    return values


def plain_values(table: Table, column: str, problems: Problems, what: str) -> "pl.Series | None":
    """A column with one value a row; None where there are lists or bytes, and a problem is added.

    Args:
        what: what it must hold.
    """
    import polars as pl

    series = table.frame[column]
    if isinstance(series.dtype, pl.Categorical | pl.Enum):
        return series.cast(pl.String)
    known = (pl.String, pl.Boolean, pl.Date, pl.Datetime, pl.Null)
    if series.dtype.is_numeric() or isinstance(series.dtype, known):
        return series
    problems.add(f"column {column}", f"holds {series.dtype}; it must hold {what}")
    return None


@functools.lru_cache(maxsize=1_024)
def plain_name(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
