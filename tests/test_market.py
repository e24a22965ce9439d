"""What all market environments share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tradax.draws import another_key, random_integer
from tradax.envs import trading

KEYS = {
    "split": lambda n: jax.random.split(jax.random.key(0), n),
    "seeds in a row": lambda n: jax.vmap(jax.random.key)(jnp.arange(n)),
    "one after the other": lambda n: jax.vmap(another_key)(jax.vmap(jax.random.key)(jnp.arange(n))),
}


@pytest.mark.parametrize("keys", KEYS)
def test_random_integers_are_uniform_and_streams_independent(keys):
    draws = 100_000
    keys = KEYS[keys](draws)
    for n in (2, 10, 97):
        draw = jax.vmap(random_integer, in_axes=(0, None, None))
        first, second = (np.asarray(draw(keys, jnp.int32(n), stream)) for stream in (0, 1))
        assert first.min() == 0
        assert first.max() == n - 1
        counts = np.zeros((n, n))
        np.add.at(counts, (first, second), 1)
        assert stats.chisquare(counts.sum(0)).pvalue > 1e-4
        assert stats.chisquare(counts.sum(1)).pvalue > 1e-4
        assert stats.chisquare(counts.ravel()).pvalue > 1e-4
        # Neither is one draw related to the next.
        np.add.at(counts := np.zeros((n, n)), (first[1:], first[:-1]), 1)
        assert stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_another_key_is_another_key_of_the_same_kind():
    for key in (jax.random.key(3), jax.random.PRNGKey(3), jax.random.key(3, impl="rbg")):
        other = another_key(key)
        assert other.dtype == key.dtype
        assert other.shape == key.shape
        assert float(jax.random.uniform(other)) != float(jax.random.uniform(key))


def test_an_end_by_ruin_on_the_last_row_is_a_termination_only():
    env = trading.Trading()
    params = env.default_params.replace(ruin_level=jnp.float32(2.0), random_start=jnp.bool_(False))
    params = params.replace(last_row=params.first_row + 1)
    _, state = env.reset(jax.random.key(0), params)
    *_, terminated, truncated, info = env.step(jax.random.key(1), state, jnp.zeros(2), params)
    assert bool(terminated)
    assert not bool(truncated)
    assert bool(info["terminated"])
    assert not bool(info["truncated"])
