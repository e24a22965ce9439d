"""Whatever happens after bar t changes nothing that is known at t, from file to observation."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradax.data import features
from tradax.data.pipeline import Pipeline
from tradax.data.synthetic import geometric_brownian_motion
from tradax.envs import trading

SERIES = ("open", "high", "low", "close", "volume")


def bars(seed, n=260):
    made = geometric_brownian_motion(n, volatility=0.4, seed=seed)
    signal = np.random.default_rng(seed).normal(size=(1, n))
    return replace(made, signals={"signal": signal})


def spliced(before, after, t):
    """`before` up to and with bar t, then `after`."""

    def splice(a, b):
        return np.concatenate([a[:, : t + 1], b[:, t + 1 :]], axis=1)

    series = {name: splice(getattr(before, name), getattr(after, name)) for name in SERIES}
    signals = {"signal": splice(before.signals["signal"], after.signals["signal"])}
    return replace(before, signals=signals, **series)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(60, 250), st.sampled_from([1, 4]), st.booleans())
def test_features_up_to_t(seed, t, window, indicators):
    config = features.Config(window=window, indicators=indicators)
    a = bars(seed)
    b = spliced(a, bars(seed + 1), t)
    ours, changed = (features.compute(x, 0, config) for x in (a, b))
    assert ours.warm_up == changed.warm_up
    np.testing.assert_array_equal(ours.values[: t + 1], changed.values[: t + 1])
    stacked = [features.stack_window(f.values, f.names, window)[0] for f in (ours, changed)]
    np.testing.assert_array_equal(stacked[0][: t + 1], stacked[1][: t + 1])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(200, 255), st.sampled_from([1, 3]))
def test_normaliser_table_and_observations_up_to_t(seed, t, window):
    config = features.Config(window=window)
    a = bars(seed)
    b = spliced(a, bars(seed + 1), t)
    pipelines = [Pipeline.fit(x, config, train=0.6, validation=0.2) for x in (a, b)]
    splits = pipelines[0].splits
    assert splits == pipelines[1].splits
    assert t > splits.train.last
    for name in ("quantiles", "references"):
        np.testing.assert_array_equal(
            *(getattr(p.normalizers[0], name) for p in pipelines), err_msg=name
        )
    markets = [p.transform(x)[0] for p, x in zip(pipelines, (a, b), strict=True)]
    np.testing.assert_array_equal(markets[0].table[: t + 1], markets[1].table[: t + 1])
    np.testing.assert_array_equal(markets[0].volatility[: t + 1], markets[1].volatility[: t + 1])
    observed = []
    for market in markets:
        env, params = trading.make(trading.Config(), market, splits.test)
        params = trading.over_span(params, splits.test._replace(first=t, last=259))
        observed.append(env.reset(jax.random.key(0), params)[0])
    np.testing.assert_array_equal(*observed)


def test_the_normaliser_sees_training_rows_only():
    a = bars(0)
    pipeline = Pipeline.fit(a)
    values = features.compute(a, 0, pipeline.config).values
    train = values[pipeline.splits.train.first : pipeline.splits.train.last + 1]
    quantiles = pipeline.normalizers[0].quantiles
    np.testing.assert_allclose(quantiles[0], train.min(0))
    np.testing.assert_allclose(quantiles[-1], train.max(0))


def test_a_look_ahead_would_be_seen():
    # The same property fails for a feature that uses tomorrow's close.
    a = bars(0)
    b = spliced(a, bars(1), 100)
    ahead = [np.append(np.diff(np.log(x.close[0])), 0.0) for x in (a, b)]
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(ahead[0][:101], ahead[1][:101])
