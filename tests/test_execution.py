import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import selling
from selling import walk
from tradax.data.pipeline import Market
from tradax.data.splits import Span
from tradax.envs import execution
from tradax.envs import execution_baselines as baselines
from tradax.errors import ConfigError, DataError
from tradax.evaluation.execution import assess
from tradax.rollout import jax_source

# A sale that can be followed by hand.
SMALL = {
    "shares": 100.0,
    "initial_price": 10.0,
    "volatility": 0.0,
    "horizon": 2.0,
    "steps": 2,
    "half_spread": 0.1,
    "temporary_impact": 0.01,
    "permanent_impact": 0.005,
    "risk_aversion": 0.0,
}
SET_A = {"volatility": 0.144**0.5, "horizon": 60.0, "steps": 60, "risk_aversion": 1e-8}


def sell(actions, market=None, train=None, seed=0, **options) -> selling.Sale:
    """What the environment says at each step, as numpy arrays."""
    env, params = execution.make(execution.Config(**options), market, train)
    return selling.follow(env, params, np.asarray(actions)[:, None], seed)


def bars(seed, n=40, volume=None):
    rng = np.random.default_rng(seed)
    close = 80 * np.exp(np.cumsum(0.03 * rng.normal(size=n)))
    open = close * np.exp(0.02 * rng.normal(size=n))
    return Market(
        symbol="X",
        timestamps=np.datetime64("2000-01-03", "us") + np.arange(n) * np.timedelta64(1, "D"),
        open=open,
        high=np.maximum(open, close),
        low=np.minimum(open, close),
        close=close,
        volume=rng.integers(1, 100, n).astype(float) if volume is None else volume,
        volatility=np.full(n, 0.03),
        table=rng.normal(size=(n, 4)).astype(np.float32),
        names=("a", "b", "c", "d"),
        first_row=0,
        periods_per_year=252.0,
        has_range=True,
        has_volume=True,
    )


def test_an_even_sale_by_hand():
    info = sell([0.0, 0.0], **SMALL).info
    # 50 at 10 - .1 - .01 50, then the price is .005 50 lower.
    np.testing.assert_allclose(info["sold"], [50, 50])
    np.testing.assert_allclose(info["fill_price"], [9.4, 9.15], rtol=1e-6)
    np.testing.assert_allclose(info["price"], [9.75, 9.5], rtol=1e-6)
    np.testing.assert_allclose(info["cost_dollars"], [30, 42.5], rtol=1e-6)
    assert info["done"].tolist() == [False, True]


def test_power_law_impact_by_hand():
    options = SMALL | {"permanent_impact": 0.0, "impact_exponent": 0.5, "horizon": 0.5}
    info = sell([0.0, 0.0], **options).info
    # Each step is a quarter of a day, so 50 shares are 200 a day.
    np.testing.assert_allclose(info["fill_price"], 10 - 0.1 - 0.01 * np.sqrt(200), rtol=1e-6)


def test_lots_round_down_and_the_last_step_sells_the_rest():
    info = sell([0.0] * 3, **{**SMALL, "steps": 3, "horizon": 3.0, "lot_size": 7.0}).info
    # A third of 100 is 4 lots, half of 72 is 5 lots.
    assert info["sold"].tolist() == [28, 35, 37]
    nothing = sell([-1.0, -1.0], **SMALL | {"lot_size": 7.0}).info
    assert nothing["sold"].tolist() == [0, 100]
    assert nothing["fill_price"][0] == 0
    assert nothing["cost_dollars"][0] == 0


def test_fill_prices_are_rounded_down_to_ticks():
    info = sell([0.0, 0.0], **SMALL | {"tick_size": 0.25}).info
    np.testing.assert_allclose(info["fill_price"], [9.25, 9.0], rtol=1e-6)
    np.testing.assert_allclose(info["cost_dollars"], [50 * 0.75, 50 * 1.0], rtol=1e-6)
    exact = sell([0.0, 0.0], **SMALL | {"tick_size": 0.05}).info
    np.testing.assert_allclose(exact["fill_price"], [9.4, 9.15], rtol=1e-6)


def test_a_halted_step_sells_nothing_and_the_last_is_never_halted():
    info = sell([1.0, 1.0], **SMALL | {"halt_probability": 0.999999}).info
    assert info["sold"].tolist() == [0, 100]
    env, params = execution.make(execution.Config(**SMALL, halt_probability=0.3))
    result = assess(baselines.sell_at_once(env, params), env, params, paths=20_000)
    halted = result.trajectory[1] / 100
    assert halted == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 20_000))
    # Impact is the same in both steps, so the shortfall is too.
    assert result.shortfall == pytest.approx(100 * 1.1, rel=1e-5)


def test_volume_in_a_u_shape_makes_the_ends_cheap_and_vwap_best_without_risk():
    options = {"volume_profile": "u_shaped", "permanent_impact": 0.0, "risk_aversion": 0.0}
    env, params = execution.make(execution.Config(**options, volatility=0.0))
    weights = np.array([57, 33, 25, 33, 57]) / 41  # 1 + 2 (0.8^2, 0.4^2, 0) over their mean
    np.testing.assert_allclose(params.relative_volume, weights, rtol=1e-6)
    by_volume = assess(baselines.vwap(env, params), env, params, paths=2)
    even = assess(baselines.twap(env, params), env, params, paths=2)
    np.testing.assert_allclose(-np.diff(by_volume.trajectory), 2e5 * weights, rtol=1e-5)
    # sum n^2 / w is least, and X^2 / N, where n is proportional to w.
    assert by_volume.shortfall == pytest.approx(62_500 + 2.5e-6 * 1e12 / 5, rel=1e-5)
    assert even.shortfall == pytest.approx(62_500 + 2.5e-6 * (2e5**2 / weights).sum(), rel=1e-5)
    assert even.objective / float(params.reward_unit) == pytest.approx(1.0, rel=1e-5)


def test_the_observation_is_volume_and_shares_clock_and_price():
    env, params = execution.make(execution.Config(volume_profile="u_shaped"))
    state = env.reset_state(jax.random.key(0), params)
    np.testing.assert_allclose(env.get_obs(state, params), [57 / 41, 1, 1, 1, 0], rtol=1e-6)
    for k in range(2):
        state, *_, info = env.step_state(jax.random.key(k), state, jnp.zeros(1), params)
    move = (float(info["price"]) - 50) / (0.95 * np.sqrt(5))
    expected = [25 / 41, 1 - 90 / 205, 0.6, 0.6, move]
    np.testing.assert_allclose(env.get_obs(state, params), expected, rtol=1e-5)


@pytest.mark.parametrize("reward", ["expected", "shortfall"])
@pytest.mark.parametrize("options", [{}, {"risk_aversion": 2e-6, "steps": 9}, SET_A])
def test_without_noise_rewards_add_up_to_the_closed_form(reward, options):
    config = execution.Config(**options, reward=reward)
    model = execution.closed_form(config)
    env, params = execution.make(config)
    source = jax_source(env, params)
    for policy, trades in selling.optimum_and_twap(baselines, env, params, model):
        actor = policy.actor(sample=False)
        _, info = walk(source, actor, jax.random.key(0), config.steps)
        np.testing.assert_allclose(info["sold"], trades, rtol=2e-4)
        noise = np.asarray(info["price"]) - 50
        noise += config.permanent_impact * (1e6 - np.asarray(info["remaining"]))
        # sum n_k (S_{k-1} - S_0) without what the seller did to the price
        luck = (trades[1:] * noise[:-1]).sum() if reward == "shortfall" else 0.0
        total = float(info["reward"].sum() * params.reward_unit)
        tolerance = 3e-5 * (model.utility(trades) + abs(luck))
        assert total == pytest.approx(luck - model.utility(trades), abs=tolerance)
        cost = float(info["cost_dollars"].sum())
        luck = (trades[1:] * noise[:-1]).sum()
        assert cost == pytest.approx(model.expected_shortfall(trades) - luck, abs=tolerance + 50)


@pytest.mark.parametrize("options", [{}, {"risk_aversion": 1e-7, "reward": "shortfall"}, SET_A])
def test_simulated_sales_cost_what_the_closed_form_says(options):
    config = execution.Config(**options)
    model = execution.closed_form(config)
    env, params = execution.make(config)
    for policy, trades in selling.optimum_and_twap(baselines, env, params, model):
        result = assess(policy, env, params, paths=100_000, seed=1)
        selling.assert_costs_what_the_model_says(result, model, trades)
        sd = np.sqrt(model.variance(trades))
        assert result.standard_error == pytest.approx(sd / np.sqrt(100_000), rel=0.02)
        assert result.bps == pytest.approx(1e4 * result.shortfall / 5e7)
        np.testing.assert_allclose(result.trajectory, 1e6 - np.append(0, np.cumsum(trades)), atol=5)


@pytest.mark.parametrize(
    "options",
    [
        {"action": "pace"},
        {"action": "fraction", "lot_size": 300.0},
        {"action": "rate", "lot_size": 300.0, "halt_probability": 0.3},
    ],
)
def test_everything_is_sold_when_the_last_step_ends_and_no_sooner_does_it_end(options):
    rng = np.random.default_rng(0)
    for seed in range(8):
        sale = sell(rng.uniform(-1, 1, 5), seed=seed, **options)
        assert sale.info["done"].tolist() == [False] * 4 + [True]
        assert sale.info["remaining"][-1] == 0
        assert sale.info["sold"].sum() == pytest.approx(1e6, rel=1e-6)
        assert (sale.info["sold"] >= 0).all()
        if "lot_size" in options:
            assert (sale.info["sold"][:-1] % options["lot_size"] == 0).all()
    source = jax_source(sale.env, sale.params)
    for policy in baselines.baselines(sale.env, sale.params).values():
        _, info = walk(source, policy.actor(sample=False), jax.random.key(0), 5)
        assert info["remaining"][-1] == 0
        assert info["done"].tolist() == [False] * 4 + [True]


@pytest.mark.parametrize("action", ["pace", "fraction", "rate"])
def test_actions_say_what_fraction_is_sold_and_back(action):
    config = execution.Config(action=action)
    env, params = execution.make(config)
    fractions = params.optimal_fraction * jnp.array([0.0, 0.3, 1.0, 1.5, 1.0])
    fractions = fractions.at[-1].set(1.0)
    actions = env.actions(fractions, params)
    back = [env.fraction(actions[k], k, params) for k in range(5)]
    np.testing.assert_allclose(back, fractions, rtol=1e-5, atol=1e-7)
    even = [float(env.fraction(jnp.zeros(1), k, params)) for k in range(5)]
    meaning = {
        "pace": 1 / np.arange(5, 0, -1),
        "fraction": np.full(5, 0.5),
        "rate": execution.closed_form(config).fractions(),
    }
    np.testing.assert_allclose(even, meaning[action], rtol=1e-5)


def test_a_schedule_acts_alike_on_flat_and_factored_observations():
    env, params = execution.make(execution.Config())
    policy = baselines.almgren_chriss(env, params)
    _, action = selling.assert_acts_alike_on_flat_and_factored_observations(
        policy, env, params, jnp.zeros(1)
    )
    np.testing.assert_array_equal(action, policy.actions[1])


def test_rates_cannot_express_selling_at_once():
    env, params = execution.make(execution.Config(action="rate"))
    with pytest.raises(ConfigError, match="sells at most twice what the closed form sells"):
        baselines.sell_at_once(env, params)
    assert set(baselines.baselines(env, params)) == {"twap", "vwap", "almgren_chriss"}


def test_windows_of_real_bars_fill_at_the_next_open():
    market = bars(3)
    options = {**SMALL, "permanent_impact": 0.0, "steps": 4, "horizon": 4.0}
    sale = sell([0.0] * 4, market, Span(5, 30), seed=2, **options)
    rows = sale.info["row"]
    start = rows[0] - 1
    assert start >= 5
    assert rows[-1] <= 30
    close, following = market.close[start], market.open[start + 1 : start + 5]
    # 25 shares a step: half spread .1 and impact .25
    np.testing.assert_allclose(sale.info["fill_price"], 10 * following / close - 0.35, rtol=1e-5)
    seen = 10 * market.close[start + 1 : start + 5] / close
    np.testing.assert_allclose(sale.info["price"], seen, rtol=1e-5)
    returns = np.diff(market.close[5:31]) / market.close[5:30]
    assert float(sale.params.volatility) == pytest.approx(10 * returns.std(), rel=1e-5)
    starts = jax.jit(jax.vmap(lambda k: sale.env.reset_state(k, sale.params).start))(
        jax.random.split(jax.random.key(0), 500)
    )
    assert set(np.unique(starts)) == set(range(5, 27))
    held_out = execution.over_span(sale.params, Span(31, 39))
    state = sale.env.reset_state(jax.random.key(0), held_out)
    assert 31 <= int(state.start) <= 35


def test_volumes_of_bars_scale_impact_relative_to_the_training_rows():
    market = bars(3, n=4, volume=np.array([100.0, 50.0, 150.0, 100.0]))
    options = {**SMALL, "volume_profile": "bars", "permanent_impact": 0.0}
    sale = sell([0.0, 0.0], market, Span(0, 2), **options)
    slip = sale.info["cost_dollars"] / 50 + 10 * (market.open[1:3] / market.close[0] - 1)
    np.testing.assert_allclose(slip, [0.1 + 0.5, 0.1 + 0.5 / 0.5], rtol=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_prices_after_a_bar_change_no_observation_up_to_it(seed, t):
    market, other = bars(seed, 10), bars(seed + 1, 10)
    changed = market._replace(
        **{
            name: np.concatenate([getattr(market, name)[: t + 1], getattr(other, name)[t + 1 :]])
            for name in ("open", "close", "volume", "table")
        }
    )
    env, params = execution.make(execution.Config(steps=9), market, Span(0, 9))
    _, other_params = execution.make(execution.Config(steps=9), changed, Span(0, 9))
    other_params = other_params.replace(volatility=params.volatility)
    states = [env.reset_state(jax.random.key(0), params)] * 2
    for k in range(t + 1):
        seen = [
            env.get_obs(state, p) for state, p in zip(states, (params, other_params), strict=True)
        ]
        np.testing.assert_array_equal(*seen)
        states = [
            env.step_state(jax.random.key(k), state, jnp.zeros(1), p)[0]
            for state, p in zip(states, (params, other_params), strict=True)
        ]


def test_several_symbols_share_one_environment():
    env, params = execution.make(execution.Config(), (bars(1), bars(2)), Span(3, 30))
    states = jax.vmap(lambda k: env.reset_state(k, params))(jax.random.split(jax.random.key(0), 99))
    assert set(np.unique(states.start // 40)) == {0, 1}


def test_numbers_are_leaves_and_equal_choices_make_equal_environments():
    configs = [execution.Config(risk_aversion=x) for x in (0.0, 1e-6, 1e-5)]
    made = [execution.make(c) for c in configs]
    assert made[0][0] == made[1][0]
    assert hash(made[0][0]) == hash(made[1][0])
    assert made[0][0] != execution.make(execution.Config(tick_size=0.01))[0]
    env = made[0][0]
    sold = selling.first_sales(
        env, [p for _, p in made], lambda params: env.actions(params.optimal_fraction, params)[0]
    )
    expected = [execution.closed_form(c).trades()[0] for c in configs]
    np.testing.assert_allclose(sold, expected, rtol=1e-4)


def test_it_works_as_a_gymnax_environment_and_terminates_at_its_deadline():
    selling.assert_terminates_at_its_deadline(execution.Execution(), n_assets=1)


def test_ppo_learns_to_sell_nearly_as_well_as_the_closed_form():
    env, params = execution.make(execution.Config())
    result = assess(selling.trained(env, params), env, params, paths=4_096)
    optimum = execution.closed_form(execution.Config()).utility()
    assert result.objective < 1.01 * optimum  # an even sale costs 1.37 times the optimum
    assert result.objective > 0.9999 * optimum


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match=r"execution.shares is 0.0; it must be above 0"):
        execution.Config(shares=0.0)
    with pytest.raises(ConfigError, match=r"execution.halt_probability is 1.0; it must be below 1"):
        execution.Config(halt_probability=1.0)
    with pytest.raises(ConfigError, match=r"execution.action is 'all'; it must be one of pace"):
        execution.Config(action="all")
    with pytest.raises(ConfigError, match="must exceed half the permanent impact"):
        execution.Config(permanent_impact=1e-5)
    with pytest.raises(ConfigError, match='volume_profile "bars" needs a market'):
        execution.make(execution.Config(volume_profile="bars"))
    with pytest.raises(DataError, match="5 training bars hold no window of 5 steps"):
        execution.make(execution.Config(), bars(0), Span(0, 4))
    no_volume = bars(0)._replace(has_volume=False)
    with pytest.raises(DataError, match="needs volumes, and the data has none"):
        execution.make(execution.Config(volume_profile="bars"), no_volume)
    env, params = execution.make(execution.Config())
    selling.assert_refuses_one_path_and_foreign_policies(
        assess, baselines.twap(env, params), env, params
    )
