import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probes import Bandit, Delayed, Endless
from tradax import protocols, training
from tradax.algorithms import ppo
from tradax.config import from_dict
from tradax.errors import ConfigError
from tradax.rollout import jax_source
from updates import start, step

SMALL = ppo.Config(num_envs=16, n_steps=8, minibatches=4, hidden_sizes=(32,), gamma=0.9)


def trained(env, config=SMALL, timesteps=12_000, seed=0):
    source = jax_source(env, num_envs=config.num_envs)
    algorithm = ppo.make(config, source.spec, jnp.float32(1))
    result = training.train(algorithm, source, jax.random.key(seed), total_timesteps=timesteps)
    return result, source


VARIANTS = {
    "clip": {},
    "kl penalty": {"objective": "kl"},
    "shared network": {"shared_network": True},
    "target kl and value clip": {"target_kl": 0.05, "value_clip_range": 0.5},
    "relu, entropy bonus, reward clip": {
        "activation": "relu",
        "entropy_coefficient": 0.001,
        "reward_clip": 5.0,
    },
    "not normalised": {"normalize_observations": False, "normalize_rewards": False},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_a_contextual_bandit(variant):
    result, source = trained(Bandit(), dataclasses.replace(SMALL, **VARIANTS[variant]))
    returns, _ = source.episodes(result.policy.actor(sample=False), jax.random.key(1), 2)
    assert returns.mean() == 1.0


def test_credit_reaches_an_action_whose_reward_comes_later():
    result, source = trained(Delayed())
    returns, _ = source.episodes(result.policy.actor(sample=False), jax.random.key(1), 4)
    assert returns.mean() == 1.0


def test_values_look_beyond_a_truncation():
    config = dataclasses.replace(
        SMALL, normalize_rewards=False, learning_rate=3e-3, final_learning_rate_fraction=0.05
    )
    result, _ = trained(Endless(), config, timesteps=60_000)
    value = result.progress.state.learner.network.value(jnp.zeros((1, 2)))
    assert float(value[0]) == pytest.approx(1 / (1 - 0.9), rel=0.05)


def test_continuous_actions_are_stored_raw_and_sent_clipped():
    config = dataclasses.replace(SMALL, initial_log_std=1.5)
    source = jax_source("Pendulum-v1", num_envs=config.num_envs)
    algorithm = ppo.make(config, source.spec, jnp.float32(1))
    state = start(algorithm, source)
    _, experience, _ = eqx.filter_jit(algorithm.collect)(
        state.learner, source, state.carry, jax.random.key(1)
    )
    assert float(jnp.abs(experience.action).max()) > 2.0
    actions = algorithm.policy(state.learner).act(jnp.zeros((5, 3)), jax.random.key(0))
    assert float(jnp.abs(actions).max()) <= 2.0


def test_the_ratio_starts_at_one():
    # Whatever the normalisers did: at the first minibatch of an update nothing has changed yet.
    config = dataclasses.replace(SMALL, epochs=1, minibatches=1)
    source = jax_source("CartPole-v1", num_envs=config.num_envs)
    algorithm = ppo.make(config, source.spec, jnp.float32(10))
    state = start(algorithm, source)
    for _ in range(3):
        state, metrics, _ = step(algorithm, source, state)
        assert float(metrics["kl"]) == pytest.approx(0.0, abs=1e-6)
        assert float(metrics["clip_fraction"]) == 0.0


def test_a_tiny_target_kl_stops_the_update():
    source = jax_source("CartPole-v1", num_envs=16)
    moved = []
    for target in (None, 1e-9):
        config = dataclasses.replace(SMALL, target_kl=target, learning_rate=1e-2)
        algorithm = ppo.make(config, source.spec, jnp.float32(10))
        state = start(algorithm, source)
        new, _, _ = step(algorithm, source, state)
        before, after = (s.learner.network.actor.first.account for s in (state, new))
        moved.append(float(jnp.abs(after - before).max()))
    assert moved[1] < moved[0] / 3


def test_the_kl_weight_doubles_and_halves():
    source = jax_source("CartPole-v1", num_envs=16)
    config = dataclasses.replace(SMALL, objective="kl", kl_coefficient=1.0)
    algorithm = ppo.make(config, source.spec, jnp.float32(10))
    weight = jnp.float32(1.0)
    assert float(algorithm._adapted(weight, jnp.float32(0.02))) == 2.0
    assert float(algorithm._adapted(weight, jnp.float32(0.001))) == 0.5
    assert float(algorithm._adapted(weight, jnp.float32(0.01))) == 1.0


def test_seeds_side_by_side_equal_single_runs():
    config = dataclasses.replace(SMALL, n_steps=4)
    source = jax_source("CartPole-v1", num_envs=16)
    algorithm = ppo.make(config, source.spec, jnp.float32(1))
    keys = jax.random.split(jax.random.key(0), 3)
    together = training.train(
        algorithm, source, keys, total_timesteps=192, members=3, shared_source=True
    )
    for index in range(3):
        alone = training.train(algorithm, source, keys[index], total_timesteps=192)
        for a, b in zip(
            jax.tree.leaves(together.policy), jax.tree.leaves(alone.policy), strict=True
        ):
            np.testing.assert_allclose(a[index], b, atol=1e-4)


def test_wide_networks_run():
    result, _ = trained(
        "CartPole-v1", dataclasses.replace(SMALL, hidden_sizes=(512, 256, 128)), 512
    )
    assert result.rows[0][-1]["timesteps"] == 512


def test_a_learning_rate_does_not_compile_again():
    source = jax_source("CartPole-v1", num_envs=16)
    compiled = eqx.filter_jit(protocols.step)
    counts = []
    for rate in (1e-3, 1e-4):
        config = dataclasses.replace(SMALL, learning_rate=rate)
        algorithm = ppo.make(config, source.spec, jnp.float32(10))
        algorithm = jax.tree.map(jnp.float32, algorithm)
        state = training.start(algorithm, source, jax.random.key(0), axes=None).state
        compiled(algorithm, source, state)
        counts.append(compiled._cached._cache_size())
    assert counts[0] == counts[1]


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match="do not divide into 3 minibatches"):
        ppo.Config(minibatches=3)
    with pytest.raises(ConfigError, match="ppo has no option learning_rat; did you mean"):
        from_dict(ppo.Config, {"learning_rat": 1.0})
    with pytest.raises(ConfigError, match=r"ppo.gamma is 1.5; it must be at most 1"):
        ppo.Config(gamma=1.5)
