"""Costs, delays, years and regimes are those that one can compute by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from test_portfolio import random_markets
from test_trading import BUY, HOLD, SELL, market, random_market
from tradax.data.splits import Span
from tradax.envs import discrete_trading, portfolio, trading
from tradax.envs._baselines import Plan, spec_of
from tradax.evaluation import robustness as module
from tradax.evaluation.backtest import backtest
from tradax.evaluation.regimes import periods, volatility_regimes
from tradax.evaluation.robustness import (
    DELAYS,
    Copy,
    Delayed,
    Piece,
    Variation,
    break_even,
    curves,
    net_worths,
    outcome,
    robustness,
)
from tradax.protocols import Policy
from tradax.reporting.robustness import above_words, robustness_part
from tradax.rollout import jax_source
from tradax.spaces import Spec

STEPS = 20
SPAN = Span(2, 2 + STEPS)


class Fixed(Policy):
    """Acts by a plan, whatever it sees."""

    plan: Plan
    spec: Spec = eqx.field(static=True)

    def act(self, obs, key=None):
        return self.plan.actions[0]

    def actor(self, *, sample=False):
        return self.plan


def round_trips(gain):
    """A market in which each of `STEPS` / 2 trades, bought on even steps and sold on odd ones,
    gains this fraction."""
    price = np.where(np.arange(STEPS + 4) % 2 == 1, 100.0, 100.0 * (1.0 + gain))
    m = market(price, price, price, price)
    actions = np.tile([[BUY, 1.0], [SELL, 1.0]], (STEPS // 2, 1))
    return m, jnp.asarray(actions, jnp.float32)


def test_ten_round_trips_break_even_at_the_cost_that_eats_their_gain():
    gain = 0.004
    m, actions = round_trips(gain)
    env, params = trading.make(trading.Config(commission_bps=5.0, half_spread_bps=2.0), m, SPAN)
    policy = Fixed(plan=Plan(actions), spec=spec_of(env, params))
    result = backtest(policy, trading, env, params, (m,), SPAN)
    found = robustness(result, trading, env, [Piece(Plan(actions), params, SPAN)], (m,))

    for at in found.costs:
        cost = 1e-4 * at.bps
        trip = (1.0 + gain) * (1.0 - cost) / (1.0 + cost)
        assert at.policy.total_return == pytest.approx(trip**10 - 1.0, abs=2e-6)
    until = 1e4 * gain / (2.0 + gain)  # (1 + g)(1 - c) = 1 + c
    assert found.beats_cash_until.bps == pytest.approx(until, abs=0.01)
    assert found.beats_cash_until.words == "20.0"
    assert [delay.bars for delay in found.delays] == [0, *DELAYS]
    assert found.delays[0].policy.total_return == result.policy.metrics.total_return
    # One bar late, every purchase is dear and every sale cheap.
    trip = 0.9998 / 1.0002 * 0.9995 / 1.0005 / (1.0 + gain)
    assert found.delays[1].policy.total_return == pytest.approx(trip**9.5 - 1.0, abs=4e-3)
    assert found.delays[2].policy.total_return == pytest.approx(
        (1.0 + result.policy.metrics.total_return) ** 0.9 - 1.0, abs=1e-5
    )  # two bars late: the last trip is not made
    assert sum(period.bars for period in found.periods) == STEPS

    controls = {"shuffled": [Copy(0.1, -1.0, 0.5), Copy(0.2, 9.0, None)], "noise": []}
    part = robustness_part(found, outcome(result), controls)
    assert above_words(outcome(result), controls) in part.section.body
    assert "above 1 of 2 shuffled and 0 of 0 noise" in part.section.body
    assert part.summary["robustness"]["break_even_bps"]["cash"]["bps"] == pytest.approx(
        until, abs=0.01
    )
    assert [c["bps"] for c in part.summary["robustness"]["costs"]] == list(module.COSTS_BPS)
    assert "tradax robustness RUN" in robustness_part(found, outcome(result), None).section.body


def cases():
    rng = np.random.default_rng(0)
    one, several = random_market(3), random_markets(3)
    box = rng.uniform(-1, 1, (STEPS, 2)).astype(np.float32)
    logits = rng.uniform(-3, 3, (STEPS, 4)).astype(np.float32)
    kinds = rng.integers(0, 3, STEPS).astype(np.int32)
    idle = np.array([-20.0, -20.0, -20.0, 0.0]) + 10.0
    return {
        "trading": (trading, one, box, np.array([HOLD, -1.0])),
        "discrete_trading": (discrete_trading, one, kinds, np.int32(discrete_trading.HOLD)),
        "portfolio": (portfolio, several, logits, idle),
    }


@pytest.mark.parametrize("name", cases())
def test_a_delayed_order_is_the_same_order_some_bars_later(name):
    env_module, markets, actions, idle = cases()[name]
    env, params = env_module.make(env_module.Config(), markets, SPAN)
    idle = jnp.asarray(idle, actions.dtype)
    params = env_module.over_span(params, SPAN)
    source = jax_source(env, params)
    actor = Delayed(Plan(jnp.asarray(actions)), idle, jnp.int32(0), max(DELAYS))
    late = [eqx.tree_at(lambda a: a.delay, actor, jnp.int32(d)) for d in (0, *DELAYS)]
    got = net_worths(source, [(params, a) for a in late], STEPS)
    waits = [jnp.broadcast_to(idle, (d, *idle.shape)) for d in (0, *DELAYS)]
    shifted = [Plan(jnp.concatenate([wait, jnp.asarray(actions)])[:STEPS]) for wait in waits]
    wanted = net_worths(source, [(params, plan) for plan in shifted], STEPS)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    np.testing.assert_array_equal(got[3][:6], params.initial_cash)  # nothing acts for five bars
    assert len({round(worth[-1], 2) for worth in got}) == 4

    # What an order costs is what was said, and the same for every market.
    cheap = env_module.at_cost(params, 0.0)
    free = env_module.without_costs(params)
    for one, other in zip(jax.tree.leaves(cheap), jax.tree.leaves(free), strict=True):
        np.testing.assert_array_equal(one, other)
    dear = env_module.at_cost(params, 7e-4)
    own = {"commission_bps": 7.0, "half_spread_bps": 0.0}
    _, asked = env_module.make(env_module.Config(**own), markets, SPAN)
    asked = env_module.over_span(asked, SPAN)
    for one, other in zip(jax.tree.leaves(dear), jax.tree.leaves(asked), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_pieces_of_a_span_are_chained_into_one_curve():
    m = random_market(1)
    env, params = trading.make(trading.Config(), m, SPAN)
    rng = np.random.default_rng(1)
    plans = [Plan(jnp.asarray(rng.uniform(-1, 1, (10, 2)), jnp.float32)) for _ in range(2)]
    spans = [Span(2, 12), Span(12, 22)]
    pieces = [Piece(p, params, s) for p, s in zip(plans, spans, strict=True)]
    variations = [Variation(cost_bps=3.0), Variation()]
    both = curves(trading, env, pieces, variations)
    first, second = (curves(trading, env, [piece], variations) for piece in pieces)
    assert both.shape == (2, STEPS + 1)
    np.testing.assert_allclose(both[:, :11], first)
    np.testing.assert_allclose(both[:, 10:], first[:, -1:] * second)


def test_after_ruin_net_worth_stays():
    price = np.array([100.0, 100, 100, 100, 100, 5, *[500] * 34])
    m = market(price, price, price, price)
    env, params = trading.make(trading.Config(), m, SPAN)
    buy = Plan(jnp.zeros((10, 2)).at[0].set(jnp.array([BUY, 1.0])))
    variations = [Variation(cost_bps=0.0), Variation()]
    worth = curves(trading, env, [Piece(buy, params, Span(2, 12))], variations)
    np.testing.assert_allclose(worth[0], [1, 1, 1, *[0.05] * 8], rtol=1e-5)
    np.testing.assert_array_equal(worth[1, 3:], worth[1, 3])


def test_the_break_even_cost_is_where_the_gain_first_ends():
    bps = np.array([0.0, 10.0, 20.0, 30.0])
    assert break_even(bps, [0.3, 0.1, -0.1, 0.2]).bps == pytest.approx(15.0)
    assert break_even(bps, [0.3, 0.1, 0.1, 0.2]) == (None, "above 30")
    assert break_even(bps, [-0.3, 0.1, 0.1, 0.2]) == (None, "below 0")
    assert break_even(bps, [0.0, 0.0, 0.0, 0.0]).bps is None


def test_years_are_cut_at_the_calendar_and_short_spans_into_thirds():
    stamps = np.arange(np.datetime64("2019-07-01"), np.datetime64("2021-07-02"))
    returns = np.full(len(stamps), 0.001)
    found = periods(stamps, returns, -returns, 365.0)
    assert [(p.name, p.bars) for p in found] == [("2019", 184), ("2020", 366), ("2021", 182)]
    assert found[0].policy.total_return == pytest.approx(1.001**184 - 1.0)
    assert found[0].buy_and_hold.max_drawdown == pytest.approx(1.0 - 0.999**184)
    assert found[0].policy.sharpe is None  # it does not vary
    short = periods(stamps[:300], returns[:300], returns[:300], 365.0)
    assert [p.bars for p in short] == [100, 100, 100]
    assert short[0].name == "2019-07-01 to 2019-10-08"


def test_regimes_are_terciles_of_what_was_known_before_the_bar():
    rng = np.random.default_rng(0)
    volatility, returns = rng.random(9), rng.normal(size=9) / 100
    found = volatility_regimes(volatility, returns, 2 * returns, 252.0)
    calm = np.argsort(volatility)[:3]
    assert [(r.name, r.bars) for r in found] == [("calm", 3), ("middle", 3), ("volatile", 3)]
    assert found[0].policy.annual_mean == pytest.approx(252 * returns[calm].mean())
    assert found[0].buy_and_hold.annual_mean == pytest.approx(504 * returns[calm].mean())
    assert found[0].high == pytest.approx(volatility[calm].max() * np.sqrt(252))

    # The return from row t to t + 1 is put where row t's volatility says.
    m = market(*[np.ones(6)] * 4, volatility=np.arange(6.0))
    assert module.known_volatility((m,), Span(2, 5)).tolist() == [2.0, 3.0, 4.0]
    twice = m._replace(volatility=3 * m.volatility)
    assert module.known_volatility((m, twice), Span(2, 4)).tolist() == [4.0, 6.0]
