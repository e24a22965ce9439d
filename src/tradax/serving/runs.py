"""Which runs can be served, and the bars that they begin with."""

import dataclasses
from pathlib import Path
from typing import Any

from tradax import discovery
from tradax.data.bars import Bars
from tradax.data.pipeline import Pipeline
from tradax.errors import ConfigError, DataError
from tradax.preparation import Request, load_bars, needs_bars, read_request, saved_frame


def servable(folder: Path) -> Request:
    """The request of a run whose environment trades given bars.

    Raises:
        ModelFileError: not a run directory.
        ConfigError: a run in another environment.
    """
    request = read_request(folder)
    if not needs_bars(request.env):
        can = ", ".join(name for name in discovery.environments() if needs_bars(name))
        raise ConfigError(
            f"{folder}: {request.env} does not trade given bars; runs of {can} can be served"
        )
    return request


def symbols(folder: Path) -> tuple[tuple[str, ...], bool]:
    """A run's symbols, and whether one trader holds all of them."""
    request = servable(folder)
    together = discovery.flag("envs", request.env, "HOLDS_ALL_SYMBOLS")
    return Pipeline.load(folder).symbols, together


def open_bars(folder: Path, given: Any = None) -> Bars:
    """Bars of a run's symbols: its own, or others with the columns that its own have.

    A file or frame of one symbol without a name for it is taken as the run's only one.

    Raises:
        DataError: problems in the data, or the run's own are no longer where they were.
    """
    request = servable(folder)
    names = Pipeline.load(folder).symbols
    if isinstance(given, Bars):
        return given.select(names)
    try:
        own = load_bars(request, saved_frame(request, folder)).select(names)
    except DataError as error:
        if given is None:
            raise DataError(
                *error.problems,
                f"{folder}: the bars that it was trained on are needed as a history; give others "
                "with --history (history=...)",
            ) from None
        own = None
    if given is None:
        assert own is not None
        return own
    request = dataclasses.replace(request, symbols=None)
    if own is not None:
        request = dataclasses.replace(
            request, signals=list(own.signals), closes_only=not own.has_range
        )
    bars = load_bars(request, given)
    if own is not None and not own.has_volume:
        bars = dataclasses.replace(bars, has_volume=False)
    if len(names) == 1 and bars.symbols in (("frame",), (_stem(given),)):
        bars = dataclasses.replace(bars, symbols=names)
    return bars.select(names)


def chosen(symbol: str | None, names: tuple[str, ...], where: Any) -> str:
    """The symbol that is meant; the only one may be left out."""
    if symbol is None and len(names) == 1:
        return names[0]
    if symbol not in names:
        what = "several symbols, name one" if symbol is None else f"no symbol {symbol}"
        raise ConfigError(f"{where}: {what}; there are {', '.join(names)}")
    return symbol


def _stem(given: Any) -> str:
    first = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
    return Path(first).stem if isinstance(first, str | Path) else ""
