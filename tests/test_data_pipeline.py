"""Splits and the whole way from bars to an observation."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradax.data import features
from tradax.data.normalize import QuantileNormalizer
from tradax.data.pipeline import Pipeline
from tradax.data.splits import MINIMUM, Span, Splits, chronological
from tradax.data.synthetic import geometric_brownian_motion
from tradax.errors import DataError

N = 300
SERIES = ("open", "high", "low", "close", "volume")


def bars_of(*symbols, seed=0, n=N, signals=()):
    """Independent random bars of several symbols."""
    parts = [geometric_brownian_motion(n, seed=seed + i) for i in range(len(symbols))]
    rng = np.random.default_rng(seed)
    return dataclasses.replace(
        parts[0],
        symbols=symbols,
        signals={name: rng.normal(size=(len(symbols), n)) for name in signals},
        **{name: np.concatenate([getattr(p, name) for p in parts]) for name in SERIES},
    )


def cut(bars, rows):
    series = {name: getattr(bars, name)[:, rows] for name in SERIES}
    signals = {name: values[:, rows] for name, values in bars.signals.items()}
    return dataclasses.replace(bars, timestamps=bars.timestamps[rows], signals=signals, **series)


def spliced(old, new, after):
    """The bars `old` up to row `after`, and `new` from there on."""

    def join(a, b):
        return np.concatenate([a[:, : after + 1], b[:, after + 1 :]], axis=1)

    series = {name: join(getattr(old, name), getattr(new, name)) for name in SERIES}
    signals = {name: join(old.signals[name], new.signals[name]) for name in old.signals}
    return dataclasses.replace(old, signals=signals, **series)


def assert_same_pipeline(one, two):
    assert (one.config, one.symbols, one.splits) == (two.config, two.symbols, two.splits)
    for a, b in zip(one.normalizers, two.normalizers, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.names == b.names
            np.testing.assert_array_equal(a.quantiles, b.quantiles)
            np.testing.assert_array_equal(a.references, b.references)


def test_splits_by_hand():
    splits = chronological(120, 20, train=0.6, validation=0.25)
    assert splits == Splits(Span(20, 79), Span(80, 104), Span(105, 119))
    assert [span.rows for span in splits] == [60, 25, 15]


@settings(max_examples=100, deadline=None)
@given(st.integers(200, 2000), st.integers(0, 60), st.floats(0.25, 0.6), st.floats(0.1, 0.3))
def test_spans_follow_each_other_and_cover_all_rows_after_the_warm_up(n, warm_up, train, second):
    splits = chronological(n, warm_up, train=train, validation=second)
    rows = np.concatenate([np.arange(span.first, span.last + 1) for span in splits])
    np.testing.assert_array_equal(rows, np.arange(warm_up, n))
    assert abs(splits.train.rows - train * (n - warm_up)) <= 1
    assert abs(splits.validation.rows - second * (n - warm_up)) <= 1


@pytest.mark.parametrize(
    ("n", "fractions", "short"),
    [
        (10, {}, "train has 0 and needs 30"),
        (59, {"train": 0.75, "validation": 0.1}, "train has 29 and needs 30"),
        (80, {"train": 0.75, "validation": 0.1}, "validation has 6 and needs 10"),
        (80, {"train": 0.6, "validation": 0.3}, "test has 6 and needs 10"),
    ],
)
def test_a_span_of_too_few_rows_is_named(n, fractions, short):
    with pytest.raises(DataError, match=f"here: {n} rows are too few: after 20 rows .*{short}"):
        chronological(n, 20, source="here", **fractions)
    assert set(MINIMUM) == set(Splits._fields)


def test_the_table_by_hand():
    bars = bars_of("X", signals=("mood",))
    config = features.Config(indicators=False, window=2)
    pipeline = Pipeline.fit(bars, config, train=0.5, validation=0.25)
    (market,) = pipeline.transform(bars)
    assert market.names == ("log_return_1", "mood", "log_return_1[t-1]", "mood[t-1]")
    assert market.table.dtype == np.float32
    assert market.first_row == pipeline.splits.train.first == 2
    np.testing.assert_array_equal(market.table[:2], 0.0)
    returns = np.diff(np.log(bars.close[0]))
    mood = bars.signals["mood"][0]
    expected = [returns[98], mood[99], returns[97], mood[98]]
    np.testing.assert_allclose(market.table[99], expected, rtol=1e-5)
    np.testing.assert_array_equal(market.close, bars.close[0])
    np.testing.assert_array_equal(market.timestamps, bars.timestamps)
    assert (market.symbol, market.periods_per_year) == ("X", 252.0)


def test_training_rows_are_spread_as_a_standard_normal():
    bars = bars_of("X", n=1000)
    pipeline = Pipeline.fit(bars)
    (market,) = pipeline.transform(bars)
    train = market.table[pipeline.splits.train.first : pipeline.splits.train.last + 1]
    np.testing.assert_allclose(np.median(train, axis=0), 0.0, atol=0.02)
    inner = np.quantile(train, [0.158655, 0.841345], axis=0)
    np.testing.assert_allclose(
        inner, np.array([[-1.0], [1.0]]) * np.ones(train.shape[1]), atol=0.02
    )


def test_the_normaliser_is_fitted_on_training_rows_and_the_rows_they_stack():
    bars, config = bars_of("X"), features.Config(window=4)
    pipeline = Pipeline.fit(bars, config)
    computed = features.compute(bars, 0, config)
    assert pipeline.splits.train.first == computed.warm_up + 3
    rows = computed.values[computed.warm_up : pipeline.splits.train.last + 1]
    expected = QuantileNormalizer.fit(rows, computed.names)
    np.testing.assert_array_equal(pipeline.normalizers[0].quantiles, expected.quantiles)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_nothing_up_to_a_row_knows_what_comes_after_it(data):
    config = features.Config(
        window=data.draw(st.integers(1, 3), label="window"),
        indicators=data.draw(st.booleans(), label="indicators"),
    )
    bars = bars_of("X", "Y", signals=("mood",))
    fitted = Pipeline.fit(bars, config)
    t = data.draw(st.integers(fitted.splits.train.last, N - 2), label="t")
    seed = data.draw(st.integers(10, 2**20), label="seed")
    other = spliced(bars, bars_of("X", "Y", seed=seed, signals=("mood",)), t)
    again = Pipeline.fit(other, config)
    assert_same_pipeline(again, fitted)
    for before, after in zip(fitted.transform(bars), again.transform(other), strict=True):
        assert before.first_row == after.first_row
        np.testing.assert_array_equal(before.table[: t + 1], after.table[: t + 1])
        np.testing.assert_array_equal(before.volatility[: t + 1], after.volatility[: t + 1])
        assert not np.array_equal(before.table[t + 1 :], after.table[t + 1 :])


@pytest.mark.parametrize("indicators", [True, False])
def test_later_bars_continue_the_same_table(indicators):
    bars = bars_of("X", signals=("mood",))
    early = cut(bars, slice(0, 200))
    pipeline = Pipeline.fit(early, features.Config(indicators=indicators))
    (short,), (long,) = pipeline.transform(early), pipeline.transform(bars)
    np.testing.assert_array_equal(short.table, long.table[:200])
    assert np.isfinite(long.table).all()


SYMBOLS = ("AAPL",), ("A/B", "A.B", "../../etc", "a\\b", "", "x" * 300, "日本")


@pytest.mark.parametrize("symbols", SYMBOLS, ids=["one", "several"])
@pytest.mark.parametrize("indicators", [True, False])
def test_a_saved_pipeline_comes_back_the_same(tmp_path, symbols, indicators):
    bars = bars_of(*symbols)
    config = features.Config(indicators=indicators, window=2, momentum_window=7)
    pipeline = Pipeline.fit(bars, config)
    pipeline.save(tmp_path / "inner" / "p")
    back = Pipeline.load(tmp_path / "inner" / "p")
    assert_same_pipeline(back, pipeline)
    for one, two in zip(pipeline.transform(bars), back.transform(bars), strict=True):
        np.testing.assert_array_equal(one.table, two.table)


def test_no_symbol_writes_outside_the_folder(tmp_path):
    symbols = SYMBOLS[1]
    pipeline = Pipeline.fit(bars_of(*symbols))
    pipeline.save(tmp_path / "inner" / "p")
    pipeline.write_joblib(tmp_path / "inner" / "p")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent for path in files} == {tmp_path / "inner" / "p"}
    assert len(files) == 1 + 2 * len(symbols)


def test_other_symbols_are_refused():
    pipeline = Pipeline.fit(bars_of("A", "B"))
    for symbols in (("B", "A"), ("A",), ("A", "B", "C")):
        with pytest.raises(DataError) as caught:
            pipeline.transform(bars_of(*symbols))
        expected = f"symbols {', '.join(symbols)}; the features were fitted on A, B"
        assert str(caught.value) == f"synthetic:gbm: {expected}"


def test_other_features_are_refused():
    pipeline = Pipeline.fit(bars_of("A", signals=("mood",)))
    with pytest.raises(DataError, match=r"features log_return_1, .*; the normaliser was fitted on"):
        pipeline.transform(bars_of("A", signals=("news",)))


def test_too_few_bars_to_transform_are_refused():
    bars = bars_of("A")
    pipeline = Pipeline.fit(bars)
    first = pipeline.splits.train.first
    with pytest.raises(DataError, match=f"{first} rows are too few; the first {first} have no"):
        pipeline.transform(cut(bars, slice(0, first)))
    (market,) = pipeline.transform(cut(bars, slice(0, first + 1)))
    assert market.first_row == first


def damaged(change):
    """A good description with something changed in it, as text."""
    description = {
        "format": "tradax-pipeline",
        "version": 1,
        "config": {"indicators": False},
        "symbols": ["X"],
        "splits": {"train": [1, 50], "validation": [51, 70], "test": [71, 99]},
    }
    return json.dumps(description | change)


DAMAGED = {
    "empty": "",
    "not JSON": "{",
    "a list": "[]",
    "null": "null",
    "foreign": damaged({"format": "other"}),
    "of a later version": damaged({"version": 2}),
    "version text": damaged({"version": "x"}),
    "unknown option": damaged({"config": {"windw": 3}}),
    "option out of range": damaged({"config": {"window": 0}}),
    "config a list": damaged({"config": ["window"]}),
    "config null": damaged({"config": None}),
    "no symbols": damaged({"symbols": None}),
    "no splits": damaged({"splits": {}}),
    "a span of three": damaged({"splits": {"train": [1, 2, 3], "validation": [], "test": []}}),
    "a span of text": damaged({"splits": {"train": ["a", "b"]}}),
}


REASONS = {
    "empty": "is no JSON, or damaged (",
    "not JSON": "is no JSON, or damaged (",
    "of a later version": "format version 2 is newer than this tradax reads",
    "version text": "'x' is no version of a format",
}
"""Where it is not that the values are those of no pipeline."""


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_description_is_refused_by_name(tmp_path, case):
    path = tmp_path / "pipeline.json"
    path.write_text(DAMAGED[case])
    with pytest.raises(DataError) as caught:
        Pipeline.load(tmp_path)
    why = REASONS.get(case, "cannot be read as a pipeline (")
    assert str(caught.value).startswith(f"{path}: {why}")


def test_the_description_that_the_damaged_ones_vary_is_good(tmp_path):
    (tmp_path / "pipeline.json").write_text(damaged({}))
    assert Pipeline.load(tmp_path).splits.validation == Span(51, 70)


def test_a_folder_without_a_pipeline_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"pipeline\.json: no such file"):
        Pipeline.load(tmp_path)


def test_a_missing_normaliser_is_refused_by_name(tmp_path):
    Pipeline.fit(bars_of("A", "B")).save(tmp_path)
    (tmp_path / "normalizer-1-B.safetensors").unlink()
    with pytest.raises(DataError, match=r"normalizer-1-B\.safetensors: no such file"):
        Pipeline.load(tmp_path)


def test_a_signal_too_large_for_float32_is_refused():
    bars = bars_of("X", signals=("mood",))
    bars.signals["mood"][0, 200] = 1e300
    pipeline = Pipeline.fit(bars, features.Config(indicators=False))
    with pytest.raises(
        DataError, match="X: column mood holds values that are NaN or beyond the range of float32"
    ):
        pipeline.transform(bars)
    # The normaliser clips it.
    assert np.isfinite(Pipeline.fit(bars).transform(bars)[0].table).all()
