"""A chunk of training moves nothing between host and device."""

import jax
import pytest

from tradax import discovery, training, updates
from tradax.config import from_dict
from tradax.data.pipeline import Pipeline
from tradax.data.synthetic import geometric_brownian_motion
from tradax.envs import trading
from tradax.rollout import jax_source

SMALL = {
    "ppo": {"num_envs": 4, "n_steps": 8, "minibatches": 2, "epochs": 1, "hidden_sizes": [8]},
    "sac": {"num_envs": 4, "hidden_sizes": [8], "replay_size": 256},
    "cem": {"hidden_sizes": [8]},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_chunk_on_a_market_moves_nothing_to_or_from_the_device(name):
    bars = geometric_brownian_motion(300, seed=0)
    pipeline = Pipeline.fit(bars)
    market = pipeline.transform(bars)[:1]
    source = jax_source(*trading.make(trading.Config(), market, pipeline.splits.train))
    module = discovery.module("algorithms", name)
    config = from_dict(module.Config, SMALL[name])
    source = source.of(getattr(config, "num_envs", 4))
    algorithm = training.with_arrays(module.make(config, source.spec, 1.0), 2, None)
    algorithm, source = jax.device_put((algorithm, source))
    progress = training.start(algorithm, source.outline, jax.random.key(0), axes=None)
    with jax.transfer_guard("disallow"):
        state, _, _, finite, done = updates.run(algorithm, source, progress.state, progress.sums, 2)
        state, finite, done = jax.block_until_ready((state, finite, done))
    assert bool(finite)
    assert int(done) == 2 == int(state.update)
