"""Real prices that installed packages carry, by name. All of them are survivors: a strategy's
result on them says less than it seems."""

import difflib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradax.data import synthetic
from tradax.data.bars import Bars, bars_from_frame, read_bars
from tradax.errors import DataError

if TYPE_CHECKING:
    import polars as pl

SAMPLES = {
    "sp500": "S&P 500 index, daily 1999-2018 (from arch)",
    "nasdaq": "NASDAQ composite index, daily 1999-2018 (from arch)",
    "us20": "20 surviving large US stocks, daily closes 1990-2022 (from skfolio)",
    "AAPL": "Apple (a survivor), daily 2000-2013, adjusted (from bokeh_sampledata)",
    "IBM": "IBM (a survivor), daily 2000-2013, adjusted (from bokeh_sampledata)",
    "MSFT": "Microsoft (a survivor), daily 2000-2013, adjusted (from bokeh_sampledata)",
    "GOOG": "Google (a survivor), daily 2004-2013 (from bokeh_sampledata)",
}


def names() -> tuple[str, ...]:
    """Of all samples."""
    return tuple(SAMPLES)


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
        data: a sample's name, `synthetic:gbm,drift=0.1` (see `tradax.data.synthetic`), a path, a
            list of names or of paths, a polars or pandas frame, or `Bars`.

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
    if items[0].startswith(synthetic.PREFIX):
        if len(items) > 1:
            raise DataError(f"{items[0]}: give a synthetic market alone; assets=2 makes several")
        bars = synthetic.from_text(items[0])
        return bars.select(symbols) if symbols else bars
    for item in items:
        if item not in SAMPLES and not Path(item).is_file():
            close = difflib.get_close_matches(item, SAMPLES, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else ""
            raise DataError(
                f"{item}: no such file, nor a sample; {hint or 'samples are ' + ', '.join(SAMPLES)}"
            )
    named = [item for item in items if item in SAMPLES]
    if len(named) == len(items):
        return _samples(named, symbols, signals, closes_only, intersection)
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
    return _samples([name], None, None, False, False)


def _samples(
    names: list[str],
    symbols: Sequence[str] | None,
    signals: Sequence[str] | None,
    closes_only: bool,
    intersection: bool,
) -> Bars:
    import polars as pl

    if "us20" in names and len(names) > 1:
        raise DataError("us20 holds 20 symbols of its own; give it alone")
    return bars_from_frame(
        pl.concat([_frame(name) for name in names]),
        symbols=symbols,
        signals=signals,
        closes_only=closes_only or "us20" in names,
        intersection=intersection,
        source=", ".join(names),
    )


def _frame(name: str) -> "pl.DataFrame":
    """A long frame with a symbol column; us20 has closes only."""
    import polars as pl

    if name in ("sp500", "nasdaq"):
        frame = pl.read_csv(_file("arch", f"data/{name}/{name}.csv.gz"))
        return _tidy(frame, name)
    if name == "us20":
        frame = pl.read_csv(_file("skfolio", "datasets/data/sp500_dataset.csv.gz"))
        # As published: RRC was a penny stock in 1990, with the same close on nine days of ten and
        # a fall to exactly a third on 10 April, which may be a mistake of the source.
        long = frame.unpivot(index="Date", variable_name="symbol", value_name="close")
        return long.with_columns(pl.col("close").cast(pl.Float64))
    frame = pl.read_csv(_file("bokeh_sampledata", "_data/stocks.csv.gz"))
    return _tidy(frame.filter(pl.col("Ticker") == name), name)


def _tidy(frame: "pl.DataFrame", name: str) -> "pl.DataFrame":
    """One set of columns. Nothing is repaired: in all of these files highs and lows contain
    opens and closes."""
    import polars as pl

    prices = [pl.col(c).cast(pl.Float64) for c in ("Open", "High", "Low", "Close", "Adj Close")]
    frame = frame.select(pl.col("Date"), *prices, pl.col("Volume").cast(pl.Float64))
    return frame.with_columns(symbol=pl.lit(name))


def _file(package: str, path: str) -> Path:
    """A file inside an installed package, found without importing it."""
    spec = find_spec(package)
    file = Path(spec.origin).parent / path if spec and spec.origin else None
    if file is None or not file.is_file():
        raise DataError(
            f"the package {package} with its sample prices is missing; reinstall tradax"
        )
    return file
