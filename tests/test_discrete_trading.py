import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tradax
from test_trading import FLAT, market, random_market
from test_trading import walk as walk_continuous
from tradax import discovery
from tradax.data.splits import Span
from tradax.envs import _baselines, discrete_trading, trading
from tradax.envs._orders import Quote
from tradax.errors import ConfigError
from tradax.evaluation.backtest import walked
from tradax.rollout import jax_source


def walk(m, actions, **options):
    span = Span(0, len(m.close) - 1)
    env, params = discrete_trading.make(discrete_trading.Config(**options), m, span)
    source = jax_source(env, trading.over_span(params, span))
    plan = _baselines.Plan(jnp.array(actions, jnp.int32))
    _, info = walked(source, plan, jax.random.key(0), len(actions))
    return {name: np.asarray(value, np.float64) for name, value in info.items()}


@pytest.mark.parametrize("fill", ["next_open", "next_close", "close"])
def test_hold_buy_and_sell_are_the_continuous_orders_of_full_size(fill):
    m = random_market(3)
    actions = np.random.default_rng(0).integers(0, 3, 39)
    same = [[[0.0, 1.0], [1.0, 1.0], [-1.0, 1.0]][a] for a in actions]
    discrete = walk(m, actions, fill=fill, commission_bps=8.0)
    continuous = walk_continuous(m, same, fill=fill, commission_bps=8.0)
    for name in ("net_worth", "shares", "cost", "reward"):
        np.testing.assert_array_equal(discrete[name], continuous[name])


def test_an_order_size_is_a_fraction_of_what_is_possible():
    info = walk(market(*[[10.0] * 5] * 4), [1, 1, 2, 0], order_size=0.5, **FLAT)
    assert info["shares"].tolist() == [50, 75, 37.5, 37.5]


def test_targets_are_reached_from_wherever_the_position_is():
    options = {"targets": (-1.0, 0.0, 0.5, 1.0), "allow_short": True, "borrow_rate": 0.0}
    info = walk(market(*[[10.0] * 6] * 4), [3, 2, 0, 1, 2], **options, **FLAT)
    assert info["shares"].tolist() == pytest.approx([100, 50, -100, 0, 50])


def test_a_target_of_all_leaves_cash_for_its_costs():
    info = walk(market(*[[10.0] * 4] * 4), [1, 1], targets=(0.0, 1.0), commission_bps=50.0)
    assert info["cash"][0] == pytest.approx(0.0, abs=0.05)
    assert info["cash"].min() > -0.05
    assert info["cost"][0] == pytest.approx(100_000 * (1 - 1 / (1.0001 * 1.005)), rel=1e-3)


def test_the_rivals_buy_once_and_never():
    # Whatever the policy may do: half orders, targets without 0 or 1, twice its worth, stops.
    for options in (
        {},
        {"order_size": 0.1},
        {"targets": (0.0, 0.5, 1.0)},
        {"targets": (-1.0, 0.5), "allow_short": True},
        {"leverage": 2.0},
        {"stop_loss": 0.01, "take_profit": 0.01},
    ):
        config = discrete_trading.Config(**options)
        env, params = discrete_trading.make(config, random_market(1), Span(0, 39))
        rivals = discrete_trading.rivals(env, params, 30, jax.random.key(0))
        benchmark = discrete_trading.benchmark(env)
        source = jax_source(benchmark, trading.over_span(params, Span(0, 39)))
        held = {}
        for name in ("buy_and_hold", "cash"):
            info = walked(source, rivals[name], jax.random.key(0), 30)[1]
            held[name] = np.asarray(info["shares"])
        assert (held["cash"] == 0).all()
        assert (held["buy_and_hold"] == held["buy_and_hold"][0]).all()
        invested = held["buy_and_hold"][0] * params.quotes[0, Quote._fields.index("next_open")]
        assert invested == pytest.approx(float(params.initial_cash), rel=0.01)


def test_options_are_those_of_trading_and_two_more():
    names = {
        name: [f.name for f in discovery.options("envs", name)]
        for name in ("trading", "discrete_trading")
    }
    assert names["discrete_trading"] == [*names["trading"], "order_size", "targets"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": (1.0,)}, "has one position"),
        ({"targets": (-1.0, 1.0)}, "allow_short is needed"),
        ({"targets": (0.0, 2.0)}, "leverage allows 1.0"),
        ({"order_size": 0.0}, "must be above 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        discrete_trading.Config(**options)


def test_it_trains_on_real_prices_and_is_reported(tmp_path):
    small = {"num_envs": 8, "n_steps": 32, "minibatches": 2, "hidden_sizes": [16]}
    result = tradax.train(
        env="discrete_trading",
        data="AAPL",
        total_timesteps=2_048,
        evaluations=1,
        skip_posterior=True,
        settings={"ppo": small},
        out=tmp_path / "run",
    )
    assert set(result.summary["strategies"]) >= {"policy", "buy_and_hold", "cash", "random"}
    assert (tmp_path / "run" / "report.html").exists()
