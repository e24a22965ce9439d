"""Real prices that installed packages carry, by name. All of them are survivors: a strategy's
result on them says less than it seems."""

import difflib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradax.data.bars import Bars, bars_from_frame, read_bars
from tradax.errors import DataError

if TYPE_CHECKING:
    import polars as pl

SAMPLES = {
    "sp500": "S&P 500 index, daily 1999-2018 (from arch)",
    "nasdaq": "NASDAQ composite index, daily 1999-2018 (from arch)",
    "us20": "20 large US stocks, daily closes 1990-2022 (from skfolio)",
    "AAPL": "Apple, daily 2000-2013, adjusted (from bokeh_sampledata)",
    "IBM": "IBM, daily 2000-2013, adjusted (from bokeh_sampledata)",
    "MSFT": "Microsoft, daily 2000-2013, adjusted (from bokeh_sampledata)",
    "GOOG": "Google, daily 2004-2013 (from bokeh_sampledata)",
}


def load(
    data: Any,
    *,
    symbols: Sequence[str] | None = None,
    signals: Sequence[str] | None = None,
    closes_only: bool = False,
    intersection: bool = False,
) -> Bars:
    """Bars from whatever names them: a sample, files, or a frame.

    Args:
        data: a sample's name, a path, a list of either, a polars or pandas frame, or `Bars`.

    Raises:
        DataError: neither a sample nor a file, or problems in the data.
    """
    if isinstance(data, Bars):
        return data.select(symbols) if symbols else data
    if not isinstance(data, str | Path | list | tuple):
        return bars_from_frame(
            data,
            symbols=symbols,
            signals=signals,
            closes_only=closes_only,
            intersection=intersection,
        )
    items = [str(item) for item in (data if isinstance(data, list | tuple) else [data])]
    if not items:
        raise DataError(f"no data given; samples are {', '.join(SAMPLES)}")
    for item in items:
        if item not in SAMPLES and not Path(item).is_file():
            close = difflib.get_close_matches(item, SAMPLES, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else ""
            raise DataError(
                f"{item}: no such file, nor a sample; {hint or 'samples are ' + ', '.join(SAMPLES)}"
            )
    named = [item for item in items if item in SAMPLES]
    if len(named) == len(items):
        return _samples(named, symbols, intersection)
    if named:
        raise DataError(f"{named[0]} is a sample and the rest are files; give one kind")
    return read_bars(
        items, symbols=symbols, signals=signals, closes_only=closes_only, intersection=intersection
    )


def load_sample(name: str) -> Bars:
    """One sample by name.

    Raises:
        DataError: unknown name, or the package that carries it is not installed.
    """
    if name not in SAMPLES:
        raise DataError(f"no sample {name}; samples are {', '.join(SAMPLES)}")
    frame, closes_only = _frame(name)
    return bars_from_frame(frame, closes_only=closes_only, source=name)


def _samples(names: list[str], symbols: Sequence[str] | None, intersection: bool) -> Bars:
    import polars as pl

    if len(names) == 1:
        bars = load_sample(names[0])
        return bars.select(symbols) if symbols else bars
    if "us20" in names:
        raise DataError("us20 holds 20 symbols of its own; give it alone")
    frames = [_frame(name)[0] for name in names]
    return bars_from_frame(
        pl.concat(frames), symbols=symbols, intersection=intersection, source=", ".join(names)
    )


def _frame(name: str) -> tuple["pl.DataFrame", bool]:
    """A long frame with a symbol column, and whether it has closes only."""
    import polars as pl

    if name in ("sp500", "nasdaq"):
        frame = pl.read_csv(_file("arch", f"data/{name}/{name}.csv.gz"))
        return _tidy(frame, name), False
    if name == "us20":
        frame = pl.read_csv(_file("skfolio", "datasets/data/sp500_dataset.csv.gz"))
        long = frame.unpivot(index="Date", variable_name="symbol", value_name="close")
        return long.with_columns(pl.col("close").cast(pl.Float64)), True
    frame = pl.read_csv(_file("bokeh_sampledata", "_data/stocks.csv.gz"))
    return _tidy(frame.filter(pl.col("Ticker") == name), name), False


def _tidy(frame: "pl.DataFrame", name: str) -> "pl.DataFrame":
    """One set of columns, with highs and lows that contain open and close.

    A few bars of these files are off by a cent, because the vendor rounded high and low by
    themselves; their range is widened to what was traded.
    """
    import polars as pl

    prices = [pl.col(c).cast(pl.Float64) for c in ("Open", "High", "Low", "Close", "Adj Close")]
    frame = frame.select(pl.col("Date"), *prices, pl.col("Volume").cast(pl.Float64))
    return frame.with_columns(
        High=pl.max_horizontal("Open", "High", "Close"),
        Low=pl.min_horizontal("Open", "Low", "Close"),
        symbol=pl.lit(name),
    )


def _file(package: str, path: str) -> Path:
    """A file inside an installed package, found without importing it."""
    spec = find_spec(package)
    file = Path(spec.origin).parent / path if spec and spec.origin else None
    if file is None or not file.is_file():
        raise DataError(
            f"the package {package} with its sample prices is missing; reinstall tradax"
        )
    return file
