"""Trainers that expect gymnax environments take ours, through gymnax's own wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gymnax.wrappers.purerl import FlattenObservationWrapper, LogWrapper

from tradax.data.features import Config as FeatureConfig
from tradax.data.pipeline import Pipeline
from tradax.data.synthetic import geometric_brownian_motion
from tradax.envs import trading

ENVS, STEPS, UPDATES = 64, 16, 30


def rising_market():
    """Prices that double in a year: what pays is to buy, and to stay."""
    bars = geometric_brownian_motion(300, drift=0.7, volatility=0.05)
    pipeline = Pipeline.fit(bars, FeatureConfig(indicators=False))
    (market,) = pipeline.transform(bars)
    config = trading.Config(episode_length=STEPS)
    return trading.make(config, market, pipeline.splits.train)


def reinforce(env, params, key):
    """REINFORCE with a linear Gaussian policy, as pure-JAX trainers are written: one scan."""

    def rollout(weights, state, key):
        def one_step(carry, key):
            obs, env_state = carry
            act_key, *env_keys = jax.random.split(key, 1 + ENVS)
            noise = jax.random.normal(act_key, (ENVS, 2))
            action = obs @ weights["w"] + weights["b"] + noise
            stepped = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
                jnp.stack(env_keys), env_state, jnp.clip(action, -1, 1), params
            )
            obs_after, env_state, reward, terminated, truncated, info = stepped
            record = (obs, action, reward, terminated | truncated, info)
            return (obs_after, env_state), record

        return jax.lax.scan(one_step, state, jax.random.split(key, STEPS))

    def loss(weights, obs, action, advantage):
        error = action - (obs @ weights["w"] + weights["b"])
        return jnp.mean(0.5 * (error**2).sum(-1) * advantage)

    def update(carry, key):
        weights, opt_state, state = carry
        state, (obs, action, reward, _, info) = rollout(weights, state, key)
        to_go = jnp.cumsum(reward[::-1], axis=0)[::-1]
        advantage = to_go - to_go.mean(axis=1, keepdims=True)
        gradient = jax.grad(loss)(weights, obs, action, advantage / (advantage.std() + 1e-8))
        change, opt_state = optimiser.update(gradient, opt_state)
        ended = info["returned_episode"]
        mean = (info["returned_episode_returns"] * ended).sum() / ended.sum()
        return (optax.apply_updates(weights, change), opt_state, state), mean

    optimiser = optax.adam(0.1)
    size = env.observation_space(params).shape[0]
    weights = {"w": jnp.zeros((size, 2)), "b": jnp.zeros(2)}
    reset_key, key = jax.random.split(key)
    state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(reset_key, ENVS), params)
    carry = (weights, optimiser.init(weights), state)
    return jax.lax.scan(update, carry, jax.random.split(key, UPDATES))[1]


def test_a_trainer_for_gymnax_learns_to_buy_a_rising_market():
    market, params = rising_market()
    env = LogWrapper(FlattenObservationWrapper(market))
    returns = jax.jit(lambda key: reinforce(env, params, key))(jax.random.key(0))
    assert np.isfinite(returns).all()
    hold = 0.7 * STEPS / 252  # expected log return of holding, nearly
    assert returns[0] < 0.6 * hold
    assert returns[-3:].mean() > 0.8 * hold
