import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from test_trading import market
from tradax import training
from tradax.algorithms import ppo
from tradax.data.splits import Span
from tradax.envs import discrete_trading, portfolio, portfolio_baselines, trading
from tradax.envs._baselines import Plan
from tradax.errors import ConfigError, DataError
from tradax.evaluation import backtest as evaluation
from tradax.evaluation.scoring import evaluate
from tradax.rollout import jax_source
from tradax.spaces import Factored

ROWS = 256  # of a walk, at least
FREE = {"commission_bps": 0.0, "half_spread_bps": 0.0}
PLAIN: Any = portfolio.Portfolio().default_params


def random_markets(seed, n=3, rows=40, volatility=0.02):
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(volatility * rng.normal(size=(n, rows)), axis=1))
    open = close * np.exp(0.5 * volatility * rng.normal(size=(n, rows)))
    table = rng.normal(size=(n, rows, 2)).astype(np.float32)
    return tuple(
        market(o, np.maximum(o, c), np.minimum(o, c), c, table=t, symbol=f"S{i}")
        for i, (o, c, t) in enumerate(zip(open, close, table, strict=True))
    )


def make(markets, **options):
    span = Span(0, len(markets[0].close) - 1)
    env, params = portfolio.make(portfolio.Config(**options), markets, span)
    return env, portfolio.over_span(params, span)


@functools.partial(jax.jit, static_argnums=0)
def actions_of(env, weights, gross):
    return env.actions(weights, PLAIN.replace(gross=gross))


@eqx.filter_jit
def _walk(source, actor, n_steps):
    return source.walk(actor, jax.random.key(0), n_steps)[1]


def follow(env, params, actor):
    """What happens from the first to the last row, as numpy arrays."""
    n_steps = int(params.last_row - params.first_row)
    if isinstance(actor, Plan):
        params, actor = padded(params), Plan(padded(actor.actions))
    info = _walk(jax_source(env, params), actor, max(n_steps, ROWS - 1))
    return {name: np.asarray(value, np.float64)[:n_steps] for name, value in info.items()}


def padded(tree):
    """More rows, which are not visited, and no table, which a plan does not see: so one compiled
    program follows plans of any length."""
    if isinstance(tree, portfolio.PortfolioParams):
        tree = tree.replace(table=np.zeros((1, 1)))  # type: ignore[attr-defined]

    def longer(x):
        x = np.asarray(x)
        return np.pad(x, [(0, max(ROWS - len(x), 0))] + [(0, 0)] * (x.ndim - 1)) if x.ndim else x

    return jax.tree.map(longer, tree)


def walk(markets, weights, **options):
    """The portfolio when `weights` [n_steps, n] are asked for, as numpy arrays."""
    env, params = make(markets, **options)
    return follow(env, params, Plan(asking(env, weights, params)))


def asking(env, weights, params):
    """Actions [n_steps, A] that ask for `weights` [n_steps, n]."""
    asked = padded(np.asarray(weights, np.float32))
    return actions_of(env, asked, params.gross)[: len(weights)]


def backtest(markets, targets, fill, cost, cash_rate, borrow_rate, worth=100_000.0):
    """Shares and dollars in float64, the cost equation solved by bisection.

    Returns: net worth, cost and interest after every order, [3, n_steps].
    """
    close = np.stack([m.close for m in markets], 1)
    open = np.stack([m.open for m in markets], 1)
    at_end = fill == "next_close"

    def interest(cash, shares, price):
        short = -np.minimum(shares * price, 0.0).sum()
        return cash * (cash_rate if cash > 0 else borrow_rate) - borrow_rate * short

    def missing(after, value, weights, held):
        return after + cost * np.abs(weights * after - held).sum() - value

    cash, shares, found = worth, np.zeros(close.shape[1]), []
    for t, target in enumerate(np.asarray(targets, float)):
        price = {"next_open": open[t + 1], "next_close": close[t + 1], "close": close[t]}[fill]
        earned = interest(cash, shares, close[t]) if at_end else 0.0
        cash += earned
        value = cash + shares @ price
        # A basket of one unit of money at the close of t, as it is worth at the fill.
        basket, coins = target / close[t], 1.0 - target.sum()
        if at_end:
            coins += interest(coins, basket, close[t])
        weights = basket * price / (coins + basket @ price)
        given = (value, weights, shares * price)
        after = optimize.brentq(missing, 0.5 * value, value * (1 + 1e-12), given, xtol=1e-9)
        paid = cost * np.abs(weights * after - shares * price).sum()
        shares = weights * after / price
        cash = (1.0 - weights.sum()) * after
        if not at_end:
            earned = interest(cash, shares, price)
            cash += earned
        found.append((cash + shares @ close[t + 1], paid, earned))
    return np.array(found).T


def random_weights(rng, n_steps, n, long_short):
    """Also corners of the simplex, weights of 0, and targets that are kept for a while."""
    weights = rng.dirichlet(np.full(n + 1, 0.3), n_steps)[:, :-1]
    if long_short:
        weights *= rng.choice([-1.0, 1.0], (n_steps, n))
    return weights[rng.integers(0, n_steps, n_steps // 2).repeat(2)]


# --- golden values


def test_turnover_cost_by_hand():
    # 60 bps on everything that is not cash. From cash into halves of two assets:
    # 1 - s = 1 - 0.006 (1 - s), so 1 - s = 1 / 1.006.
    flat = [10.0] * 4
    markets = (market(*[flat] * 4), market(*[flat] * 4))
    costs = {"commission_bps": 50.0, "half_spread_bps": 10.0, "initial_cash": 10_060.0}
    info = walk(markets, [[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]], **costs)
    assert info["cost"] == pytest.approx([60.0, 0.0, 60.0], abs=0.01)
    assert info["net_worth"] == pytest.approx([10_000, 10_000, 9_940], abs=0.01)
    assert info["turnover"] == pytest.approx([10_000, 0, 10_000], abs=0.1)
    # From one asset into the other, selling 1 and buying 1 - s: s = 0.006 (2 - s).
    info = walk(markets, [[1.0, 0.0], [0.0, 1.0]], **costs)
    assert info["cost"][1] == pytest.approx(10_000 * 0.012 / 1.006, abs=0.01)


def test_weights_drift_with_prices_and_costs_come_before_the_return():
    # Bought at the open of 10, +20% to the close; 100 bps.
    up = market([10, 10, 12], [10, 12, 15], [10, 10, 12], [10, 12, 15])
    flat = market(*[[10.0] * 3] * 4)
    info = walk(
        (up, flat),
        [[0.5, 0.25], [0.5, 0.25]],
        commission_bps=100.0,
        half_spread_bps=0.0,
        initial_cash=1_007.5,
    )
    assert info["net_worth"][0] == pytest.approx(1_000 * 1.1, abs=1e-3)
    assert info["weights"][0] == pytest.approx([0.6 / 1.1, 0.25 / 1.1], abs=1e-6)
    # At the open of 12 the target is 550 of 1,100: sold 50 and, for the cost, a little more.
    assert info["turnover"][1] == pytest.approx(50 + 25, abs=0.5)


def test_an_order_on_bar_t_fills_at_the_open_of_the_next_bar():
    m = market([10, 20, 40], [30, 30, 50], [5, 15, 30], [10, 25, 50])
    growth = {}
    for fill in ("next_open", "next_close", "close"):
        info = walk((m,), [[1.0], [1.0]], fill=fill, initial_cash=1_000.0, **FREE)
        growth[fill] = info["net_worth"].tolist()
    assert growth["next_open"] == pytest.approx([1_250, 2_500], rel=1e-6)
    assert growth["next_close"] == pytest.approx([1_000, 2_000], rel=1e-6)
    assert growth["close"] == pytest.approx([2_500, 5_000], rel=1e-6)


@pytest.mark.parametrize("n", [1, 5, 50])
def test_one_asset_can_get_nearly_all(n):
    env = portfolio.Portfolio(n_assets=n)
    params = PLAIN  # of other assets, whose prices do not matter here
    action = jnp.full(n + 1, -10.0).at[0].set(10.0)
    assert env.weights(action, params)[0] > 0.99
    # And so it can for a policy that keeps well inside the bounds.
    assert env.weights(action * 0.5, params)[0] > 0.99
    cash = env.weights(-action.at[-1].set(-10.0), params)
    assert cash.sum() < 0.99 or n == 1
    both = portfolio.Portfolio(n_assets=n, long_short=True)
    short = both.weights(jnp.zeros(n).at[0].set(-10.0), params)
    assert short[0] == pytest.approx(-1.0)
    assert both.weights(jnp.zeros(n), params).tolist() == [0.0] * n


weights_of = jax.jit(portfolio.Portfolio.weights, static_argnums=0)
cost_of = jax.jit(portfolio.Portfolio._cost, static_argnums=0)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from([1, 5]), st.booleans(), st.sampled_from([0.5, 1.0, 3.0])
)
def test_actions_ask_for_the_weights_they_were_made_from(seed, n, long_short, gross):
    rng = np.random.default_rng(seed)
    env = portfolio.Portfolio(n_assets=n, long_short=long_short)
    params = PLAIN.replace(gross=jnp.float32(gross))
    weights = random_weights(rng, 8, n, long_short) * (gross if long_short else 1.0)
    actions = actions_of(env, np.asarray(weights, np.float32), params.gross)
    assert np.abs(actions).max() <= 10.0
    found = weights_of(env, actions, params)
    np.testing.assert_allclose(found, weights, atol=3e-6 * max(gross, 1))
    asked = weights_of(env, jnp.asarray(rng.normal(0, 5, (8, env.num_actions))), params)
    assert np.abs(asked).sum(-1).max() <= (gross if long_short else 1.0) * (1 + 1e-5)


# --- against an independent backtest


@pytest.mark.parametrize("fill", ["next_open", "next_close", "close"])
@pytest.mark.parametrize("long_short", [False, True])
def test_equity_under_fixed_actions_equals_an_independent_backtest(fill, long_short):
    markets = random_markets(3, n=5, rows=253)
    weights = random_weights(np.random.default_rng(0), 252, 5, long_short)
    options = {"long_short": long_short, "cash_rate": 0.03, "borrow_rate": 0.05}
    env, params = make(markets, fill=fill, commission_bps=9.0, **options)
    actions = asking(env, weights, params)
    info = follow(env, params, Plan(actions))
    targets = exact_weights(actions, long_short)
    worth, cost, _ = backtest(markets, targets, fill, 10e-4, 0.03 / 252, 0.05 / 252)
    np.testing.assert_allclose(info["net_worth"], worth, rtol=1e-6)
    assert info["cost"].sum() == pytest.approx(cost.sum(), rel=1e-5)
    assert info["reward"].sum() == pytest.approx(np.log(worth[-1] / 100_000), abs=1e-5)


def exact_weights(actions, long_short):
    """What actions mean, in float64."""
    a = np.asarray(actions, np.float64)
    if long_short:
        position = np.tanh(a)
        return position / np.maximum(np.abs(position).sum(1, keepdims=True), 1.0)
    e = np.exp(a - a.max(1, keepdims=True))
    return (e / e.sum(1, keepdims=True))[:, :-1]


OPTIONS = st.fixed_dictionaries(
    {
        "commission_bps": st.sampled_from([0.0, 5.0, 300.0]),
        "half_spread_bps": st.sampled_from([0.0, 1.0, 100.0]),
        "long_short": st.booleans(),
        "fill": st.sampled_from(["next_open", "next_close", "close"]),
        "cash_rate": st.sampled_from([0.0, 0.1]),
    }
)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), OPTIONS)
def test_every_cent_is_explained(seed, options):
    markets = random_markets(seed, n=5)
    rng = np.random.default_rng(seed)
    weights = random_weights(rng, 38, 5, options["long_short"])
    info = walk(markets, weights, **options)
    cost = (options["commission_bps"] + options["half_spread_bps"]) * 1e-4
    worth, paid, interest = backtest(
        markets, info["target"][:38], options["fill"], cost, options["cash_rate"] / 252, 0.03 / 252
    )
    np.testing.assert_allclose(info["net_worth"][:38], worth, rtol=1e-5)
    np.testing.assert_allclose(info["cost"][:38], paid, rtol=1e-4, atol=0.1)
    np.testing.assert_allclose(info["cost"], cost * info["turnover"], rtol=1e-4, atol=0.1)
    np.testing.assert_allclose(info["interest"][:38], interest, rtol=1e-3, atol=0.02)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 20]), st.sampled_from([1e-4, 1e-3, 0.01, 0.1]))
def test_the_cost_equation_is_solved_to_float_precision(seed, n, cost):
    rng = np.random.default_rng(seed)
    env = portfolio.Portfolio(n_assets=n, long_short=True)
    params = PLAIN.replace(cost=jnp.float32(cost))
    before = rng.dirichlet(np.ones(n)) * rng.choice([-1, 1], n)
    target = rng.dirichlet(np.ones(n)) * rng.choice([-1, 1], n)
    # Hard cases: targets just around what is held, where buying turns into selling.
    near = before * (1 + cost * rng.normal(size=n))
    target = near / max(1.0, np.abs(near).sum()) if seed % 2 else target
    spent = float(cost_of(env, jnp.asarray(before), jnp.asarray(target), params))
    residual = spent - cost * np.abs(target * (1 - spent) - before).sum()
    assert abs(residual) < 3e-7


def test_log_growth_of_constant_weights_without_costs_is_the_analytic_one():
    markets = random_markets(1, n=2, rows=121)
    weights = np.tile([0.3, 0.5], (120, 1))
    info = walk(markets, weights, fill="close", cash_rate=0.05, **FREE)
    returns = np.stack([m.close[1:] / m.close[:-1] - 1 for m in markets], 1)
    growth = np.log1p(returns @ [0.3, 0.5] + 0.2 * 0.05 / 252)
    np.testing.assert_allclose(info["reward"], growth, rtol=1e-5, atol=1e-8)
    assert info["reward"].sum() == pytest.approx(growth.sum(), rel=1e-5, abs=1e-7)


def test_one_asset_is_as_in_trading():
    m = random_markets(5, n=1, rows=60)
    span = Span(0, 59)
    options = {"targets": (0.0, 0.5, 1.0), "commission_bps": 6.0, "half_spread_bps": 0.0}
    options["fill"] = "close"
    env, params = discrete_trading.make(discrete_trading.Config(**options), m[0], span)
    choices = np.random.default_rng(0).integers(0, 2, 59)
    params = trading.over_span(params, span)
    discrete = follow(env, params, Plan(jnp.asarray(choices, jnp.int32)))
    ours = walk(m, 0.5 * choices[:, None], commission_bps=6.0, half_spread_bps=0.0, fill="close")
    # There a target is a fraction of net worth before costs, here of what is left: of order cost.
    np.testing.assert_allclose(ours["net_worth"], discrete["net_worth"], rtol=1e-4)


# --- causality


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 35), OPTIONS)
def test_prices_after_t_change_nothing_up_to_t(seed, t, options):
    a, others = random_markets(seed), random_markets(seed + 1)

    def splice(m, other):
        names = ("open", "high", "low", "close", "table")
        return m._replace(
            **{
                n: np.concatenate([getattr(m, n)[: t + 1], getattr(other, n)[t + 1 :]])
                for n in names
            }
        )

    b = tuple(map(splice, a, others))
    turbulent = {"turbulence": True, "turbulence_window": 8, "turbulence_threshold": 1.5}
    made = [make(m, **options, **turbulent) for m in (a, b)]
    np.testing.assert_array_equal(*(np.asarray(p.table)[: t + 1] for _, p in made))
    actions = np.random.default_rng(seed).normal(0, 2, (39, made[0][0].num_actions))
    plan = Plan(jnp.asarray(actions, jnp.float32))
    ours, changed = (follow(env, p, plan) for env, p in made)
    for name in ours:
        # The step from t - 1 ends at the close of t.
        np.testing.assert_array_equal(ours[name][:t], changed[name][:t], err_msg=name)
    for name in ("minimum_variance", "mean_variance"):
        rules = [getattr(portfolio_baselines, name)(env, p, 5) for env, p in made]
        np.testing.assert_allclose(
            *(np.asarray(r.actions)[: t + 1] for r in rules), rtol=1e-5, atol=1e-5
        )


# --- turbulence


def test_turbulence_is_the_mahalanobis_distance_to_the_bars_before():
    close = np.stack([m.close for m in random_markets(2, n=3, rows=50)], 1)
    found = portfolio.turbulence(close, 20, 0.1)
    assert (found[:21] == 1).all()
    returns = close[1:] / close[:-1] - 1
    t = 33
    before, now = returns[t - 21 : t - 1], returns[t - 1]
    covariance = np.cov(before.T)
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / 3 * np.eye(3)
    deviation = now - before.mean(0)
    assert found[t] == pytest.approx(deviation @ np.linalg.inv(shrunk) @ deviation / 3)


def test_turbulence_is_about_one_and_can_be_had_of_more_assets_than_bars():
    calm = np.stack([m.close for m in random_markets(4, n=4, rows=3_000)], 1)
    found = portfolio.turbulence(calm, 250, 0.05)[251:]
    assert found.mean() == pytest.approx(1.0, abs=0.1)
    many = np.stack([m.close for m in random_markets(4, n=30, rows=60)], 1)
    assert np.isfinite(portfolio.turbulence(many, 10, 0.1)).all()
    assert np.isfinite(portfolio.turbulence(np.ones((40, 3)), 10, 0.1)).all()


def test_above_the_threshold_all_goes_to_cash():
    markets = random_markets(6, rows=60)
    options = {"turbulence": True, "turbulence_window": 20, "turbulence_threshold": 1.2}
    env, params = make(markets, **options)
    assert env.market_table(params).shape == (60, 7)
    np.testing.assert_allclose(
        env.market_table(params)[:, -1], np.log1p(np.asarray(params.turbulence)), rtol=1e-5
    )
    info = follow(env, params, portfolio_baselines.equal_weight(env, params).actor())
    high = np.asarray(params.turbulence)[:59] > 1.2
    assert 3 < high.sum() < 50
    assert (info["target"][high] == 0).all()
    np.testing.assert_allclose(info["target"][~high], 1 / 3, rtol=1e-5)


# --- rewards and ends


@pytest.mark.parametrize("reward", ["log_growth", "mean_variance", "differential_sharpe"])
def test_rewards_are_finite_for_a_hundred_thousand_random_steps(reward):
    markets = random_markets(8, n=4, rows=300, volatility=0.05)
    options = {"reward": reward, "long_short": True, "gross": 3.0, "ruin_level": 0.0}
    env, params = portfolio.make(portfolio.Config(**options), markets, Span(0, 299))
    source = jax_source(env, params, num_envs=100)

    @jax.jit
    def run():
        actor = Random()
        carry = source.reset(jax.random.key(0), actor)
        return source.collect(carry, actor, jax.random.key(1), 1_000)[1]

    e = run()
    for values in (e.reward, e.obs.account, e.next_obs.account):
        assert np.isfinite(values).all()


class Random(Plan):
    """Actions of the whole box, and its corners."""

    actions: jax.Array = eqx.field(default_factory=lambda: jnp.zeros((1, 4)))

    def __call__(self, obs, memory, key):
        action = 10.0 * jax.random.normal(key, (memory.shape[0], self.actions.shape[1]))
        return action, memory, ()


def test_mean_variance_by_hand():
    # +10% and -5% on half of what is left after 100 bps on one half: s = 0.005 / 1.005.
    m = market([100, 110, 104.5], [110] * 3, [100] * 3, [100, 110, 104.5])
    options = {"reward": "mean_variance", "risk_aversion": 2.0, "cost_aversion": 3.0}
    costs = {"commission_bps": 100.0, "half_spread_bps": 0.0, "fill": "close"}
    info = walk((m,), [[0.5], [0.55 / 1.05]], sharpe_rate=0.5, **options, **costs)
    first, second = 1.05 / 1.005 - 1, -0.05 * 0.55 / 1.05
    expected = [
        first - 2 * first**2 - 3 * 0.005 / 1.005,
        second - 2 * (second - 0.5 * first) ** 2,
    ]
    np.testing.assert_allclose(info["reward"], expected, rtol=1e-5, atol=1e-7)


def test_ruin_terminates_and_the_end_of_the_span_does_not():
    crash = market([100, 100, 300, 1], [300] * 4, [1] * 4, [100, 100, 300, 1])
    env, params = make((crash,), long_short=True, **FREE)
    step = jax.jit(env.step_state)
    state = env.reset_state(jax.random.key(0), params)
    short = env.actions(jnp.array([-1.0]), params)
    state, _, terminated, _ = step(jax.random.key(0), state, short, params)
    assert not terminated
    state, reward, terminated, _ = step(jax.random.key(0), state, short, params)
    assert terminated
    assert reward == pytest.approx(np.log(1e-3), rel=1e-4)
    assert state.net_worth > 0
    state = env.reset_state(jax.random.key(0), params).replace(row=jnp.int32(3))
    assert env.is_truncated(state, params)


# --- baselines


def test_baselines_by_what_they_hold():
    markets = random_markets(10, n=3, rows=80)
    env, params = make(markets, **FREE)
    rules = portfolio_baselines.baselines(env, params, window=20)
    held = {name: follow(env, params, rule.actor(sample=False)) for name, rule in rules.items()}
    np.testing.assert_allclose(held["equal_weight"]["target"], 1 / 3, rtol=1e-5)
    once = held["buy_and_hold"]
    assert once["turnover"][0] == pytest.approx(100_000, rel=1e-4)
    assert once["turnover"][1:].max() < 0.5  # of 100,000
    first, filled, last = (
        np.array([getattr(m, name)[bar] for m in markets])
        for name, bar in (("close", 0), ("open", 1), ("close", -1))
    )
    growth = np.sum(last / first) / np.sum(filled / first)
    assert once["net_worth"][-1] == pytest.approx(100_000 * growth, rel=1e-5)
    closes = np.stack([m.close for m in markets], 1)
    returns = closes[1:] / closes[:-1] - 1
    for name in ("minimum_variance", "mean_variance"):
        np.testing.assert_allclose(held[name]["target"][:20], 1 / 3, rtol=1e-5)
    t = 47
    covariance = np.cov(returns[t - 20 : t].T)
    best = optimize.minimize(
        lambda w: w @ covariance @ w * 1e4,
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        tol=1e-14,
    )
    np.testing.assert_allclose(held["minimum_variance"]["target"][t], best.x, atol=1e-4)
    mean = returns[t - 20 : t].mean(0)
    best = optimize.minimize(
        lambda w: (w @ covariance @ w / 2 - mean @ w) * 1e4,
        np.full(3, 0.1),
        bounds=[(0, 1)] * 3,
        constraints={"type": "ineq", "fun": lambda w: 1 - w.sum()},
        tol=1e-14,
    )
    np.testing.assert_allclose(held["mean_variance"]["target"][t], best.x, atol=1e-3)


def test_a_backtest_shows_weights_beside_rivals_at_the_same_costs():
    markets = random_markets(12, n=3, rows=160)
    env, params = portfolio.make(portfolio.Config(), markets, Span(0, 99))
    rule = portfolio_baselines.constant(env, params, np.array([0.5, 0.2, 0.1]))
    span = Span(100, 159)
    result = evaluation.backtest(rule, portfolio, env, params, markets, span)
    assert (result.symbol, result.assets) == ("S0+S1+S2", ("S0", "S1", "S2"))
    curve, hold, cash = result.policy, *(result.baselines[n] for n in ("buy_and_hold", "cash"))
    assert set(result.baselines) >= {"equal_weight", "minimum_variance", "mean_variance", "random"}

    close = np.stack([m.close[100:] for m in markets], 1)
    opened = tuple(m._replace(open=m.open[100:], close=m.close[100:]) for m in markets)
    targets = exact_weights(curve.actions, long_short=False)
    np.testing.assert_allclose(targets, np.tile([0.5, 0.2, 0.1], (59, 1)), rtol=1e-6)
    worth, cost, _ = backtest(opened, targets, "next_open", 6e-4, 0.0, 0.0)
    np.testing.assert_allclose(curve.net_worth[1:], worth, rtol=1e-6)
    assert curve.metrics.costs == pytest.approx(cost.sum(), rel=1e-4)
    assert result.gross.net_worth[-1] > curve.net_worth[-1]
    assert curve.weights is not None
    assert curve.weights.sum(1).mean() == pytest.approx(0.8, abs=0.01)
    np.testing.assert_allclose(curve.price, (close / close[0]).mean(1))
    invested = curve.net_worth[1:] * curve.weights.sum(1)
    np.testing.assert_allclose(curve.shares * curve.price[1:], invested, rtol=1e-12)
    assert (curve.change == 0).all()

    # What rounding leaves of nothing is neither an order nor a position.
    assert (curve.metrics.trades, curve.metrics.exposure) == (59, 1.0)
    assert (hold.metrics.trades, hold.metrics.exposure) == (1, 1.0)
    assert (cash.metrics.trades, cash.metrics.exposure) == (0, 0.0)
    assert cash.net_worth[-1] == pytest.approx(100_000, rel=1e-5)
    filled = np.array([m.open[101] for m in markets])
    growth = np.sum(close[-1] / close[0]) / np.sum(filled / close[0]) / (1 + 6e-4)
    assert hold.net_worth[-1] == pytest.approx(100_000 * growth, rel=1e-5)


def test_merton_holds_excess_drift_over_variance():
    env, params = make(random_markets(0, n=2))
    rule = portfolio_baselines.merton(env, params, mu=[0.05, 0.08], r=0.02, sigma=[0.3, 0.5])
    weights = env.weights(rule.action, params)
    np.testing.assert_allclose(weights, [0.03 / 0.09, 0.06 / 0.25], rtol=1e-4)


def test_baselines_see_flat_observations_as_factored_ones():
    env, params = make(random_markets(11, n=3, rows=60))
    rows = jnp.arange(10, 59)
    rng = np.random.default_rng(0)
    account = jnp.asarray(rng.dirichlet(np.ones(4), len(rows)), jnp.float32)
    factored = Factored(rows, account)
    for name, rule in portfolio_baselines.baselines(env, params, window=10).items():
        actor = rule.actor(sample=False)
        by_row = actor.tabulate(params.table)(factored, (), jax.random.key(0))[0]
        flat = actor(factored.flat(params.table), (), jax.random.key(0))[0]
        np.testing.assert_array_equal(by_row, flat, err_msg=name)
        np.testing.assert_array_equal(by_row, rule.act(factored.flat(params.table)))
        assert by_row.shape == (49, 4)
    assert np.isfinite(evaluate(rule, (env, params), episodes=2, max_steps=40).mean)


# --- learning


def clairvoyant_markets(n, seed=0, rows=1_000):
    """Tomorrow's return is a feature; the next open is this close."""
    rng = np.random.default_rng(seed)
    log_return = 0.02 * rng.normal(size=(n, rows))
    made = []
    for moves in log_return:
        close = 100 * np.exp(np.cumsum(moves))
        open = np.concatenate([[100.0], close[:-1]])
        tomorrow = np.append(moves[1:], 0.0) / 0.02
        table = tomorrow[:, None].astype(np.float32)
        high, low = np.maximum(open, close), np.minimum(open, close)
        made.append(market(open, high, low, close, table=table))
    return tuple(made)


CLAIRVOYANT = ppo.Config(gamma=0.0, epochs=2, hidden_sizes=(32,))


def test_an_agent_that_is_told_tomorrow_captures_most_of_it():
    markets = clairvoyant_markets(2)
    env, params = portfolio.make(portfolio.Config(**FREE), markets, Span(0, 999))
    source = jax_source(env, params, num_envs=CLAIRVOYANT.num_envs)
    algorithm = ppo.make(CLAIRVOYANT, source.spec, jnp.float32(1))
    policy = training.train(algorithm, source, jax.random.key(0), total_timesteps=150_000).policy
    info = follow(env, portfolio.over_span(params, Span(0, 999)), policy.actor(sample=False))
    closes = np.stack([m.close for m in markets], 1)
    best = np.maximum(np.diff(np.log(closes), axis=0).max(axis=1), 0.0).sum()
    assert np.log(info["net_worth"][-1] / 100_000) > 0.9 * best


# --- programs and options


def test_equal_choices_make_equal_environments_and_one_compilation():
    a, b = random_markets(1), random_markets(2)
    (env, params), (same, others) = make(a), make(b, commission_bps=1.0)
    assert env == same
    assert hash(env) == hash(same)
    assert env != make(a, fill="close")[0]
    assert env != make(a[:2])[0]
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def run(env, params):
        traces.append(1)

        def one_step(state, key):
            state, reward, _, _ = env.step_state(key, state, jnp.zeros(4), params)
            return state, reward

        key = jax.random.key(0)
        return jax.lax.scan(one_step, env.reset_state(key, params), jax.random.split(key, 5))[1]

    one, other = run(env, params), run(same, others)
    assert len(traces) == 1
    several = jax.tree.map(lambda x, y: jnp.stack([x, y]), params, others)
    both = jax.vmap(functools.partial(run, env))(several)
    np.testing.assert_allclose(both, jnp.stack([one, other]), rtol=1e-5, atol=1e-7)


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match=r"portfolio.gross is 0.0; it must be above 0"):
        portfolio.Config(gross=0.0)
    with pytest.raises(ConfigError, match="must be one of log_growth"):
        portfolio.Config(reward="profit")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="lower gross to 2"):
        portfolio.Config(long_short=True, gross=5.0, commission_bps=500.0, half_spread_bps=0.0)
    with pytest.raises(ConfigError, match=r"take at least 2\.9"):
        make(random_markets(0), logit_limit=1.0)
    make(random_markets(0), logit_limit=2.9)
    a, b, c = random_markets(0)
    shifted = b._replace(timestamps=b.timestamps + np.timedelta64(1, "h"))
    with pytest.raises(DataError, match="S0 and S1 have bars at different times"):
        make((a, shifted, c))
    with pytest.raises(ConfigError, match="needs more than 40 of them"):
        portfolio_baselines.minimum_variance(*make((a, b)), window=60)
