"""Normalisers from scikit-learn, against scikit-learn."""

import dataclasses

import joblib
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, RobustScaler, StandardScaler

from tradax import preparation
from tradax.data.bars import Bars
from tradax.data.features import Config
from tradax.data.normalize import QuantileNormalizer
from tradax.data.pipeline import Pipeline
from tradax.data.scaling import from_sklearn, load_normalizer
from tradax.data.synthetic import geometric_brownian_motion
from tradax.errors import ConfigError, DataError

NAMES = ("a", "b", "c")
OBJECTS = [
    StandardScaler(),
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    RobustScaler(quantile_range=(5, 95)),
    RobustScaler(with_centering=False),
    QuantileTransformer(n_quantiles=50, output_distribution="normal"),
    QuantileTransformer(n_quantiles=50, output_distribution="uniform"),
]


def values(rows=300, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_t(3, size=(rows, 3)) * [1.0, 100.0, 1e-4] + [0, 5, 0]


def hard(train):
    """Later rows, beyond the range, and NaN."""
    later = np.concatenate([values(50, 1) * 20, [train.min(0), train.max(0), [1e9, -1e9, 0.0]]])
    later[3, 1] = np.nan
    return later


@pytest.mark.parametrize("given", OBJECTS, ids=str)
def test_the_numbers_are_those_of_the_object_also_from_its_file(given, tmp_path):
    train = values()
    fitted = type(given)(**given.get_params()).fit(train)
    for normalizer in (from_sklearn(given, train, NAMES), from_sklearn(fitted, train[:0], NAMES)):
        normalizer.save(tmp_path / "n.safetensors")
        normalizer.write_joblib(tmp_path / "n.joblib")
        wanted = fitted.transform(hard(train))
        for found in (normalizer, load_normalizer(tmp_path / "n.safetensors"),
                      joblib.load(tmp_path / "n.joblib")):  # fmt: skip
            np.testing.assert_allclose(found.transform(hard(train)), wanted, rtol=1e-12, atol=1e-12)
    assert not hasattr(given, "n_features_in_")


def test_an_object_that_does_not_fit_is_refused():
    train = values()
    with pytest.raises(ConfigError, match="is a MinMaxScaler; give"):
        from_sklearn(MinMaxScaler(), train, NAMES)
    with pytest.raises(ConfigError, match="fitted on 2 features and these data have 3: a, b, c"):
        from_sklearn(StandardScaler().fit(train[:, :2]), train, NAMES)
    frame = pl.DataFrame(train, schema=["b", "a", "c"])
    with pytest.raises(ConfigError, match="b, a, c, in this order"):
        from_sklearn(StandardScaler().fit(frame.to_pandas()), train, NAMES)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        save({"center": np.zeros(2), "scale": np.ones(3)}, {"format": "tradax-scaler"}),
        *(
            save(
                {"center": np.zeros(3), "scale": scale},
                {"format": "tradax-scaler", "names": '["a", "b", "c"]', "kind": kind},
            )
            for scale, kind in (
                (np.array([1.0, 0.0, 1.0]), "StandardScaler"),
                (np.array([1.0, np.nan, 1.0]), "StandardScaler"),
                (np.ones(3, np.float32), "StandardScaler"),
                (np.ones(3), "FunctionTransformer"),
            )
        ),
    ],
)
def test_a_damaged_file_is_refused_by_name(content, tmp_path):
    (tmp_path / "n.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"n\.safetensors"):
        load_normalizer(tmp_path / "n.safetensors")


def bars() -> Bars:
    return geometric_brownian_motion(400, seed=1)


def test_a_pipeline_fits_it_on_training_rows_and_keeps_its_numbers(tmp_path):
    own = Pipeline.fit(bars())
    pipeline = Pipeline.fit(bars(), normalizer=StandardScaler())
    (market,) = pipeline.transform(bars())
    span = pipeline.splits.train
    train = market.table[span.first : span.last + 1]
    assert np.abs(train.mean(0)).max() < 0.1
    assert np.abs(market.table).max() > 5.2 or np.abs(train.std(0) - 1).max() < 0.1
    pipeline.save(tmp_path)
    np.testing.assert_array_equal(Pipeline.load(tmp_path).transform(bars())[0].table, market.table)
    assert isinstance(own.normalizers[0], QuantileNormalizer)
    with pytest.raises(ConfigError, match="leave out one of the two"):
        Pipeline.fit(bars(), Config(indicators=False), normalizer=StandardScaler())


def test_a_run_takes_it_up_again_from_its_folder(tmp_path):
    request = preparation.Request(
        algorithm="ppo", env="trading", data="synthetic:gbm", total_timesteps=1,
        normalizer="RobustScaler",
    )  # fmt: skip
    task = preparation.prepare(request, normalizer=RobustScaler())
    assert task.pipeline is not None
    task.pipeline.save(tmp_path)
    again = preparation.prepare(request, normalizer=preparation.saved_normalizer(request, tmp_path))
    np.testing.assert_array_equal(again.markets[0][0].table, task.markets[0][0].table)
    no_market = dataclasses.replace(request, env="CartPole-v1", data=None)
    with pytest.raises(ConfigError, match="leave out normalizer"):
        preparation.prepare(no_market)
