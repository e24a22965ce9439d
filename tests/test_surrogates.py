"""Destroyed prices have what the real ones have, but for the order in time."""

import numpy as np
import pytest

from tradax.data.bars import Bars
from tradax.data.splits import Span, Splits
from tradax.data.surrogates import KINDS, gaussian, shuffled

ROWS = 3_000
SPLITS = Splits(Span(40, 1_999), Span(2_000, 2_499), Span(2_500, ROWS - 1))
CUTS = (slice(1, 2_001), slice(2_001, 2_501), slice(2_501, ROWS))


def real(has_range=True) -> Bars:
    """Two symbols that move together; calm at first, then volatile."""
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(ROWS) < 2_200, 0.01, 0.03)
    common = rng.standard_t(4, ROWS)
    moves = scale * (common + 0.5 * rng.standard_normal((2, ROWS))) + 0.0005
    close = 100.0 * np.exp(np.cumsum(moves, axis=1))
    before = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
    open = before * np.exp(0.3 * (np.log(close / before)))
    top, bottom = np.maximum(open, close), np.minimum(open, close)
    high, low = top * (1 + 0.01 * rng.random((2, ROWS))), bottom * (1 - 0.01 * rng.random(ROWS))
    if not has_range:
        open = high = low = close
    return Bars(
        symbols=("A", "B"),
        timestamps=np.datetime64("2000-01-03", "us") + np.arange(ROWS) * np.timedelta64(1, "D"),
        open=open,
        high=high,
        low=low,
        close=close,
        volume=1e6 * rng.random((2, ROWS)),
        signals={"mood": np.stack([np.arange(ROWS), np.arange(ROWS)]).astype(float)},
        has_range=has_range,
        has_volume=True,
        source="test",
    )


def returns(bars: Bars) -> np.ndarray:
    return np.log(bars.close[:, 1:] / bars.close[:, :-1])  # of bar 1 on


def test_shuffling_puts_whole_bars_in_another_order_and_keeps_each_span_to_itself():
    bars = real()
    other = shuffled(bars, SPLITS, np.random.default_rng(1))
    order = other.signals["mood"][0].astype(int)
    assert order[0] == 0
    for rows in CUTS:
        assert sorted(order[rows]) == list(range(ROWS)[rows])
        assert np.mean(order[rows] == np.arange(ROWS)[rows]) < 0.05
        # The span ends where it ended, so its drift is the real one.
        last = rows.stop - 1
        np.testing.assert_allclose(other.close[:, last], bars.close[:, last], rtol=1e-9)
    np.testing.assert_allclose(returns(other), returns(bars)[:, order[1:] - 1], atol=1e-9)
    for name in ("open", "high", "low"):
        wanted = (getattr(bars, name) / bars.close)[:, order]
        np.testing.assert_allclose(getattr(other, name) / other.close, wanted, rtol=1e-9)
    np.testing.assert_array_equal(other.volume, bars.volume[:, order])
    np.testing.assert_array_equal(other.timestamps, bars.timestamps)
    # The same bar for both symbols: what they have in common stays.
    assert np.corrcoef(returns(other))[0, 1] == pytest.approx(np.corrcoef(returns(bars))[0, 1])


def test_noise_is_gaussian_with_the_mean_deviation_and_correlation_of_its_span():
    bars = real()
    other = gaussian(bars, SPLITS, np.random.default_rng(1))
    for rows in CUTS:
        shifted = slice(rows.start - 1, rows.stop - 1)
        was, now = returns(bars)[:, shifted], returns(other)[:, shifted]
        error = was.std() / np.sqrt(was.shape[1])
        np.testing.assert_allclose(now.mean(axis=1), was.mean(axis=1), atol=4 * error)
        np.testing.assert_allclose(now.std(axis=1), was.std(axis=1), rtol=0.12)
        assert np.corrcoef(now)[0, 1] == pytest.approx(np.corrcoef(was)[0, 1], abs=0.06)
    first = returns(other)[0, :2_000]
    kurtosis = np.mean(((first - first.mean()) / first.std()) ** 4)
    assert kurtosis == pytest.approx(3.0, abs=0.5)  # the real one's is above 5
    assert set(other.volume[0, CUTS[2]]) <= set(bars.volume[0, CUTS[2]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_range", [True, False])
def test_destroyed_bars_are_bars(kind, has_range):
    bars = real(has_range)
    other = KINDS[kind](bars, SPLITS, np.random.default_rng(2))
    top, bottom = np.maximum(other.open, other.close), np.minimum(other.open, other.close)
    assert (other.high >= top * (1 - 1e-12)).all()
    assert (other.low <= bottom * (1 + 1e-12)).all()
    if not has_range:
        for name in ("open", "high", "low"):
            np.testing.assert_allclose(getattr(other, name), other.close, rtol=1e-12)
    again = KINDS[kind](bars, SPLITS, np.random.default_rng(2))
    np.testing.assert_array_equal(again.close, other.close)
    different = KINDS[kind](bars, SPLITS, np.random.default_rng(3))
    assert not np.array_equal(different.close, other.close)
