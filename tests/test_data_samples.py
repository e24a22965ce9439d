"""Sample prices, and synthetic ones of which the truth is known."""

import numpy as np
import polars as pl
import pytest

from tradax.data import samples
from tradax.data.bars import bars_from_frame
from tradax.data.synthetic import geometric_brownian_motion
from tradax.errors import DataError

PRICES = ("open", "high", "low", "close")


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("sp500", 5031),
        ("nasdaq", 5031),
        ("AAPL", 3270),
        ("IBM", 3270),
        ("MSFT", 3270),
        ("GOOG", 2148),
    ],
)
def test_a_sample_holds_its_bars(name, rows):
    bars = samples.load(name)
    assert bars.symbols == (name,)
    assert bars.source == name
    assert bars.close.shape == (1, rows)
    assert bars.has_range
    assert bars.has_volume
    assert bars.signals == {}
    assert bars.periods_per_year == 252
    assert (bars.volume >= 0).all()
    assert (bars.low <= np.minimum(bars.open, bars.close) * (1 + 1e-9)).all()
    assert (bars.high >= np.maximum(bars.open, bars.close) * (1 - 1e-9)).all()


def test_us20_holds_20_symbols_of_closes():
    bars = samples.load("us20")
    assert bars.close.shape == (20, 8313)
    assert len(set(bars.symbols)) == 20
    assert not bars.has_range
    assert not bars.has_volume
    assert samples.load("us20", symbols=["KO", "AAPL"]).symbols == ("KO", "AAPL")
    np.testing.assert_array_equal(
        samples.load("us20", symbols=["KO"]).close[0], bars.close[bars.symbols.index("KO")]
    )


# A split of 2 to 1 that was not adjusted for would be a log return of -0.69.
FALLS = {
    # Apple warned of its earnings and lost half.
    "AAPL": ["AAPL 2000-09-29"],
    # The source has Range Resources at a third from one day to the next, and back after weeks.
    "us20": ["AAPL 2000-09-29", "RRC 1990-04-10"],
}


@pytest.mark.parametrize("name", list(samples.SAMPLES))
def test_no_price_jumps_as_an_unadjusted_split_would_but_on_known_days(name):
    bars = samples.load(name)
    jumps = np.diff(np.log(bars.close), axis=1)
    days = bars.timestamps.astype("datetime64[D]")
    found = [f"{bars.symbols[s]} {days[t + 1]}" for s, t in np.argwhere(np.abs(jumps) > 0.6)]
    assert found == FALLS.get(name, [])
    assert np.isfinite(bars.close).all()
    assert (bars.low > 0).all()


def test_apple_is_adjusted_for_its_splits_and_dividends():
    apple = samples.load("AAPL")
    day = list(apple.timestamps.astype("datetime64[D]").astype(str)).index("2005-02-28")
    # Split 2 to 1: 88.99 on Friday, 44.86 on Monday as traded.
    assert apple.close[0, day] / apple.close[0, day - 1] == pytest.approx(
        44.86 / (88.99 / 2), rel=0.002
    )


def test_samples_of_one_calendar_load_together():
    bars = samples.load(["AAPL", "MSFT"])
    assert bars.symbols == ("AAPL", "MSFT")
    assert bars.source == "AAPL, MSFT"
    for index, name in enumerate(bars.symbols):
        np.testing.assert_array_equal(bars.close[index], samples.load(name).close[0])


def test_samples_of_several_calendars_need_the_intersection():
    with pytest.raises(DataError, match="--intersection"):
        samples.load(["AAPL", "GOOG"])
    assert len(samples.load(["AAPL", "GOOG"], intersection=True)) == 2148


def test_a_frame_and_bars_are_data_too():
    frame = pl.DataFrame({"date": ["2024-01-02", "2024-01-03"], "close": [1.0, 2.0]})
    bars = samples.load(frame, closes_only=True)
    np.testing.assert_array_equal(bars.close, [[1, 2]])
    pandas = samples.load(frame.to_pandas(), closes_only=True)
    assert pandas.sha256 == bars.sha256
    assert samples.load(bars) is bars


def test_options_hold_for_samples_too():
    bars = samples.load("sp500", closes_only=True)
    assert not bars.has_range
    np.testing.assert_array_equal(bars.high, bars.close)
    with pytest.raises(DataError, match="sp500: no signal column mood"):
        samples.load("sp500", signals=["mood"])
    with pytest.raises(DataError, match="sp500: no symbol AAPL; did you mean sp500"):
        samples.load("sp500", symbols=["AAPL"])


def test_an_unknown_sample_is_told_the_known_ones():
    with pytest.raises(DataError, match="no sample dax; samples are sp500, nasdaq"):
        samples.load_sample("dax")


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setattr(samples, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="the package arch with its sample prices is missing"):
        samples.load("sp500")


def test_synthetic_bars_are_valid():
    bars = geometric_brownian_motion(500, seed=3)
    columns = {name: getattr(bars, name)[0] for name in (*PRICES, "volume")}
    read = bars_from_frame(pl.DataFrame({"timestamp": bars.timestamps, **columns}), source="GBM")
    assert read.sha256 == bars.sha256
    assert len(read) == 500
    assert read.periods_per_year == bars.periods_per_year == 252


@pytest.mark.parametrize(("drift", "volatility"), [(0.0, 0.2), (0.3, 0.1), (-0.2, 0.5)])
def test_synthetic_bars_have_the_stated_drift_and_volatility(drift, volatility):
    years = 400
    close = geometric_brownian_motion(years * 252, drift=drift, volatility=volatility).close[0]
    returns = np.diff(np.log(close))
    assert returns.std() * 252**0.5 == pytest.approx(volatility, rel=0.01)
    # d log S = (drift - volatility^2 / 2) dt + volatility dW; four standard errors.
    error = 4 * volatility / years**0.5
    assert returns.mean() * 252 == pytest.approx(drift - volatility**2 / 2, abs=error)


def test_equal_seeds_give_equal_bars_and_others_do_not():
    one, two = (geometric_brownian_motion(100, seed=7) for _ in range(2))
    assert one.sha256 == two.sha256
    assert one.sha256 != geometric_brownian_motion(100, seed=8).sha256
