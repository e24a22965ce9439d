"""Sales walked step by step, and what every market that sells by a deadline must do."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tradax import training
from tradax.algorithms import ppo
from tradax.envs._baselines import Plan
from tradax.errors import TradaxError
from tradax.rollout import jax_source
from tradax.spaces import Factored


@eqx.filter_jit
def walk(source, actor, key, n_steps):
    return source.walk(actor, key, n_steps)


class Sale(NamedTuple):
    env: Any
    params: Any
    info: dict[str, np.ndarray]


def follow(env, params, actions, seed=0) -> Sale:
    """What the environment says at each step of `actions` [N, A], as numpy arrays."""
    plan = Plan(jnp.asarray(actions, jnp.float32))
    _, info = walk(jax_source(env, params), plan, jax.random.key(seed), len(plan.actions))
    return Sale(env, params, {name: np.asarray(x) for name, x in info.items()})


def first_sales(env, params, action_of):
    """What `action_of(params)` sells at first, for each of several parameters."""

    def first_sale(params):
        state = env.reset_state(jax.random.key(0), params)
        return env.step_state(jax.random.key(0), state, action_of(params), params)[3]["sold"]

    return jax.jit(jax.vmap(first_sale))(jax.tree.map(lambda *x: jnp.stack(x), *params))


def optimum_and_twap(baselines, env, params, model):
    """Two policies of the market's module of `baselines`, and the trades [N, ...] of each."""
    return (
        (baselines.almgren_chriss(env, params), model.trades()),
        (baselines.twap(env, params), model.twap()),
    )


def trained(env, params):
    """The policy that PPO learns in a minute."""
    config = ppo.Config(n_steps=20, gamma=1.0, gae_lambda=1.0, initial_log_std=-2.0)
    source = jax_source(env, params, num_envs=config.num_envs)
    algorithm = ppo.make(config, source.spec, jnp.float32(1))
    return training.train(algorithm, source, jax.random.key(0), total_timesteps=60_000).policy


def assert_costs_what_the_model_says(result, model, trades):
    """`result` is of 100,000 sales, `trades` [N, ...] what is sold in every step."""
    expected, sd = model.expected_shortfall(trades), np.sqrt(model.variance(trades))
    assert abs(result.shortfall - expected) < 3 * sd / np.sqrt(100_000)
    assert abs(result.sd - sd) < 3 * sd / np.sqrt(200_000)
    error = 4 * result.objective_error + 1e-5 * model.utility(trades)
    assert abs(result.objective - model.utility(trades)) < error


def assert_acts_alike_on_flat_and_factored_observations(policy, env, params, action):
    """Returns: the state after `action`, and the policy's own action in it."""
    state = env.reset_state(jax.random.key(0), params)
    state, *_ = jax.jit(env.step_state)(jax.random.key(0), state, action, params)
    flat = env.get_obs(state, params)
    factored = Factored(env.row(state)[None], env.account(state, params)[None])
    act, chosen = policy.actor(sample=False), policy.act(flat)
    for obs in (flat[None], factored):
        np.testing.assert_array_equal(act(obs, (), jax.random.key(0))[0], chosen[None])
    return state, chosen


def assert_terminates_at_its_deadline(env, n_assets):
    """As a gymnax environment; the default sale has five steps."""
    params = env.default_params
    obs, state = env.reset(jax.random.key(0), params)
    assert obs.shape == env.observation_space(params).shape
    ends = []
    for k in range(6):
        obs, state, _, terminated, truncated, info = env.step(
            jax.random.key(k), state, jnp.zeros(n_assets), params
        )
        ends.append(bool(terminated))
        assert not truncated
        assert np.isfinite(info["final_observation"]).all()
    assert ends == [False] * 4 + [True, False]


def assert_refuses_one_path_and_foreign_policies(assess, policy, env, params):
    with pytest.raises(TradaxError, match="paths is 1; it must be at least 2"):
        assess(policy, env, params, paths=1)
    foreign = dataclasses.replace(policy, spec=dataclasses.replace(policy.spec, account=9))
    with pytest.raises(TradaxError, match="the policy was made for"):
        assess(foreign, env, params, paths=2)
