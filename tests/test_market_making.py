import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradax.envs import market_making
from tradax.envs import market_making_baselines as quoting
from tradax.envs._baselines import Plan
from tradax.envs.market_making import MarketMakingState
from tradax.errors import ConfigError, TradaxError
from tradax.evaluation.market_making import assess
from tradax.rollout import jax_source
from tradax.spaces import Factored

PATHS = 4_000  # as many as the paper's tables were made with


def make(**options):
    return market_making.make(market_making.Config(**options))


@functools.cache
def assessed(name, **options):
    env, params = make(**options)
    return assess(getattr(quoting, name)(env, params), env, params, paths=PATHS)


def near(value, expected, error):
    """Within four standard errors of both samples, and the rounding of the published digit."""
    return abs(value - expected) <= 4 * np.sqrt(2) * error + 0.05


@pytest.mark.parametrize(
    ("name", "gamma", "spread", "profit", "sd", "inventory_sd"),
    [
        ("avellaneda_stoikov", 0.1, 1.49, 64.9, 6.5, 2.9),
        ("symmetric", 0.1, 1.49, 68.2, 13.7, 8.4),
        ("avellaneda_stoikov", 0.01, 1.35, 68.3, 9.0, 5.2),
        # At this risk aversion the closed form quotes beyond the mid price.
        ("avellaneda_stoikov", 0.5, 2.16, 48.5, 5.9, 1.9),
    ],
)
def test_closed_form_and_symmetric_quotes_earn_what_the_literature_says(
    name, gamma, spread, profit, sd, inventory_sd
):
    wide = {"min_distance": -3.0, "max_distance": 5.0} if gamma == 0.5 else {}
    r = assessed(name, risk_aversion=gamma, **wide)
    assert r.spread == pytest.approx(spread, abs=0.006)
    assert near(r.profit, profit, sd / np.sqrt(PATHS))
    # The error of a standard deviation over n normal draws is sd / sqrt(2 n).
    assert near(r.sd, sd, sd / np.sqrt(2 * PATHS))
    assert near(r.inventory_sd, inventory_sd, inventory_sd / np.sqrt(2 * PATHS))
    assert r.utility == pytest.approx(r.profit - gamma / 2 * r.sd**2)


def test_exact_fills_are_rarer_than_linear_ones():
    env, params = make()
    exact, _ = make(fill_probability="exact")
    distance = jnp.array([0.0, 1.0, -5.0])
    expected = 140 * 0.005 * np.exp(-1.5 * np.array(distance))
    assert env.fill_chance(distance, params) == pytest.approx(np.minimum(expected, 1), rel=1e-5)
    assert exact.fill_chance(distance, params) == pytest.approx(1 - np.exp(-expected), rel=1e-5)


@pytest.mark.parametrize("chance", ["linear", "exact"])
def test_optimal_quotes_earn_the_value_that_dynamic_programming_says(chance):
    options = {"fill_probability": chance, "reward": "expected"}
    env, params = make(**options)
    r = assessed("optimal", **options)
    value = quoting.optimal_objective(env, params)
    assert abs(r.objective - value) < 4 * r.objective_error
    assert r.objective > assessed("avellaneda_stoikov", **options).objective


def test_a_step_of_the_optimum_by_hand():
    env, params = make(steps=1, horizon=0.005, reward="expected")
    # After the only step there is nothing to gain from inventory but the penalty of one share.
    penalty = 0.5 * 0.1 * 4 * 0.005
    bid = quoting.optimal(env, params).table[0, 50]
    # bid: a share costs the penalty unless the ask is filled too
    distance = env.distances(bid, params)
    other = 0.7 * np.exp(-1.5 * float(distance[0]))
    assert distance[0] == pytest.approx(1 / 1.5 + penalty * (1 - 2 * other), rel=1e-4)
    assert distance[1] == pytest.approx(float(distance[0]), rel=1e-6)


def test_both_rewards_have_the_same_mean():
    a, b = (assessed("avellaneda_stoikov", reward=r) for r in ("wealth", "expected"))
    assert abs(a.objective - b.objective) < 4 * np.hypot(a.objective_error, b.objective_error)
    assert b.objective_error < a.objective_error / 5
    assert a.profit == b.profit  # the same paths


def test_accounting_by_hand():
    env, params = make(intensity=200.0, risk_aversion=0.5)  # a quote at the mid price is filled
    state = env.reset_state(jax.random.key(0), params)
    bid_only = env.actions(jnp.array([0.0, 3.0]), params)
    ask_only = env.actions(jnp.array([3.0, 0.0]), params)
    keys = [k for k in map(jax.random.key, range(30)) if not _fills_far(env, params, k)]
    state, reward, terminated, info = env.step_state(keys[0], state, bid_only, params)
    assert info["filled"].tolist() == [1, 0]
    assert state.inventory == 1
    assert state.cash == -100
    move = float(state.move)
    penalty = 0.5 * 0.5 * 4 * 0.005
    assert reward == pytest.approx(move - penalty, abs=1e-5)
    assert info["wealth"] == pytest.approx(move, abs=1e-4)
    state, reward, terminated, info = env.step_state(keys[1], state, ask_only, params)
    assert state.inventory == 0
    assert state.cash == pytest.approx(move, abs=1e-4)
    assert reward == pytest.approx(0, abs=1e-6)  # sold at the mid price, nothing held
    assert not terminated


def _fills_far(env, params, key):
    state = env.reset_state(key, params)
    _, _, _, info = env.step_state(key, state, jnp.ones(2), params)
    return bool(info["filled"].any())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), limit=st.integers(1, 5))
def test_wealth_is_cash_plus_inventory_and_limits_hold(seed, limit):
    env, params = make()
    params = params.replace(inventory_limit=jnp.float32(limit))
    key, action_key = jax.random.split(jax.random.key(seed))
    actions = jax.random.uniform(action_key, (200, 2), minval=-1.0, maxval=-0.2)
    _, info = _walk(jax_source(env, params), actions, key)
    info = {name: np.asarray(value, np.float64) for name, value in info.items()}
    assert np.abs(info["inventory"]).max() <= limit
    total = info["cash"] + info["inventory"] * info["price"]
    assert info["wealth"] == pytest.approx(total, abs=1e-3)
    gained = np.diff(info["wealth"], prepend=0.0) - info["penalty"]
    assert info["reward"] == pytest.approx(gained, abs=2e-3)
    assert info["done"].tolist() == [False] * 199 + [True]
    # A side is quoted unless it would exceed the limit, and never filled where it is not.
    held = np.append(0, info["inventory"][:-1])
    assert info["quoted"][:, 0].tolist() == (held < limit).tolist()
    assert info["quoted"][:, 1].tolist() == (held > -limit).tolist()
    assert not (info["filled"] * (1 - info["quoted"])).any()


@eqx.filter_jit
def _walk(source, actions, key):
    return source.walk(Plan(actions), key, actions.shape[0])


def test_the_mid_price_is_arithmetic_brownian_motion():
    source = jax_source(*make())
    actions = jnp.zeros((200, 2))
    _, info = jax.vmap(lambda key: _walk(source, actions, key))(
        jax.random.split(jax.random.key(0), PATHS)
    )
    price = np.asarray(info["price"], np.float64)
    steps = np.diff(price, axis=1) / (2 * np.sqrt(0.005))
    assert abs(steps.mean()) < 4 / np.sqrt(steps.size)
    assert abs(steps.std() - 1) < 4 / np.sqrt(2 * steps.size)
    assert abs(price[:, -1].mean() - 100) < 4 * 2 / np.sqrt(PATHS)
    assert price[:, -1].std() == pytest.approx(2, rel=4 / np.sqrt(2 * PATHS))


def test_the_observation_holds_time_left_inventory_and_the_price_move():
    env, params = make()
    state = MarketMakingState(
        step=jnp.int32(50), move=jnp.float32(1.0), inventory=jnp.float32(3.0), cash=jnp.float32(0)
    )
    unit = np.sqrt(2 * 140 / np.e)
    assert env.get_obs(state, params) == pytest.approx([0.75, 3 / unit, 0.5], rel=1e-5)


def test_baselines_quote_the_same_from_flat_and_factored_observations():
    env, params = make()
    table = env.market_table(params)
    rows = jnp.array([0, 17, 120, 199])
    account = jnp.array([[0.0, 0], [0.3, 1], [-0.5, -1], [1.0, 0]])
    for policy in quoting.baselines(env, params).values():
        factored, _, _ = policy.actor(sample=False)(Factored(rows, account), (), jax.random.key(0))
        flat = jnp.concatenate([table[rows], account], axis=-1)
        assert policy.act(flat).tolist() == factored.tolist()
        seen, _, _ = policy.actor(sample=False)(flat, (), jax.random.key(0))
        assert seen.tolist() == factored.tolist()


def test_reservation_price_and_spread_by_hand():
    env, params = make()
    policy = quoting.avellaneda_stoikov(env, params)
    unit = float(params.inventory_unit)
    bid, ask = env.distances(policy.act(jnp.array([0.5, 2 / unit, 0.0])), params)
    # r - s = -2 x 0.1 x 4 x 0.5; spread 0.1 x 4 x 0.5 + 20 ln(1 + 0.1 / 1.5)
    half = (0.2 + 20 * np.log(1 + 0.1 / 1.5)) / 2
    assert bid == pytest.approx(half + 0.4, abs=1e-5)
    assert ask == pytest.approx(half - 0.4, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"volatility": 0.0}, "market_making.volatility is 0.0; it must be above 0"),
        ({"min_distance": 3.0}, "below max_distance"),
        ({"steps": 100}, "take at least 140 steps"),
        ({"inventory_limit": 0}, "must be at least 1"),
        ({"reward": "utility"}, "one of wealth, expected"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        make(**options)


def test_data_is_refused_because_there_is_no_use_for_it():
    with pytest.raises(ConfigError, match="takes no data"):
        market_making.make(market_making.Config(), market=object())


def test_a_policy_for_other_observations_is_refused():
    env, params = make()
    policy = quoting.symmetric(env, params)
    with pytest.raises(TradaxError, match="paths is 1"):
        assess(policy, env, params, paths=1)
    from tradax.envs import trading

    other = trading.Trading()
    with pytest.raises(TradaxError, match="the policy was made for"):
        assess(policy, other, other.default_params)
