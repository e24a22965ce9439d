"""The normaliser is scikit-learn's, as plain arrays in a file that can be read safely."""

import dataclasses
import json

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from sklearn.preprocessing import QuantileTransformer

from tradax.data.features import Config
from tradax.data.normalize import QuantileNormalizer
from tradax.data.pipeline import Pipeline
from tradax.data.synthetic import geometric_brownian_motion
from tradax.errors import DataError


def sample(seed=0, rows=500, columns=3):
    """Heavy tails, another scale, and a column of few values."""
    rng = np.random.default_rng(seed)
    values = rng.standard_t(3, size=(rows, columns)) * 10.0 ** np.arange(columns)
    values[:, -1] = np.round(values[:, -1], -2)
    return values


def names(values):
    return tuple(f"f{i}" for i in range(values.shape[1]))


def test_the_median_becomes_0_and_the_ends_are_clipped():
    values = np.arange(101.0)[:, None]
    normalizer = QuantileNormalizer.fit(values, ("x",))
    result = normalizer.transform(np.array([[50.0], [-1e9], [0.0], [100.0], [1e9]]))[:, 0]
    assert result[0] == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(result[1:], [-5.199338, -5.199338, 5.199338, 5.199338], rtol=1e-6)
    # 84.134 % of the rows lie below one deviation.
    assert normalizer.transform(np.array([[84.134]]))[0, 0] == pytest.approx(1.0, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(30, 1500))
def test_transform_is_exactly_that_of_scikit_learn(seed, rows):
    train = sample(seed, rows)
    transformer = QuantileTransformer(
        n_quantiles=min(1000, rows), output_distribution="normal", subsample=None
    ).fit(train)
    normalizer = QuantileNormalizer.fit(train, names(train))
    beyond = np.concatenate([train, sample(seed + 1, 50) * 10, [train.max(0), train.min(0)]])
    np.testing.assert_array_equal(normalizer.transform(beyond), transformer.transform(beyond))


def test_every_training_row_counts():
    # scikit-learn itself draws 10,000 rows at random unless told otherwise.
    values = np.arange(20_001.0)[:, None]
    normalizer = QuantileNormalizer.fit(values, ("x",), n_quantiles=3)
    np.testing.assert_array_equal(normalizer.quantiles[:, 0], [0, 10_000, 20_000])


def test_a_constant_feature_stays_finite():
    values = np.full((40, 1), 7.0)
    assert np.isfinite(QuantileNormalizer.fit(values, ("x",)).transform(values)).all()


def test_safetensors_gives_back_every_bit(tmp_path):
    values = sample()
    normalizer = QuantileNormalizer.fit(values, ("a", 'b "quoted"', "ü"))
    normalizer.save(tmp_path / "n.safetensors")
    back = QuantileNormalizer.load(tmp_path / "n.safetensors")
    assert back.names == normalizer.names
    np.testing.assert_array_equal(back.quantiles, normalizer.quantiles)
    np.testing.assert_array_equal(back.references, normalizer.references)
    np.testing.assert_array_equal(back.transform(values), normalizer.transform(values))


def test_the_joblib_file_opens_in_scikit_learn_with_the_same_numbers(tmp_path):
    values = sample()
    normalizer = QuantileNormalizer.fit(values, names(values))
    normalizer.write_joblib(tmp_path / "n.joblib")
    transformer = joblib.load(tmp_path / "n.joblib")
    assert type(transformer) is QuantileTransformer
    np.testing.assert_array_equal(transformer.transform(values), normalizer.transform(values))
    with np.errstate(all="ignore"):
        back = transformer.inverse_transform(transformer.transform(values))
    np.testing.assert_allclose(back, values, atol=1e-6 * np.abs(values).max())


GOOD = {"quantiles": np.array([[0.0], [1.0]]), "references": np.array([0.0, 1.0])}
METADATA = {"format": "tradax-normalizer", "names": '["x"]'}


def file_of(tensors=None, metadata=None):
    return save({**GOOD, **(tensors or {})}, {**METADATA, **(metadata or {})})


DAMAGED = {
    "empty": b"",
    "text": b"hello, this is no tensor file",
    "header too long": (2**40).to_bytes(8, "little") + b"{}",
    "truncated": file_of()[:-5],
    "without metadata": save(GOOD),
    "foreign": file_of(metadata={"format": "something else"}),
    "without names": save(GOOD, {"format": "tradax-normalizer"}),
    "names not JSON": file_of(metadata={"names": "x"}),
    "names no list": file_of(metadata={"names": "5"}),
    "other number of names": file_of(metadata={"names": json.dumps(["x", "y"])}),
    "without references": save({"quantiles": GOOD["quantiles"]}, METADATA),
    "other kind of number": file_of({"quantiles": GOOD["quantiles"].astype(np.float32)}),
    "one dimension": file_of({"quantiles": np.array([0.0, 1.0])}),
    "other length": file_of({"references": np.array([0.0, 0.5, 1.0])}),
    "no rows": file_of({"quantiles": np.zeros((0, 1)), "references": np.zeros(0)}),
    "NaN": file_of({"quantiles": np.array([[0.0], [np.nan]])}),
    "decreasing": file_of({"quantiles": np.array([[1.0], [0.0]])}),
    "references NaN": file_of({"references": np.array([0.0, np.nan])}),
    "references decreasing": file_of({"references": np.array([1.0, 0.0])}),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path, case):
    path = tmp_path / "n.safetensors"
    path.write_bytes(DAMAGED[case])
    with pytest.raises(DataError) as caught:
        QuantileNormalizer.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_file_that_the_damaged_ones_vary_is_good(tmp_path):
    (tmp_path / "n.safetensors").write_bytes(file_of())
    assert QuantileNormalizer.load(tmp_path / "n.safetensors").names == ("x",)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"none\.safetensors: no such file"):
        QuantileNormalizer.load(tmp_path / "none.safetensors")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_truncated_or_altered_byte_does_more_than_raise(tmp_path_factory, place, value):
    content = bytearray(file_of())
    content[place % len(content)] = value % 256
    path = tmp_path_factory.mktemp("bytes") / "n.safetensors"
    for damaged in (bytes(content), bytes(content[: place % len(content)])):
        path.write_bytes(damaged)
        try:
            loaded = QuantileNormalizer.load(path)
        except DataError:
            continue
        assert loaded.quantiles.shape == (2, 1)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 2**31 - 1), st.integers(1, 3))
def test_rows_after_the_training_span_change_nothing(seed, window):
    bars = geometric_brownian_motion(400, seed=1)
    fitted = Pipeline.fit(bars, Config(window=window))
    cut = fitted.splits.train.last + 1
    other = geometric_brownian_motion(400, seed=seed, volatility=0.9)
    series = {
        name: np.concatenate([getattr(bars, name)[:, :cut], getattr(other, name)[:, cut:]], axis=1)
        for name in ("open", "high", "low", "close", "volume")
    }
    again = Pipeline.fit(dataclasses.replace(bars, **series), Config(window=window))
    np.testing.assert_array_equal(again.normalizers[0].quantiles, fitted.normalizers[0].quantiles)
    np.testing.assert_array_equal(again.normalizers[0].references, fitted.normalizers[0].references)


def test_plain_arrays_give_back_the_normaliser():
    values = sample()
    normalizer = QuantileNormalizer.fit(values, names(values))
    back = QuantileNormalizer.from_arrays(normalizer.to_arrays(), normalizer.names)
    np.testing.assert_array_equal(back.transform(values), normalizer.transform(values))
