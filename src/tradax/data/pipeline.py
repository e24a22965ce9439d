"""From bars to what an environment needs, as one object that is saved with the policy."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tradax.config import from_dict
from tradax.data import features
from tradax.data.bars import Bars
from tradax.data.normalize import QuantileNormalizer
from tradax.data.scaling import Normalizer, from_sklearn, load_normalizer
from tradax.data.splits import Span, Splits, WalkForward, chronological, walk_forward
from tradax.errors import ConfigError, DataError
from tradax.files import write_json
from tradax.reading import check_version, json_value, read_bytes

_VERSION = 1


class Market(NamedTuple):
    """One symbol as environments take it. T bars, F features."""

    symbol: str
    timestamps: np.ndarray
    """[T] datetime64[us]"""
    open: np.ndarray
    """[T] float64, like the next five."""
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    volatility: np.ndarray
    """Realised standard deviation of log returns a bar."""
    table: np.ndarray
    """[T, F] float32, normalised; rows before `first_row` are zeros and are never visited."""
    names: tuple[str, ...]
    first_row: int
    periods_per_year: float
    has_range: bool
    has_volume: bool

    def newest(self, rows: int) -> "Market":
        """The last rows alone."""
        before = max(len(self.close) - rows, 0)
        names = ("timestamps", "open", "high", "low", "close", "volume", "volatility", "table")
        series = {name: getattr(self, name)[before:] for name in names}
        return self._replace(**series, first_row=max(self.first_row - before, 0))


@dataclass(frozen=True)
class Pipeline:
    """Features and their normalisers, fitted on training rows only."""

    config: features.Config
    symbols: tuple[str, ...]
    normalizers: tuple[Normalizer | None, ...]
    """One a symbol; None where features are left as they are."""
    splits: Splits

    @classmethod
    def fit(
        cls,
        bars: Bars,
        config: features.Config | None = None,
        *,
        train: float = 0.7,
        validation: float = 0.15,
        normalizer: Any = None,
    ) -> "Pipeline":
        """Split the rows in time and fit one normaliser a symbol on the first part.

        Args:
            normalizer: a scikit-learn object (`scaling.from_sklearn`) in place of the quantile
                normaliser; or ready ones, a tuple of one a symbol.

        Raises:
            DataError: too few rows.
            ConfigError: fractions out of range.
        """

        def cut(n_rows: int, warm_up: int) -> tuple[Splits, ...]:
            return (
                chronological(
                    n_rows, warm_up, train=train, validation=validation, source=bars.source
                ),
            )

        return cls._fit(bars, config, cut, normalizer)[0]

    @classmethod
    def walk_forward(
        cls,
        bars: Bars,
        config: features.Config | None,
        how: WalkForward,
        *,
        train: float = 0.7,
        validation: float = 0.15,
        normalizer: Any = None,
    ) -> tuple["Pipeline", ...]:
        """One a fold, each fitted on the rows that its fold trains on; see `splits.walk_forward`.

        Args, Raises: as `fit`.
        """

        def cut(n_rows: int, warm_up: int) -> tuple[Splits, ...]:
            return walk_forward(
                n_rows, warm_up, how, train=train, validation=validation, source=bars.source
            )

        return cls._fit(bars, config, cut, normalizer)

    @classmethod
    def _fit(
        cls,
        bars: Bars,
        config: features.Config | None,
        cut: Callable[[int, int], tuple[Splits, ...]],
        normalizer: Any,
    ) -> tuple["Pipeline", ...]:
        """Args: cut: number of rows, rows without features -> the spans of each fold."""
        config = features.Config() if config is None else config
        computed = [features.compute(bars, index, config) for index in range(len(bars.symbols))]
        first = max(f.warm_up for f in computed) + config.window - 1
        if normalizer is not None and not config.indicators:
            raise ConfigError(
                "a normalizer was given, and the features are to be left as they are "
                "(features.indicators is off); leave out one of the two"
            )

        def fitted(train: Span) -> tuple[Normalizer | None, ...]:
            rows = slice(train.first - config.window + 1, train.last + 1)
            if isinstance(normalizer, tuple):
                return normalizer
            if not config.indicators:
                return (None,) * len(computed)
            if normalizer is None:
                return tuple(QuantileNormalizer.fit(f.values[rows], f.names) for f in computed)
            return tuple(from_sklearn(normalizer, f.values[rows], f.names) for f in computed)

        return tuple(
            cls(config, bars.symbols, fitted(splits.train), splits)
            for splits in cut(len(bars), first)
        )

    def transform(self, bars: Bars, *, newest: int | None = None) -> tuple[Market, ...]:
        """The markets of the same symbols, on these bars or later ones.

        Args:
            newest: only so many rows at the end are wanted; those before count as warm-up.

        Raises:
            DataError: other symbols or other features than it was fitted on.
        """
        if bars.symbols != self.symbols:
            raise DataError(
                f"{bars.source}: symbols {', '.join(bars.symbols)}; the features were fitted on "
                f"{', '.join(self.symbols)}"
            )
        per_year = bars.periods_per_year
        return tuple(self._market(bars, i, newest, per_year) for i in range(len(bars.symbols)))

    def only(self, symbols: Sequence[str]) -> "Pipeline":
        """That of some of the symbols."""
        kept = tuple(self.normalizers[self.symbols.index(symbol)] for symbol in symbols)
        return replace(self, symbols=tuple(symbols), normalizers=kept)

    def _market(self, bars: Bars, index: int, newest: int | None, per_year: float) -> Market:
        computed = features.compute(bars, index, self.config)
        first = computed.warm_up
        if newest is not None:
            first = max(first, len(bars) - newest - self.config.window + 1)
        first_row = first + self.config.window - 1
        if first_row >= len(bars):
            raise DataError(
                f"{bars.source}: {len(bars)} rows are too few; the first {first_row} have no "
                "features, give more"
            )
        normalizer = self.normalizers[index]
        values = computed.values
        if normalizer is not None:
            if normalizer.names != computed.names:
                raise DataError(
                    f"{bars.source}: features {', '.join(computed.names)}; the normaliser was "
                    f"fitted on {', '.join(normalizer.names)}"
                )
            values = np.full_like(computed.values, np.nan)
            values[first:] = normalizer.transform(computed.values[first:])
        table, names = features.stack_window(values, computed.names, self.config.window)
        table[:first_row] = 0.0
        beyond = ~(np.abs(table).max(axis=0) <= np.finfo(np.float32).max)  # NaN too
        if beyond.any():
            raise DataError(
                f"{bars.source}, {bars.symbols[index]}: column {names[int(np.argmax(beyond))]} "
                "holds values that are NaN or beyond the range of float32; scale it"
            )
        table = table.astype(np.float32)
        series = {
            name: bars.__dict__[name][index] for name in ("open", "high", "low", "close", "volume")
        }
        return Market(
            symbol=bars.symbols[index],
            timestamps=bars.timestamps,
            **series,
            volatility=computed.volatility,
            table=table,
            names=names,
            first_row=first_row,
            periods_per_year=per_year,
            has_range=bars.has_range,
            has_volume=bars.has_volume,
        )

    def save(self, folder: Path | str) -> None:
        """`pipeline.json`, and for each symbol its normaliser as safetensors."""
        folder = Path(folder)
        for symbol, normalizer in zip(self.symbols, self.normalizers, strict=True):
            if normalizer is not None:
                normalizer.save(folder / f"{self._file_stem(symbol)}.safetensors")
        description = {
            "format": "tradax-pipeline",
            "version": _VERSION,
            "config": asdict(self.config),
            "symbols": list(self.symbols),
            "splits": {name: list(span) for name, span in self.splits._asdict().items()},
        }
        write_json(folder / "pipeline.json", description)

    def write_joblib(self, folder: Path | str) -> None:
        """Each symbol's normaliser for scikit-learn, whose import takes a second."""
        for symbol, normalizer in zip(self.symbols, self.normalizers, strict=True):
            if normalizer is not None:
                normalizer.write_joblib(Path(folder) / f"{self._file_stem(symbol)}.joblib")

    @classmethod
    def load(cls, folder: Path | str) -> "Pipeline":
        """Raises DataError where the folder holds no pipeline, or a damaged one."""
        folder = Path(folder)
        path = folder / "pipeline.json"
        try:
            description = json_value(
                read_bytes(path, most=2**24, error=DataError), path, error=DataError
            )
            if description["format"] != "tradax-pipeline":
                raise KeyError("format")
            check_version(description["version"], _VERSION, path, error=DataError)
            config = from_dict(features.Config, description["config"])
            symbols = tuple(map(str, description["symbols"]))
            splits = Splits(
                *(
                    Span(*map(int, description["splits"][name]))
                    for name in ("train", "validation", "test")
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: cannot be read as a pipeline ({error})") from None
        pipeline = cls(config, symbols, (None,) * len(symbols), splits)
        if not config.indicators:
            return pipeline
        normalizers = tuple(
            load_normalizer(folder / f"{pipeline._file_stem(s)}.safetensors") for s in symbols
        )
        return cls(config, symbols, normalizers, splits)

    def _file_stem(self, symbol: str) -> str:
        if len(self.symbols) == 1:
            return "normalizer"
        # A symbol is the user's text: no separators get into a file's name, and the number keeps
        # A/B and A.B apart.
        tame = "".join(c if c.isalnum() or c in "-_" else "_" for c in symbol[:40])
        return f"normalizer-{self.symbols.index(symbol)}-{tame}"
