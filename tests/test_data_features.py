"""Features: values by hand, and no look into the future."""

import dataclasses

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from tradax.data.bars import Bars
from tradax.data.features import Config, compute, realised_volatility, stack_window
from tradax.data.synthetic import geometric_brownian_motion
from tradax.errors import ConfigError, DataError

N = 120


def bars_of(close, *, high=None, low=None, volume=None, signals=None):
    close = np.asarray(close, float)
    n = len(close)
    return Bars(
        ("X",),
        np.datetime64("2020-01-01", "us") + np.arange(n) * np.timedelta64(1, "D"),
        open=close[None],
        high=(close if high is None else np.asarray(high, float))[None],
        low=(close if low is None else np.asarray(low, float))[None],
        close=close[None],
        volume=(np.full(n, 500.0) if volume is None else np.asarray(volume, float))[None],
        signals={k: np.asarray(v, float)[None] for k, v in (signals or {}).items()},
        has_range=high is not None,
        has_volume=volume is not None,
        source="here",
    )


def random_bars(seed, n=N):
    """Bars with a range, a volume and a signal."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(0.05 * rng.normal(size=n)))
    bars = bars_of(
        close,
        high=close * (1 + 0.05 * rng.random(n)),
        low=close * (1 - 0.05 * rng.random(n)),
        volume=rng.integers(0, 10**6, n),
        signals={"mood": rng.normal(size=n)},
    )
    return dataclasses.replace(bars, open=(bars.high + bars.low) / 2)


def spliced(old, new, after):
    """The bars `old` up to row `after`, and `new` from there on."""

    def join(a, b):
        return np.concatenate([a[:, : after + 1], b[:, after + 1 :]], axis=1)

    series = {k: join(getattr(old, k), getattr(new, k)) for k in ("open", "high", "low", "close")}
    return dataclasses.replace(
        old,
        **series,
        volume=join(old.volume, new.volume),
        signals={k: join(old.signals[k], new.signals[k]) for k in old.signals},
    )


def feature(bars, name, **options):
    features = compute(bars, 0, Config(**options))
    return features.values[:, features.names.index(name)]


def test_log_returns_by_hand():
    close = np.exp(np.arange(30) ** 2 / 100)
    for lag in (1, 5, 20):
        result = feature(bars_of(close), f"log_return_{lag}")
        assert np.isnan(result[:lag]).all()
        # (t^2 - (t - k)^2) / 100
        t = np.arange(lag, 30)
        np.testing.assert_allclose(result[lag:], (2 * t * lag - lag**2) / 100, atol=1e-12)


def test_volatility_by_hand():
    close = 100 * np.exp(np.cumsum([0.0, 0.1, -0.1, 0.3]))
    result = feature(bars_of(close), "volatility_2", volatility_window=2)
    # Two returns need three bars: |0.1 + 0.1| / sqrt(2), then |-0.1 - 0.3| / sqrt(2).
    np.testing.assert_allclose(result, [np.nan, np.nan, 0.2 / 2**0.5, 0.4 / 2**0.5])


def test_bollinger_b_by_hand():
    # Twenty closes, ten of 9 and ten of 11, the last of 11: mean 10, deviation 1, bands 8 and 12.
    result = feature(bars_of([9.0, 11.0] * 10), "bollinger_b")
    assert np.isnan(result[:19]).all()
    assert result[19] == pytest.approx((11 - 8) / (12 - 8))


@pytest.mark.parametrize("price", [0.37, 10.0, 123.45])
def test_a_flat_price_is_in_the_middle_of_its_band_and_nothing_moves(price):
    features = compute(bars_of(np.full(80, price), high=np.full(80, price)), 0, Config())
    last = dict(zip(features.names, features.values[-1], strict=True))
    assert last.pop("bollinger_b") == 0.5
    np.testing.assert_allclose(list(last.values()), 0.0, atol=1e-12, err_msg=str(list(last)))


def test_volume_z_of_constant_volume_is_0():
    result = feature(bars_of(np.arange(1.0, 61), volume=np.full(60, 12_345.0)), "volume_z_20")
    assert np.isnan(result[:19]).all()
    np.testing.assert_array_equal(result[19:], 0.0)


def test_volume_z_by_hand():
    volume = np.expm1([0.0, 0.0, 3.0, 3.0])  # log1p: 0 0 3 3
    result = feature(bars_of(np.ones(4), volume=volume), "volume_z_3", volatility_window=3)
    # mean 1, deviation sqrt(3); then mean 2, deviation sqrt(3)
    np.testing.assert_allclose(result[2:], [2 / 3**0.5, 1 / 3**0.5])


def test_prices_in_cents_or_dollars_have_the_same_features():
    bars = random_bars(0)
    cents = dataclasses.replace(
        bars, **{k: 100 * getattr(bars, k) for k in ("open", "high", "low", "close")}
    )
    one, two = compute(bars, 0, Config()), compute(cents, 0, Config())
    np.testing.assert_allclose(one.values, two.values, rtol=1e-6, atol=1e-8)


def test_indicators_are_talibs():
    bars = random_bars(1)
    high, low, close = bars.high[0], bars.low[0], bars.close[0]
    for name, expected in {
        "rsi_14": talib.RSI(close, 14),
        "atr_14": talib.ATR(high, low, close, 14) / close,
        "cci_14": talib.CCI(high, low, close, 14),
        "dx_14": talib.DX(high, low, close, 14),
        "macd": talib.MACD(close)[0] / close,
        "macd_signal": talib.MACD(close)[1] / close,
    }.items():
        np.testing.assert_array_equal(feature(bars, name), expected, err_msg=name)


def test_there_is_no_range_without_highs_and_no_volume_without_volume():
    full = compute(random_bars(2), 0, Config()).names
    closes = compute(bars_of(np.arange(1.0, 81)), 0, Config()).names
    assert set(full) - set(closes) == {"atr_14", "cci_14", "dx_14", "volume_z_20", "mood"}


def test_indicators_false_gives_returns_and_signals_only():
    bars = random_bars(3)
    features = compute(bars, 0, Config(indicators=False))
    assert features.names == ("log_return_1", "mood")
    assert features.warm_up == 1
    np.testing.assert_allclose(features.values[1:, 0], np.diff(np.log(bars.close[0])))
    np.testing.assert_array_equal(features.values[:, 1], bars.signals["mood"][0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(2, 30), st.integers(2, 30))
def test_there_is_no_nan_after_the_warm_up_and_the_warm_up_is_never_filled(seed, slow, fast):
    config = Config(volatility_window=slow, momentum_window=fast)
    features = compute(random_bars(seed), 0, config)
    assert 0 < features.warm_up < N
    assert np.isfinite(features.values[features.warm_up :]).all()
    # The row before still lacks something, and what a column lacks it lacks from the start.
    assert np.isnan(features.values[features.warm_up - 1]).any()
    missing = np.isnan(features.values)
    np.testing.assert_array_equal(missing, np.logical_and.accumulate(missing, axis=0))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, N - 2), st.booleans())
def test_what_comes_after_a_bar_changes_no_feature_up_to_it(seed, other, t, indicators):
    config = Config(indicators=indicators)
    old = random_bars(seed)
    new = spliced(old, random_bars(other), t)
    before = compute(old, 0, config)
    after = compute(new, 0, config)
    assert before.names == after.names
    assert before.warm_up == after.warm_up
    np.testing.assert_array_equal(before.values[: t + 1], after.values[: t + 1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, N - 1))
def test_a_shorter_history_has_the_same_features(seed, n):
    bars = random_bars(seed)
    series = {k: getattr(bars, k)[:, :n] for k in ("open", "high", "low", "close", "volume")}
    signals = {"mood": bars.signals["mood"][:, :n]}
    short = dataclasses.replace(bars, timestamps=bars.timestamps[:n], signals=signals, **series)
    np.testing.assert_array_equal(
        compute(short, 0, Config()).values, compute(bars, 0, Config()).values[:n]
    )


def test_features_are_of_the_symbol_asked_for():
    one, two = random_bars(4), random_bars(5)
    both = dataclasses.replace(
        one,
        symbols=("X", "Y"),
        signals={"mood": np.concatenate([one.signals["mood"], two.signals["mood"]])},
        **{
            k: np.concatenate([getattr(one, k), getattr(two, k)])
            for k in ("open", "high", "low", "close", "volume")
        },
    )
    for index, alone in enumerate((one, two)):
        np.testing.assert_array_equal(
            compute(both, index, Config()).values, compute(alone, 0, Config()).values
        )


def test_a_signal_may_not_take_the_name_of_an_indicator():
    bars = bars_of(np.arange(1.0, 81), signals={"macd": np.ones(80)})
    with pytest.raises(DataError, match="here: column macd has the name of an indicator; rename"):
        compute(bars, 0, Config())
    assert compute(bars, 0, Config(indicators=False)).names == ("log_return_1", "macd")


def test_a_feature_that_is_not_finite_is_named_with_its_bar():
    mood = np.ones(80)
    mood[70] = np.nan
    with pytest.raises(DataError, match=r"here, X, 2020-03-11T.*: feature mood is nan; look for"):
        compute(bars_of(np.arange(1.0, 81), signals={"mood": mood}), 0, Config())


@pytest.mark.parametrize(
    "options", [{"window": 0}, {"volatility_window": 1}, {"momentum_window": 1}]
)
def test_windows_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="must be at least"):
        Config(**options)


def test_stack_window_by_hand():
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    stacked, names = stack_window(values, ("a", "b"), 3)
    assert names == ("a", "b", "a[t-1]", "b[t-1]", "a[t-2]", "b[t-2]")
    nan = np.nan
    expected = [
        [1, 10, nan, nan, nan, nan],
        [2, 20, 1, 10, nan, nan],
        [3, 30, 2, 20, 1, 10],
    ]
    np.testing.assert_array_equal(stacked, expected)


def test_a_window_of_one_changes_nothing():
    values = np.arange(6.0).reshape(3, 2)
    stacked, names = stack_window(values, ("a", "b"), 1)
    np.testing.assert_array_equal(stacked, values)
    assert names == ("a", "b")


def test_realised_volatility_by_hand():
    returns = [0.1, -0.1, 0.3, 0.1]
    close = 100 * np.exp(np.cumsum([0.0, *returns]))
    expected = [
        0,
        0,
        np.std(returns[:2], ddof=1),
        *(np.std(returns[i : i + 3], ddof=1) for i in (0, 1)),
    ]
    np.testing.assert_allclose(realised_volatility(close, 3), expected)
    np.testing.assert_array_equal(realised_volatility(close[:1], 3), [0])
    np.testing.assert_array_equal(realised_volatility(close[:2], 3), [0, 0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, N - 2), st.integers(2, 40))
def test_realised_volatility_looks_back_only(seed, t, window):
    close = random_bars(seed).close[0]
    other = np.concatenate([close[: t + 1], random_bars(seed + 1).close[0][t + 1 :]])
    before, after = realised_volatility(close, window), realised_volatility(other, window)
    np.testing.assert_array_equal(before[: t + 1], after[: t + 1])
    assert np.isfinite(before).all()
    assert (before >= 0).all()


def test_realised_volatility_finds_the_true_one():
    close = geometric_brownian_motion(5000, volatility=0.3, seed=1).close[0]
    assert realised_volatility(close, 5000)[-1] * 252**0.5 == pytest.approx(0.3, rel=0.03)


def test_prices_that_stop_moving_have_finite_features_for_ever():
    rng = np.random.default_rng(0)
    close = np.full(3000, 7.3)
    close[:60] *= np.exp(np.cumsum(rng.normal(scale=0.2, size=60)))
    volume = np.append(rng.integers(0, 10**9, 60), np.full(2940, 12_345))
    features = compute(bars_of(close, high=close, low=close, volume=volume), 0, Config())
    # What running sums leave behind is not divided by itself.
    last = dict(zip(features.names, features.values[-1], strict=True))
    assert last["bollinger_b"] == 0.5
    assert last["volume_z_20"] == last["volatility_20"] == last["cci_14"] == 0
    assert np.isfinite(features.values[features.warm_up :]).all()
