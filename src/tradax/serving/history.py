"""Bars as they come: each checked as those of a file are, and put behind the ones before it."""

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from tradax.data.bars import Bars
from tradax.data.series import PRICES, SYMBOL, parse_series, short
from tradax.data.table import TIMESTAMP, Problems, Table, plain_name
from tradax.errors import DataError

_COLUMNS = (*PRICES, "volume")
_SHOWN = 20


@dataclass(frozen=True)
class Bar:
    """One symbol's checked bar."""

    symbol: str
    timestamp: np.datetime64
    values: np.ndarray
    """Open, high, low, close, volume, then the signals in the history's order."""


def read_bar(bar: Mapping[str, Any], like: Bars) -> Bar:
    """Check one bar as `read_bars` checks a file's rows.

    Args:
        bar: column -> value; names as in a file. The symbol may be left out where there is one.
        like: whose symbols, signals and kind of columns it must have.

    Raises:
        DataError: all that is wrong with it.
    """
    import polars as pl

    bar = {str(name): value for name, value in bar.items()}
    named = [name for name in bar if plain_name(name) in SYMBOL]
    # Taken out here, as grouping rows by symbol takes longer than all the rest.
    symbol = str(bar.pop(named[0])).strip() if len(named) == 1 else ""
    stamps = [str(value) for name, value in bar.items() if plain_name(name) in TIMESTAMP]
    problems = Problems("bar", limit=_SHOWN)
    try:
        table = Table(pl.DataFrame([_with_datetime(bar)]), lambda row: stamps[0])
        closes_only = not like.has_range
        found = parse_series(table, problems, symbol, list(like.signals), closes_only)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"bar: cannot be read ({str(error).splitlines()[0]})") from None
    problems.raise_if_any()
    (series,) = found.values()
    symbol = symbol or (like.symbols[0] if len(like.symbols) == 1 else "")
    if symbol not in like.symbols:
        what = f"no symbol {symbol}" if symbol else "it names no symbol"
        raise DataError(f"bar, {stamps[0]}: {what}; this run has {', '.join(like.symbols)}")
    if like.has_volume and not series.has_volume:
        raise DataError(f"bar, {stamps[0]}: no column volume; the run was trained with it")
    columns = [series.columns[name] for name in _COLUMNS]
    values = np.concatenate([*columns, *(series.signals[name] for name in series.signals)])
    if not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise DataError(f"bar, {stamps[0]}: a value is beyond the range of float32; correct it")
    return Bar(symbol, series.timestamps[0], values)


def _with_datetime(bar: dict[str, Any]) -> dict[str, Any]:
    """ISO times read here: a file's reader tries two dozen formats, which takes milliseconds."""
    read = dict(bar)
    for name, value in bar.items():
        if plain_name(name) in TIMESTAMP and isinstance(value, str):
            with contextlib.suppress(ValueError):
                read[name] = datetime.fromisoformat(value.strip())
    return read


class History:
    """The newest bars of S symbols, in arrays that have room for those to come."""

    def __init__(self, bars: Bars, rows: int):
        """Args: rows: how many of the newest count."""
        self._like, self._rows = bars, rows
        kept = min(rows, len(bars))
        room = 2 * rows + 1  # moving the newest to the front is rare then
        self._stamps = np.empty(room, "datetime64[us]")
        self._stamps[:kept] = bars.timestamps[len(bars) - kept :]
        self._values = np.empty((len(_COLUMNS) + len(bars.signals), len(bars.symbols), room))
        for column, values in zip(self._values, _columns(bars), strict=True):
            column[:, :kept] = values[:, len(bars) - kept :]
        self._end = kept

    @property
    def last(self) -> np.datetime64 | None:
        """Time of the newest bar."""
        return self._stamps[self._end - 1] if self._end else None

    def with_bars(self, bars: Sequence[Bar]) -> Bars:
        """The newest rows and a bar of every symbol after them, which only `keep` keeps.

        The arrays are views: they hold until the next call.

        Raises:
            DataError: the bars are not later than those that are known.
        """
        if self._end == len(self._stamps):
            kept = slice(self._end - self._rows, self._end)
            self._stamps[: self._rows] = self._stamps[kept].copy()
            self._values[..., : self._rows] = self._values[..., kept].copy()
            self._end = self._rows
        stamp = bars[0].timestamp
        check_later(stamp, self.last)
        self._stamps[self._end] = stamp
        self._values[..., self._end] = np.stack([bar.values for bar in bars], axis=1)
        rows = slice(max(self._end + 1 - self._rows, 0), self._end + 1)
        values = self._values[..., rows]
        columns = dict(zip(_COLUMNS, values, strict=False))
        signals = dict(zip(self._like.signals, values[len(_COLUMNS) :], strict=True))
        return replace(self._like, timestamps=self._stamps[rows], signals=signals, **columns)

    def keep(self) -> None:
        """Count the last bars of `with_bars` among those that are known."""
        self._end += 1


def check_later(stamp: np.datetime64, last: np.datetime64 | None) -> None:
    """Raises DataError unless a bar of `stamp` may follow one of `last`."""
    if last is not None and stamp <= last:
        raise DataError(
            f"bar, {short(stamp)}: the last one known is of {short(last)}; it comes late or twice "
            "and is left out"
        )


def cut(bars: Bars, rows: slice) -> Bars:
    """Some rows."""
    columns = {name: getattr(bars, name)[:, rows] for name in _COLUMNS}
    signals = {name: values[:, rows] for name, values in bars.signals.items()}
    return replace(bars, timestamps=bars.timestamps[rows], signals=signals, **columns)


def before(bars: Bars, stamp: np.datetime64) -> Bars:
    """The rows before a time."""
    return cut(bars, slice(0, int(np.searchsorted(bars.timestamps, stamp))))


def joined(earlier: Bars, later: Bars) -> Bars:
    """`later`, and what `earlier` has before it.

    Raises:
        DataError: they have other symbols or columns.
    """
    for what, one, other in (
        ("symbols", earlier.symbols, later.symbols),
        ("signals", tuple(earlier.signals), tuple(later.signals)),
        ("volume", earlier.has_volume, later.has_volume),
        ("open, high and low", earlier.has_range, later.has_range),
    ):
        if one != other:
            raise DataError(
                f"{later.source}: {what}: {other}, but {one} in {earlier.source}, which comes "
                "before; give bars with the same columns"
            )
    earlier = before(earlier, later.timestamps[0])
    warn_of_gap(earlier, later.timestamps[0])
    columns = {
        name: np.concatenate([getattr(earlier, name), getattr(later, name)], axis=1)
        for name in _COLUMNS
    }
    signals = {
        name: np.concatenate([earlier.signals[name], later.signals[name]], axis=1)
        for name in later.signals
    }
    stamps = np.concatenate([earlier.timestamps, later.timestamps])
    return replace(later, timestamps=stamps, signals=signals, **columns)


def warn_of_gap(known: Bars, stamp: np.datetime64) -> None:
    """Say so where a bar comes later after the history than any bar in it after the one before."""
    if len(known) < 2:
        return
    last = known.timestamps[-1]
    if stamp - last > np.diff(known.timestamps).max():
        warnings.warn(
            f"the history ends at {short(last)} and the bars go on at {short(stamp)}; give the "
            "bars between them with --history (history=...), or features are not what they were",
            stacklevel=2,
        )


def row(bars: Bars, number: int) -> list[dict[str, Any]]:
    """One row as bars that `read_bar` takes, one a symbol."""
    found = []
    for index, symbol in enumerate(bars.symbols):
        bar = {"symbol": symbol, "timestamp": bars.timestamps[number].item()}
        bar |= {
            name: float(values[index, number])
            for name, values in zip((*_COLUMNS, *bars.signals), _columns(bars), strict=True)
        }
        found.append(bar)
    return found


def _columns(bars: Bars) -> list[np.ndarray]:
    return [*(getattr(bars, name) for name in _COLUMNS), *bars.signals.values()]
