from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradax.data.pipeline import Market
from tradax.data.splits import Span
from tradax.envs import _baselines, trading
from tradax.envs._rewards import differential_sharpe, moments
from tradax.errors import ConfigError, DataError
from tradax.evaluation.backtest import walked
from tradax.rollout import jax_source

BUY, SELL, HOLD = 1.0, -1.0, 0.0


def market(open, high, low, close, volume=None, volatility=None, features=2, **changes):
    n = len(close)
    values = {
        "symbol": "X",
        "timestamps": np.datetime64("2000-01-03", "us") + np.arange(n) * np.timedelta64(1, "D"),
        "open": np.asarray(open, float),
        "high": np.asarray(high, float),
        "low": np.asarray(low, float),
        "close": np.asarray(close, float),
        "volume": np.full(n, 1e6) if volume is None else np.asarray(volume, float),
        "volatility": np.full(n, 0.01) if volatility is None else np.asarray(volatility, float),
        "table": np.arange(n * features, dtype=np.float32).reshape(n, features),
        "names": tuple(f"f{i}" for i in range(features)),
        "first_row": 0,
        "periods_per_year": 252.0,
        "has_range": True,
        "has_volume": True,
    }
    return Market(**{**values, **changes})


def random_market(seed, n=40):
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(0.03 * rng.normal(size=n)))
    open = close * np.exp(0.02 * rng.normal(size=n))
    high = np.maximum(open, close) * (1 + 0.02 * rng.random(n))
    low = np.minimum(open, close) * (1 - 0.02 * rng.random(n))
    return market(open, high, low, close, volume=rng.integers(1, 10**6, n))


def walk(m, actions, **options):
    """The account after each action, as numpy arrays."""
    env, params = trading.make(trading.Config(**options), m, Span(0, len(m.close) - 1))
    params = trading.over_span(params, Span(0, len(m.close) - 1))
    source = jax_source(env, params)
    plan = _baselines.Plan(jnp.array(actions, jnp.float32))
    _, info = walked(source, plan, jax.random.key(0), len(actions))
    return {name: np.asarray(value, np.float64) for name, value in info.items()}


FLAT = {"commission_bps": 0.0, "half_spread_bps": 0.0, "initial_cash": 1000.0}


def test_an_order_on_bar_t_fills_at_the_open_of_the_next_bar():
    m = market([10, 20, 40], [30, 30, 50], [5, 15, 30], [10, 25, 50])
    info = walk(m, [[BUY, 1.0], [HOLD, 1.0]], **FLAT)
    assert info["fill_price"].tolist() == [20, 0]
    assert info["shares"].tolist() == [50, 50]
    assert info["net_worth"].tolist() == [50 * 25, 50 * 50]
    later = walk(m, [[BUY, 1.0], [HOLD, 1.0]], fill="next_close", **FLAT)
    assert later["shares"].tolist() == [40, 40]
    assert later["net_worth"].tolist() == [1000, 2000]
    ahead = walk(m, [[BUY, 1.0], [HOLD, 1.0]], fill="close", **FLAT)
    assert ahead["shares"].tolist() == [100, 100]


def test_direction_has_a_dead_zone_and_size_is_a_fraction():
    m = market(*[[10.0] * 6] * 4)
    actions = [[0.3, 1], [0.4, 0.0], [-0.3, 1], [-0.4, -0.5], [-1, 1]]
    info = walk(m, actions, **FLAT)
    # Half of the cash, then a quarter of the shares, then all of them.
    assert info["shares"].tolist() == [0, 50, 50, 37.5, 0]


def test_costs_by_hand():
    m = market(*[[100.0] * 4] * 4)
    info = walk(
        m, [[BUY, 1], [SELL, 1]], commission_bps=10.0, half_spread_bps=50.0, initial_cash=10_000.0
    )
    shares = 10_000 / (100.5 * 1.001)
    assert info["shares"][0] == pytest.approx(shares, rel=1e-6)
    assert info["cost"][0] == pytest.approx(shares * (0.5 + 100.5 * 0.001), rel=1e-5)
    assert info["cash"][0] == pytest.approx(0, abs=2e-3)
    assert info["cash"][1] == pytest.approx(shares * 99.5 * 0.999, rel=1e-6)


def test_square_root_impact_by_hand():
    m = market(*[[100.0] * 4] * 4, volume=[400] * 4, volatility=[0.02] * 4)
    info = walk(m, [[BUY, 0.0]], impact=0.5, **{**FLAT, "initial_cash": 20_000.0})
    # 100 shares wanted of a volume of 400: slip = .5 * .02 * sqrt(.25) = .005
    shares = 10_000 / 100.5
    assert info["shares"][0] == pytest.approx(shares, rel=1e-6)
    assert info["fill_price"][0] == pytest.approx(
        100 * (1 + 0.5 * 0.02 * np.sqrt(shares / 400)), rel=1e-6
    )


def test_a_minimum_commission_is_charged_and_orders_below_it_are_not_sent():
    m = market(*[[10.0] * 4] * 4)
    options = {"commission_min": 5.0, "half_spread_bps": 0.0, "initial_cash": 1000.0}
    info = walk(m, [[BUY, 1], [SELL, -0.999]], **options)
    assert info["shares"].tolist() == [99.5, 99.5]
    assert info["cost"].tolist() == [5, 0]


def test_lots_are_whole():
    m = market(*[[30.0] * 5] * 4)
    info = walk(m, [[BUY, 1], [SELL, 0.0], [SELL, 1]], lot_size=10.0, **FLAT)
    assert info["shares"].tolist() == [30, 20, 0]


@pytest.mark.parametrize("lot_size", [0.001, 0.01])
def test_selling_all_leaves_no_lot_behind(lot_size):
    rng = np.random.default_rng(0)
    for price in rng.uniform(5, 500, 12):
        m = market(*[[float(np.float32(price))] * 4] * 4)
        info = walk(m, [[BUY, rng.uniform(-1, 1)], [SELL, 1]], lot_size=lot_size, **FLAT)
        bought, left = info["shares"]
        assert bought / lot_size == pytest.approx(round(bought / lot_size), abs=0.05)
        assert left == 0.0


def test_less_than_a_lot_is_not_bought():
    m = market(*[[1.0] * 4] * 4)
    info = walk(m, [[BUY, 1], [SELL, 1]], lot_size=1e7, **FLAT)
    assert info["shares"].tolist() == [0, 0]


def test_short_selling_leverage_and_borrow_fees():
    m = market(*[[10.0] * 4] * 4)
    info = walk(m, [[SELL, 1]], allow_short=True, leverage=2.0, borrow_rate=0.252, **FLAT)
    assert info["shares"][0] == -200
    assert info["cash"][0] == pytest.approx(3000 - 2000 * 0.001)
    unable = walk(m, [[SELL, 1]], **FLAT)
    assert unable["shares"][0] == 0
    bought = walk(m, [[BUY, 1]], leverage=3.0, borrow_rate=0.252, **FLAT)
    assert bought["shares"][0] == 300
    assert bought["cash"][0] == pytest.approx(-2000 * 1.001)


def test_interest_on_cash():
    m = market(*[[10.0] * 4] * 4)
    info = walk(m, [[HOLD, 1]] * 2, cash_rate=0.252, **FLAT)
    np.testing.assert_allclose(info["net_worth"], [1001, 1002.001], rtol=1e-6)


def test_a_stop_loss_fills_at_its_level_or_at_a_worse_open():
    #          bought at 100         falls through 95     opens at 80
    m = market([100, 100, 99, 99], [101, 101, 99, 99], [99, 99, 90, 90], [100, 100, 92, 92])
    info = walk(m, [[BUY, 1], [HOLD, 1]], stop_loss=0.05, **FLAT)
    assert info["fill_price"].tolist() == [100, 95]
    assert info["net_worth"].tolist() == [1000, 950]
    gap = market([100, 100, 80], [101, 101, 85], [99, 99, 75], [100, 100, 82])
    info = walk(gap, [[BUY, 1], [HOLD, 1]], stop_loss=0.05, **FLAT)
    assert info["net_worth"].tolist() == [1000, 800]


def test_a_take_profit_fills_at_its_level_and_the_stop_comes_first_in_one_bar():
    m = market([100, 100, 100], [101, 101, 112], [99, 99, 94], [100, 100, 105])
    taken = walk(m, [[BUY, 1], [HOLD, 1]], take_profit=0.1, **FLAT)
    assert taken["net_worth"].tolist() == pytest.approx([1000, 1100])
    both = walk(m, [[BUY, 1], [HOLD, 1]], take_profit=0.1, stop_loss=0.05, **FLAT)
    assert both["net_worth"].tolist() == [1000, 950]
    short = walk(
        m, [[SELL, 1], [HOLD, 1]], stop_loss=0.1, allow_short=True, borrow_rate=0.0, **FLAT
    )
    assert short["net_worth"].tolist() == pytest.approx([1000, 900])


def test_ruin_terminates_and_the_end_of_the_span_truncates():
    m = market(*[[10, 10, 0.5, 0.5, 0.5, 0.5]] * 4)
    env, params = trading.make(trading.Config(**FLAT), m, Span(0, 5))
    params = trading.over_span(params, Span(0, 3))
    state = env.reset_state(jax.random.key(0), params)
    buy, hold = jnp.array([1.0, 1.0]), jnp.array([0.0, 0.0])
    state, _, terminated, _ = env.step_state(jax.random.key(0), state, buy, params)
    assert not terminated
    _, reward, terminated, _ = env.step_state(jax.random.key(0), state, hold, params)
    assert terminated
    assert float(reward) == pytest.approx(np.log(0.05), rel=1e-5)
    state = env.reset_state(jax.random.key(0), params)
    ends = []
    for _ in range(3):
        state, _, terminated, _ = env.step_state(jax.random.key(0), state, hold, params)
        ends.append((bool(terminated), bool(env.is_truncated(state, params))))
    assert ends == [(False, False), (False, False), (False, True)]


def test_the_observation_is_row_t_and_the_account_and_holds_no_clock():
    m = random_market(0)
    env, params = trading.make(trading.Config(**FLAT), m, Span(0, 39))
    params = trading.over_span(params, Span(5, 39))
    obs, state = env.reset(jax.random.key(0), params)
    np.testing.assert_allclose(obs, [*m.table[5], 0, 1, 0])
    obs, state, *_ = env.step_env(jax.random.key(0), state, jnp.array([1.0, 0.0]), params)
    np.testing.assert_allclose(obs[:2], m.table[6])
    weight = float(state.shares * m.close[6] / state.net_worth)
    gain = m.close[6] / m.open[6] - 1
    np.testing.assert_allclose(obs[2:], [weight, 1 - weight, gain], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4])
def test_the_differential_sharpe_ratio_does_not_depend_on_the_size_of_returns(size):
    rng = np.random.default_rng(0)
    zero = jnp.float32(0)
    state, rewards = SimpleNamespace(mean=zero, square=zero, time=zero), []
    for change in size * rng.normal(0.1, 1.0, 300):
        moved = moments(state, jnp.float32(change), 0.01)
        rewards.append(float(differential_sharpe(state, moved, 0.01)))
        state = SimpleNamespace(mean=moved.mean, square=moved.square, time=state.time + 1)
    mean, square, expected = 0.0, 0.0, []
    for change in np.random.default_rng(0).normal(0.1, 1.0, 300):  # eq. 14
        up, up2 = change - mean, change**2 - square
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (square * up - 0.5 * mean * up2) / (square - mean**2) ** 1.5
        expected.append(0.01 * ratio)
        mean, square = mean + 0.01 * up, square + 0.01 * up2
    np.testing.assert_allclose(rewards[100:], expected[100:], rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("reward", ["log_return", "profit", "differential_sharpe", "mean_variance"])
def test_rewards_are_finite_and_add_up_to_what_they_name(reward):
    m = random_market(1, 200)
    rng = np.random.default_rng(0)
    info = walk(m, rng.uniform(-1, 1, (199, 2)), reward=reward)
    assert np.isfinite(info["reward"]).all()
    growth = info["net_worth"][-1] / 100_000
    if reward == "log_return":
        assert info["reward"].sum() == pytest.approx(np.log(growth), rel=1e-3, abs=1e-5)
    if reward == "profit":
        assert info["reward"].sum() == pytest.approx(growth - 1, rel=1e-3, abs=1e-5)


OPTIONS = st.fixed_dictionaries(
    {
        "commission_bps": st.floats(0, 100),
        "commission_min": st.sampled_from([0.0, 1.0, 50.0]),
        "half_spread_bps": st.floats(0, 100),
        "impact": st.sampled_from([0.0, 1.0]),
        "lot_size": st.sampled_from([None, 1.0, 7.0]),
        "allow_short": st.booleans(),
        "leverage": st.sampled_from([1.0, 2.5]),
        "stop_loss": st.sampled_from([None, 0.03]),
        "take_profit": st.sampled_from([None, 0.03]),
        "fill": st.sampled_from(["next_open", "next_close", "close"]),
        "cash_rate": st.sampled_from([0.0, 0.1]),
    }
)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), OPTIONS)
def test_cash_plus_shares_times_price_is_net_worth_and_every_cent_is_explained(seed, options):
    m = random_market(seed)
    rng = np.random.default_rng(seed)
    info = walk(m, rng.uniform(-1, 1, (39, 2)), **options)
    alive = ~info["over"].astype(bool)
    np.testing.assert_allclose(
        info["cash"] + info["shares"] * info["price"], info["net_worth"], rtol=2e-5, atol=0.5
    )
    # Net worth changes by market moves, costs and interest only, when orders fill at the close.
    if options["fill"] == "next_close" and not (options["stop_loss"] or options["take_profit"]):
        before = np.concatenate([[100_000.0], info["net_worth"][:-1]])
        shares_before = np.concatenate([[0.0], info["shares"][:-1]])
        moves = shares_before * np.diff(m.close)
        expected = before + moves - info["cost"] + info["interest"]
        np.testing.assert_allclose(info["net_worth"][alive], expected[alive], rtol=5e-5, atol=2.0)
    if options["leverage"] == 1.0 and not options["allow_short"]:
        assert (info["cash"][alive] >= -0.5).all()
        assert (info["shares"][alive] >= 0).all()
    if options["lot_size"] is not None:
        lots = info["shares"] / options["lot_size"]
        np.testing.assert_allclose(lots, np.round(lots), atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 35), OPTIONS)
def test_prices_after_t_change_nothing_up_to_t(seed, t, options):
    m, other = random_market(seed), random_market(seed + 1)

    def spliced(name):
        return np.concatenate([getattr(m, name)[: t + 1], getattr(other, name)[t + 1 :]])

    names = ("open", "high", "low", "close", "volume", "volatility", "table")
    changed = market(
        *(spliced(n) for n in names[:4]), volume=spliced("volume"), volatility=spliced("volatility")
    )
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (39, 2))
    a, b = walk(m, actions, **options), walk(changed, actions, **options)
    for name in a:
        # The step from t - 1 ends at the close of t.
        np.testing.assert_array_equal(a[name][:t], b[name][:t], err_msg=name)


def test_equity_under_fixed_actions_equals_an_independent_backtest():
    m = random_market(7, 300)
    rng = np.random.default_rng(1)
    actions = rng.uniform(-1, 1, (299, 2)).astype(np.float32)
    info = walk(m, actions, commission_bps=7.0, half_spread_bps=3.0)
    cash, shares, worth = 100_000.0, 0.0, []
    for t, (direction, size) in enumerate(actions.astype(float)):
        price, fraction = m.open[t + 1], (size + 1) / 2
        if direction > 1 / 3:
            bought = fraction * cash / (price * 1.0003 * 1.0007)
            cash -= bought * price * 1.0003 * 1.0007
            shares += bought
        elif direction < -1 / 3:
            cash += fraction * shares * price * 0.9997 * 0.9993
            shares -= fraction * shares
        worth.append(cash + shares * m.close[t + 1])
    np.testing.assert_allclose(info["net_worth"], worth, rtol=2e-6)  # float32 and 299 bars
    # In float64, with the prices as they are, it is the same arithmetic.
    env, params = trading.make(
        trading.Config(commission_bps=7.0, half_spread_bps=3.0), m, Span(0, len(m.close) - 1)
    )
    with jax.enable_x64(True):
        params = trading.over_span(params, Span(0, len(m.close) - 1)).replace(
            quotes=jnp.asarray(trading._quotes(m), jnp.float64),
            initial_cash=jnp.float64(100_000),
            commission=jnp.float64(7e-4),
            half_spread=jnp.float64(3e-4),
        )
        step = jax.jit(lambda s, a: env.step_state(jax.random.key(0), s, a, params)[0])
        state = jax.tree.map(
            lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x,
            env.reset_state(jax.random.key(0), params),
        )
        exact = []
        for action in actions:
            state = step(state, jnp.asarray(action, jnp.float64))
            exact.append(float(state.net_worth))
    np.testing.assert_allclose(exact, worth, rtol=1e-6)


def test_several_symbols_share_one_environment():
    a, b = random_market(1), random_market(2)
    env, params = trading.make(trading.Config(episode_length=5), (a, b), Span(3, 30))
    states = jax.vmap(lambda k: env.reset_state(k, params))(jax.random.split(jax.random.key(0), 99))
    symbols = states.row // 40
    assert set(np.unique(symbols)) == {0, 1}
    rows = np.asarray(states.row % 40)
    assert rows.min() >= 3
    assert rows.max() <= 25
    assert len(np.unique(rows)) > 10
    np.testing.assert_array_equal(states.last_row, symbols * 40 + 30)


def test_equal_choices_make_equal_environments_and_one_compilation():
    m, other = random_market(1), random_market(2)
    envs = [trading.make(trading.Config(), x, Span(0, 39))[0] for x in (m, other)]
    assert envs[0] == envs[1]
    assert hash(envs[0]) == hash(envs[1])
    assert envs[0] != trading.make(trading.Config(fill="close"), m, Span(0, 39))[0]


def test_it_works_without_data_and_as_a_gymnax_environment():
    env = trading.Trading()
    params = env.default_params
    obs, state = env.reset(jax.random.key(0), params)
    assert obs.shape == env.observation_space(params).shape
    obs, *_ = env.step(jax.random.key(1), state, jnp.array([1.0, 1.0]), params)
    assert jnp.isfinite(obs).all()


def test_bad_options_are_refused():
    m = random_market(0)
    with pytest.raises(ConfigError, match=r"trading.leverage is 0.0; it must be above 0"):
        trading.Config(leverage=0.0)
    with pytest.raises(ConfigError, match=r"trading.fill is 'now'; it must be one of next_open"):
        trading.Config(fill="now")
    closes = m._replace(has_range=False) if hasattr(m, "_replace") else m
    with pytest.raises(DataError, match="need highs and lows"):
        trading.make(trading.Config(stop_loss=0.1), closes, Span(0, 39))
