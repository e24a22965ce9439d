"""What the agent may know at the close of a bar: causal indicators, returns, the user's signals.

Row t is computed from bars 0..t only. Rows before `warm_up`, where an indicator has not seen
enough bars, are NaN; they are never filled, and spans begin after them.
"""

from typing import NamedTuple

import numpy as np

from tradax.config import config, setting
from tradax.data.bars import Bars
from tradax.errors import DataError


@config(traced=False)
class Config:
    """Features of a market."""

    window: int = setting(default=1, least=1)
    """Rows that an observation stacks: this bar and the ones before it."""
    indicators: bool = True
    """False: log returns of one bar and the user's signals only, not normalised."""
    volatility_window: int = setting(default=20, least=2)
    """Bars of realised volatility, and of the mean and deviation of volume."""
    momentum_window: int = setting(default=14, least=2, most=100_000)
    """Bars of RSI, ATR, CCI and DX."""


class Features(NamedTuple):
    names: tuple[str, ...]
    values: np.ndarray
    """[T, F] float64; rows before `warm_up` hold NaN."""
    warm_up: int
    volatility: np.ndarray
    """[T] float64, of every bar, see `realised_volatility`."""


def compute(bars: Bars, index: int, config: Config) -> Features:
    """Features of symbol number `index`, one row a bar, before normalising and stacking.

    Indicators are TA-Lib's. Ranges are left out where only closes are known, volume where there
    is none.

    Raises:
        DataError: a feature is not finite after its warm-up; names the feature and the bar.
    """
    close = np.ascontiguousarray(bars.close[index])
    columns = {"log_return_1": _log_return(close, 1)}
    volatility = realised_volatility(close, config.volatility_window)
    if config.indicators:
        columns |= _indicators(bars, index, config, volatility.copy())
    for name, signal in bars.signals.items():
        if name in columns:
            raise DataError(
                f"{bars.source}: column {name} has the name of an indicator; rename the column"
            )
        columns[name] = np.array(signal[index])
    values = np.stack(list(columns.values()), axis=1)
    finite = np.isfinite(values)
    # The first row from which on every column has begun.
    warm_up = int(max(np.argmax(column) if column.any() else len(column) for column in finite.T))
    bad = np.argwhere(~finite[warm_up:])
    if warm_up < len(values) and len(bad):
        row, column = bad[0][0] + warm_up, bad[0][1]
        raise DataError(
            f"{bars.source}, {bars.symbols[index]}, {bars.timestamps[row]}: feature "
            f"{list(columns)[column]} is {values[row, column]}; look for a wrong price near there"
        )
    return Features(tuple(columns), values, warm_up, volatility)


def memory(config: Config) -> int:
    """Bars behind which nothing changes the newest row any more, but for float64's rounding.

    Wilder's averages (RSI, ATR, DX) over n bars keep 1 - 1/n a bar of what was before, and MACD's
    slower one 1 - 2/27, as Wilder's of 13.5 would: 40 n bars leave e^-40 = 4e-18.
    """
    longest = max(config.momentum_window, 14)
    return 40 * longest + config.volatility_window + config.window


def stack_window(
    values: np.ndarray, names: tuple[str, ...], window: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Row t becomes rows t, t-1, ..., t-window+1 side by side; NaN before the first bar."""
    pieces = [values]
    for lag in range(1, window):
        shifted = np.full_like(values, np.nan)
        shifted[lag:] = values[:-lag]
        pieces.append(shifted)
    stacked_names = [
        name if lag == 0 else f"{name}[t-{lag}]" for lag in range(window) for name in names
    ]
    return np.concatenate(pieces, axis=1), tuple(stacked_names)


def realised_volatility(close: np.ndarray, window: int) -> np.ndarray:
    """Standard deviation of log returns over `window` bars, [T]; over fewer at the start.

    Zero for the first two bars, where there is no deviation yet.
    """
    import polars as pl

    rolling = pl.Series(np.diff(np.log(close))).rolling_std(window, min_samples=2)
    return np.concatenate([[0.0], np.nan_to_num(rolling.to_numpy().astype(float), nan=0.0)])


def _indicators(
    bars: Bars, index: int, config: Config, volatility: np.ndarray
) -> dict[str, np.ndarray]:
    import talib

    close = np.ascontiguousarray(bars.close[index])
    high, low = np.ascontiguousarray(bars.high[index]), np.ascontiguousarray(bars.low[index])
    n, warm = config.momentum_window, config.volatility_window
    volatility[:warm] = np.nan
    macd, signal, _ = talib.MACD(close)
    upper, _, lower = talib.BBANDS(close, timeperiod=20, nbdevup=2, nbdevdn=2)
    width = upper - lower
    # Without any movement the price is in the middle of the band.
    flat = width <= 1e-12 * close
    columns = {
        "log_return_5": _log_return(close, 5),
        "log_return_20": _log_return(close, 20),
        f"volatility_{warm}": volatility,
        f"rsi_{n}": talib.RSI(close, timeperiod=n),
        "macd": macd / close,
        "macd_signal": signal / close,
        "bollinger_b": np.where(flat, 0.5, (close - lower) / np.where(flat, 1.0, width)),
    }
    columns["bollinger_b"][np.isnan(width)] = np.nan
    if bars.has_range:
        columns[f"atr_{n}"] = talib.ATR(high, low, close, timeperiod=n) / close
        columns[f"cci_{n}"] = talib.CCI(high, low, close, timeperiod=n)
        columns[f"dx_{n}"] = talib.DX(high, low, close, timeperiod=n)
    if bars.has_volume:
        columns[f"volume_z_{warm}"] = _z_score(np.log1p(bars.volume[index]), warm)
    return columns


def _log_return(close: np.ndarray, bars: int) -> np.ndarray:
    result = np.full(len(close), np.nan)
    result[bars:] = np.log(close[bars:] / close[:-bars])
    return result


def _z_score(x: np.ndarray, window: int) -> np.ndarray:
    """Distance from the trailing mean in trailing standard deviations; 0 where nothing varied."""
    import polars as pl

    series = pl.Series(x)
    mean = series.rolling_mean(window).to_numpy()
    std = series.rolling_std(window).to_numpy()
    varies = std > 1e-9
    z = np.where(varies, (x - mean) / np.where(varies, std, 1.0), 0.0)
    return np.where(np.isnan(std), np.nan, z)
