import subprocess
import sys
import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import tradax.envs
from tradax import discovery
from tradax.envs._gymnasium import TradaxEnv
from tradax.errors import TradaxError
from tradax.sources import market_in, source_of

IDS = tradax.envs.register()
SHORT = {"data": "sp500", "episode_length": 3, "features": {"indicators": False}}


def test_every_market_has_an_id():
    assert len(IDS) == len(discovery.environments())
    assert {"tradax/Trading-v0", "tradax/DiscreteTrading-v0", "tradax/MarketMaking-v0"} <= set(IDS)
    assert all(name in gymnasium.registry for name in IDS)


@pytest.mark.parametrize("name", IDS)
def test_both_checkers_have_nothing_to_say(name):
    env = gymnasium.make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
        check_env_sb3(env.unwrapped)
    assert env.observation_space.dtype == np.float32


def test_steps_are_those_of_the_market():
    env = gymnasium.make("tradax/Trading-v0", **SHORT)
    market, params = env.unwrapped.tradax_env, env.unwrapped.tradax_params
    obs, _ = env.reset(seed=1)
    state = env.unwrapped._state
    np.testing.assert_array_equal(obs, market.get_obs(state, params))
    step = jax.jit(market.step_state)
    for action in np.array([[1.0, 1.0], [-1.0, 0.0], [0.0, 0.0]], np.float32):
        obs, reward, terminated, truncated, info = env.step(action)
        state, expected, _, expected_info = step(jax.random.key(0), state, action, params)
        np.testing.assert_allclose(obs, market.get_obs(state, params), rtol=1e-6)
        assert reward == pytest.approx(float(expected), abs=1e-7)
        assert info["row"] == expected_info["row"]
        assert info["row"].dtype == np.int32
        assert info["net_worth"] == pytest.approx(float(expected_info["net_worth"]))
    assert (terminated, truncated) == (False, True)


def test_equal_seeds_give_equal_episodes():
    env = gymnasium.make("tradax/MarketMaking-v0")
    first, second, other = (play(env, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def play(env, seed):
    env.reset(seed=seed)
    action = np.zeros(env.action_space.shape, np.float32)
    return np.stack([env.step(action)[0] for _ in range(5)])


def test_actions_are_scaled_to_the_bounds_of_the_market():
    env = gymnasium.make("tradax/Portfolio-v0", data="us20", symbols=["AAPL", "JPM"])
    assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    market, params = env.unwrapped.tradax_env, env.unwrapped.tradax_params
    env.reset(seed=0)
    action = np.array([1.0, 0.0, -1.0], np.float32)
    info = env.step(action)[-1]
    low, high = (
        np.array(x) for x in (market.action_space(params).low, market.action_space(params).high)
    )
    target = market.weights(jnp.asarray(low + (action + 1) / 2 * (high - low)), params)
    assert info["weights"].shape == (2,)
    np.testing.assert_allclose(info["weights"][0], target[0], atol=0.02)


def test_a_vector_of_environments_keeps_true_final_observations():
    envs = gymnasium.make_vec("tradax/Trading-v0", num_envs=4, **SHORT)
    assert envs.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP
    params = envs.tradax_params
    first, _ = envs.reset(seed=3)
    np.testing.assert_array_equal(first, envs.reset(seed=3)[0])
    assert envs.observation_space.contains(first)
    action = np.tile(np.float32([1.0, 1.0]), (4, 1))
    for _ in range(2):
        obs, _, terminated, truncated, infos = envs.step(action)
        assert not (terminated | truncated).any()
        assert "final_obs" not in infos
        assert infos["_row"].all()
    rows = infos["row"]
    obs, reward, terminated, truncated, infos = envs.step(action)
    assert truncated.all()
    assert not terminated.any()
    assert infos["final_info"]["row"].tolist() == (rows + 1).tolist()
    for i in range(4):
        np.testing.assert_array_equal(infos["final_obs"][i][:-3], params.table[rows[i] + 1])
        assert infos["final_obs"][i][-3] > 0.9  # invested; after the reset in cash
        assert obs[i][-3:].tolist() == [0, 1, 0]
    assert reward.shape == (4,)


def test_spans_follow_one_another_and_share_the_normaliser():
    train, test = (
        market_in(gymnasium.make("tradax/Trading-v0", span=span)).params
        for span in ("train", "test")
    )
    assert int(train.last_row) < int(test.first_row)
    np.testing.assert_array_equal(train.table, test.table)
    env = gymnasium.make("tradax/DiscreteTrading-v0", span="test")
    env.reset(seed=0)
    assert env.step(0)[-1]["row"] == int(test.first_row) + 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Trading", {"comission_bps": 1}, "comission_bps"),
        ("Trading", {"span": "future"}, "span is future"),
        ("Trading", {"data": "nope"}, "no such file, nor a sample"),
        ("MarketMaking", {"data": "sp500"}, "simulates its prices; leave out data"),
    ],
)
def test_bad_options_are_refused_by_name(name, options, message):
    with pytest.raises(TradaxError, match=message):
        gymnasium.make(f"tradax/{name}-v0", **options)


@pytest.mark.parametrize("modules", ["gymnasium, tradax", "tradax.envs, gymnasium"])
def test_importing_tradax_beside_gymnasium_registers_its_markets(modules):
    code = (
        f"import sys, {modules}\n"
        "assert 'jax' not in sys.modules\n"
        "assert 'tradax/Trading-v0' in gymnasium.registry\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_market_made_by_gymnasium_is_trained_on_the_device():
    env = gymnasium.make("tradax/Trading-v0", **SHORT)
    assert isinstance(env.unwrapped, TradaxEnv)
    source = source_of(env, num_envs=2)
    assert source.jittable
    assert source.spec.market > 0
