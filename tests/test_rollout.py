import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probes import Delayed, Endless
from tradax import rollout
from tradax.errors import TradaxError
from tradax.protocols import Actor
from tradax.rollout import jax_source


class Always(Actor):
    """One action for ever; its memory counts the steps of the episode."""

    action: jax.Array

    def initial_memory(self, batch):
        return jnp.zeros(batch, jnp.int32)

    def __call__(self, obs, memory, key):
        batch = jax.tree.leaves(obs)[0].shape[0]
        action = jnp.broadcast_to(self.action, (batch, *self.action.shape))
        return action, memory + 1, {"memory": memory}


def test_the_true_next_observation_is_kept_where_the_episode_was_reset():
    source = jax_source(Delayed(), num_envs=2)
    actor = Always(jnp.int32(1))
    carry = eqx.filter_jit(source.reset)(jax.random.key(0), actor)
    _, experience, finished = eqx.filter_jit(source.collect)(carry, actor, jax.random.key(1), 7)
    time, next_time = experience.obs[..., 1], experience.next_obs[..., 1]
    assert time[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert next_time[:, 0].tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert experience.terminated[:, 0].tolist() == [False, False, True] * 2 + [False]
    assert experience.reward[:, 0].tolist() == [0, 0, 1, 0, 0, 1, 0]
    # What the actor remembers is forgotten with the episode.
    assert experience.extras["memory"][:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert finished.episodes == 4
    assert finished.return_sum == 4
    assert finished.length_sum == 12


def test_a_time_limit_truncates_and_does_not_terminate():
    source = jax_source(Endless(), num_envs=3)
    actor = Always(jnp.int32(0))
    carry = eqx.filter_jit(source.reset)(jax.random.key(0), actor)
    _, experience, _ = eqx.filter_jit(source.collect)(carry, actor, jax.random.key(1), 10)
    assert not experience.terminated.any()
    assert experience.truncated[:, 0].tolist() == ([False] * 4 + [True]) * 2


def test_collecting_twice_continues_where_the_first_stopped():
    source = jax_source("CartPole-v1", num_envs=2)
    actor = Always(jnp.int32(1))
    carry = eqx.filter_jit(source.reset)(jax.random.key(0), actor)
    carry, first, _ = eqx.filter_jit(source.collect)(carry, actor, jax.random.key(1), 5)
    _, second, _ = eqx.filter_jit(source.collect)(carry, actor, jax.random.key(2), 5)
    np.testing.assert_array_equal(first.next_obs[-1], second.obs[0])


def test_episodes_count_only_until_each_first_end():
    source = jax_source(Delayed(), num_envs=4)
    returns, lengths = source.episodes(Always(jnp.int32(1)), jax.random.key(0), 100)
    assert returns.tolist() == [1.0] * 4
    assert lengths.tolist() == [3.0] * 4


def test_environments_start_differently_and_keys_decide():
    source = jax_source("Pendulum-v1", num_envs=8)
    actor = Always(jnp.zeros(1))
    first = eqx.filter_jit(source.reset)(jax.random.key(0), actor).obs
    assert len(np.unique(first[:, 0])) == 8
    np.testing.assert_array_equal(first, eqx.filter_jit(source.reset)(jax.random.key(0), actor).obs)
    assert source.spec.action.low == (-2.0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CartPole-v9",), "unknown environment CartPole-v9; did you mean CartPole-v1"),
        (("CartPole-v1", None, 0), "num_envs is 0"),
    ],
)
def test_bad_sources_are_refused(arguments, message):
    env, params, num_envs = (*arguments, None, 1)[:3] if len(arguments) < 3 else arguments
    with pytest.raises(TradaxError, match=message):
        jax_source(env, params, num_envs=num_envs)


def test_a_rollout_is_the_same_with_its_state_packed_and_apart(monkeypatch):
    source = jax_source("CartPole-v1", num_envs=16)
    actor = Always(jnp.int32(1))
    carry = eqx.filter_jit(source.reset)(jax.random.key(0), actor)

    def collected(few):
        monkeypatch.setattr(rollout, "_FEW", few)
        # A function of its own, so that the program is traced again.
        run = eqx.filter_jit(lambda carry, key: source.collect(carry, actor, key, 12))
        return run(carry, jax.random.key(1))

    packed, apart = collected(16), collected(15)
    assert float(packed[2].episodes) >= 16
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), packed, apart)
