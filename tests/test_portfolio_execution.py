import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

import selling
from selling import walk
from tradax.almgren_chriss import AlmgrenChriss, PortfolioAlmgrenChriss
from tradax.envs import execution, portfolio_execution
from tradax.envs import portfolio_execution_baselines as baselines
from tradax.envs._baselines import Plan
from tradax.envs.portfolio_execution import Config
from tradax.errors import ConfigError
from tradax.evaluation.portfolio_execution import assess
from tradax.rollout import jax_source

# A sale that can be followed by hand: sell 100 of the first asset, buy 60 of the second.
SMALL = {
    "shares": (100.0, -60.0),
    "initial_prices": (10.0, 20.0),
    "volatilities": (0.0,),
    "correlation": 0.5,
    "horizon": 4.0,
    "steps": 2,
    "half_spreads": (0.1, 0.2),
    "temporary_impacts": (0.01, 0.04),
    "permanent_impacts": (0.0025, 0.01),
    "cross_impact": 0.2,
    "risk_aversion": 0.0,
}
# Half of 100 and of -60 in each step of two days. Own impacts at 25 and -15 shares a day are .25
# and -.6; cross impact of .1 x geometric mean is .002 and .0005: -.03 and +.05 while filling,
# -.015 and +.025 for good. Own permanent impact is .125 and -.3.
SLIP = [0.1 + 0.25 - 0.03, -0.2 - 0.6 + 0.05]
DROP = [0.125 - 0.015, -0.3 + 0.025]
# Positions whose optimal trades never change sign.
ONE_WAY = {"volatilities": (0.95, 0.9, 0.4), "half_spreads": (0.05,), "risk_aversion": 3e-7}


def sell(actions, seed=0, **options) -> selling.Sale:
    """What the environment says at each step, as numpy arrays."""
    env, params = portfolio_execution.make(Config(**options))
    return selling.follow(env, params, actions, seed)


def test_an_even_sale_by_hand():
    info = sell([[0.0, 0.0]] * 2, **SMALL).info
    np.testing.assert_allclose(info["sold"], [[50, -30]] * 2, rtol=1e-6)
    prices = np.array([[10, 20], [10 - DROP[0], 20 - DROP[1]]])
    np.testing.assert_allclose(info["fill_price"], prices - SLIP, rtol=1e-6)
    after = [prices[1], prices[1] - DROP]
    np.testing.assert_allclose(info["price"], after, rtol=1e-6)
    costs = [50 * SLIP[0] - 30 * SLIP[1], 50 * (SLIP[0] + DROP[0]) - 30 * (SLIP[1] + DROP[1])]
    np.testing.assert_allclose(info["cost_dollars"], costs, rtol=1e-5)
    assert info["done"].tolist() == [False, True]


def test_shortfall_variance_and_utility_by_hand():
    config = Config(**{**SMALL, "volatilities": (0.5, 0.4), "risk_aversion": 0.1})
    model = portfolio_execution.closed_form(config)
    cost = 50 * SLIP[0] - 30 * SLIP[1]
    expected = 2 * cost + 50 * DROP[0] - 30 * DROP[1]
    assert model.expected_shortfall(model.twap()) == pytest.approx(expected)
    # Two days with 50 and -30 shares; the covariance of the two is .5 x .5 x .4.
    variance = 2 * (0.25 * 50**2 + 0.16 * 30**2 - 2 * 0.1 * 50 * 30)
    assert model.variance(model.twap()) == pytest.approx(variance)
    assert model.utility(model.twap()) == pytest.approx(expected + 0.1 * variance)
    assert model.trajectory()[-1].tolist() == [0.0, 0.0]


def random_model(seed, assets, steps, twist=0.0, **changes) -> PortfolioAlmgrenChriss:
    """Full matrices; `twist` makes permanent impact unsymmetric."""
    rng = np.random.default_rng(seed)

    def definite():
        root = rng.normal(size=(assets, assets + 2))
        return root @ root.T / (assets + 2)

    skew = rng.normal(size=(assets, assets))
    numbers = {
        "shares": 1e6 * rng.normal(size=assets),
        "covariance": definite(),
        "temporary_impact": 2e-6 * (definite() + 0.5 * np.eye(assets)) + 1e-7 * (skew - skew.T),
        "permanent_impact": 2e-7 * definite() + twist * (skew - skew.T),
        "half_spread": 0.1 * rng.random(assets),
        "horizon": 0.5 * steps,
        "steps": steps,
        "risk_aversion": 10.0 ** rng.uniform(-8, -6),
    }
    return PortfolioAlmgrenChriss(**{**numbers, **changes})


def cost_matrices(model):
    """The cost n' Q n + c' n + d of all trades n [N A], from the recursion of prices.

    The spread is left out.
    """
    steps, tau, eye = model.steps, model.step_days, np.eye(len(model.shares))
    until = np.kron(np.tri(steps), eye)  # sold up to and including a step
    risk = model.risk_aversion * tau * np.kron(np.eye(steps), model.covariance)
    held = np.tile(model.shares, steps)
    quadratic = (
        np.kron(np.tri(steps, k=-1), model.permanent_impact)
        + np.kron(np.eye(steps), model.temporary_impact) / tau
        + until.T @ risk @ until
    )
    return quadratic, -2 * held @ risk @ until, held @ risk @ held


def quadratic_programme(model):
    """The trades that minimise the cost, spread left out, and add up to the shares."""
    quadratic, linear, _ = cost_matrices(model)
    n = len(model.shares)
    total = np.tile(np.eye(n), model.steps)
    # Impact and shares differ by twelve orders of magnitude: scale before solving.
    scale, size = np.abs(quadratic).max(), np.abs(model.shares).max()
    kkt = np.block([[(quadratic + quadratic.T) / scale, total.T], [total, np.zeros((n, n))]])
    right = np.concatenate([-linear / scale, model.shares]) / size
    return scipy.linalg.solve(kkt, right)[:-n].reshape(-1, n) * size


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    assets=st.integers(1, 5),
    steps=st.integers(1, 30),
    twist=st.sampled_from([0.0, 2e-8]),
)
def test_the_optimum_equals_that_of_an_independent_quadratic_programme(seed, assets, steps, twist):
    model = random_model(seed, assets, steps, twist, half_spread=0.0)
    trades = quadratic_programme(model)
    size = np.abs(model.shares).max()
    np.testing.assert_allclose(model.trades(), trades, atol=1e-6 * size)
    quadratic, linear, constant = cost_matrices(model)
    n = trades.ravel()
    assert model.utility() == pytest.approx(n @ quadratic @ n + linear @ n + constant, rel=1e-6)
    # The costs of any other plan agree as well.
    other = trades + size * np.random.default_rng(seed).normal(size=trades.shape)
    other[-1] += model.shares - other.sum(0)
    n = other.ravel()
    cost = n @ quadratic @ n + linear @ n + constant
    assert model.utility(other) == pytest.approx(cost, rel=1e-6)


@pytest.mark.parametrize("risk_aversion", [0.0, 1e-7, 3e-6])
def test_assets_that_have_nothing_in_common_are_sold_as_if_each_were_alone(risk_aversion):
    config = Config(
        shares=(1e6, 2e5, -3e5, 5e4),
        initial_prices=(50.0,),
        volatilities=(0.95, 2.0, 0.3, 0.0),
        correlation=0.0,
        half_spreads=(0.0625, 0.1, 0.0, 0.02),
        temporary_impacts=(2.5e-6, 1e-6, 4e-6, 1e-5),
        permanent_impacts=(2.5e-7, 0.0, 1e-7, 2e-7),
        steps=12,
        risk_aversion=risk_aversion,
    )
    model = portfolio_execution.closed_form(config)
    alone = [
        AlmgrenChriss(
            shares=abs(config.shares[i]),
            volatility=config.volatilities[i],
            steps=12,
            half_spread=config.half_spreads[i],
            temporary_impact=config.temporary_impacts[i],
            permanent_impact=config.permanent_impacts[i],
            risk_aversion=risk_aversion,
        )
        for i in range(4)
    ]
    sign = np.sign(config.shares)
    expected = np.stack([one.trajectory() for one in alone], axis=1) * sign
    np.testing.assert_allclose(model.trajectory(), expected, rtol=1e-9, atol=1e-6)
    gains = np.stack([one.fractions() for one in alone], axis=1)
    np.testing.assert_allclose(model.gains(), gains[:, :, None] * np.eye(4), rtol=1e-9, atol=1e-12)
    for name in ("expected_shortfall", "variance", "utility"):
        parts = sum(getattr(one, name)() for one in alone)
        assert getattr(model, name)() == pytest.approx(parts, rel=1e-9)
        parts = sum(getattr(one, name)(one.twap()) for one in alone)
        assert getattr(model, name)(model.twap()) == pytest.approx(parts, rel=1e-9)
    assert model.round_trip_spread() == 0


def test_one_asset_is_the_single_sale_of_the_paper_to_the_cent():
    for risk_aversion, utility in ((1e-6, 1_275_355.56), (2e-6, 1_544_577.74), (1e-7, 762_529.32)):
        model = PortfolioAlmgrenChriss(
            shares=[1e6],
            covariance=[[0.95**2]],
            temporary_impact=[[2.5e-6]],
            permanent_impact=[[2.5e-7]],
            half_spread=0.0625,
            risk_aversion=risk_aversion,
        )
        assert model.utility() == pytest.approx(utility, abs=0.005)


def test_the_optimum_is_a_sum_of_hyperbolic_sines():
    """Appendix of the paper: where both matrices are diagonal, every combination is sold alone."""
    model = random_model(3, assets=4, steps=25)
    # C v = mu H~ v; in these coordinates kappa_i~^2 = lambda mu_i.
    mu, vectors = scipy.linalg.eigh(model.covariance, model.effective_impact)
    tau = model.step_days
    kappa = 2 / tau * np.arcsinh(np.sqrt(model.risk_aversion * mu) * tau / 2)
    left = tau * np.arange(25, -1, -1)[:, None]
    shape = np.sinh(kappa * left) / np.sinh(kappa * model.horizon)
    expected = (shape * np.linalg.solve(vectors, model.shares)) @ vectors.T
    size = np.abs(model.shares).max()
    np.testing.assert_allclose(model.trajectory(), expected, atol=1e-9 * size)


def test_the_feedback_is_the_optimum_of_the_rest_from_any_holdings():
    model = random_model(5, assets=3, steps=8)
    for k in (1, 4, 7):
        holdings = np.random.default_rng(k).normal(size=3) * 1e6
        rest = dataclasses.replace(
            model, shares=holdings, steps=8 - k, horizon=model.step_days * (8 - k)
        )
        first = quadratic_programme(rest)[0]
        np.testing.assert_allclose(model.gains()[k] @ holdings, first, atol=1.0)


def test_without_risk_aversion_every_position_is_sold_evenly():
    model = random_model(7, assets=3, steps=6, risk_aversion=0.0)
    np.testing.assert_allclose(model.trades(), model.twap(), rtol=1e-9)


def test_hedging_costs_at_most_the_spread_of_the_round_trips_more_than_the_optimum():
    config = Config(half_spreads=(0.5,), correlation=0.6, action="rate")
    model = portfolio_execution.closed_form(config)
    assert model.round_trip_spread() > 5_000  # the second asset is sold short, and bought back
    quadratic, linear, constant = cost_matrices(model)

    def utility(parts):  # shares sold and bought, both at least 0, in units of 1e5
        sold, bought = 1e5 * parts.reshape(2, -1)
        n = sold - bought
        slope = (quadratic + quadratic.T) @ n + linear
        cost = n @ quadratic @ n + linear @ n + constant + 0.5 * (sold + bought).sum()
        return cost / 1e6, np.concatenate([slope + 0.5, -slope + 0.5]) / 10

    total = np.tile(np.eye(3), 5)
    start = np.concatenate([np.maximum(model.twap(), 0), np.maximum(-model.twap(), 0)]) / 1e5
    best = scipy.optimize.minimize(
        utility,
        start.ravel(),
        jac=True,
        method="SLSQP",
        bounds=[(0, None)] * 30,
        constraints={
            "type": "eq",
            "fun": lambda x: total @ (x[:15] - x[15:]) - model.shares / 1e5,
            "jac": lambda x: np.hstack([total, -total]),
        },
        options={"maxiter": 500, "ftol": 1e-13},
    )
    assert best.success
    assert 1e6 * best.fun <= model.utility() + 1
    assert 1e6 * best.fun >= model.utility() - model.round_trip_spread()


@pytest.mark.parametrize(
    "options", [{}, {"cross_impact": 1.0, "horizon": 2.0}, {"correlation": -0.3}]
)
@pytest.mark.parametrize("reward", ["expected", "shortfall"])
def test_rewards_add_up_to_the_utility(reward, options):
    config = Config(**options, reward=reward)
    model = portfolio_execution.closed_form(config)
    env, params = portfolio_execution.make(config)
    source = jax_source(env, params)
    for policy, trades in selling.optimum_and_twap(baselines, env, params, model):
        actor = policy.actor(sample=False)
        _, info = walk(source, actor, jax.random.key(0), config.steps)
        np.testing.assert_allclose(info["sold"], trades, atol=2.0)
        sold = model.shares - np.asarray(info["remaining"])
        noise = np.asarray(info["price"]) - config.initial_prices + sold @ model.permanent_impact.T
        luck = (trades[1:] * noise[:-1]).sum()
        tolerance = 5e-5 * (model.utility(trades) + abs(luck))
        cost = float(info["cost_dollars"].sum())
        assert cost == pytest.approx(model.expected_shortfall(trades) - luck, abs=tolerance)
        total = float(info["reward"].sum() * params.reward_unit)
        luck = luck if reward == "shortfall" else 0.0
        assert total == pytest.approx(luck - model.utility(trades), abs=tolerance)


@pytest.mark.parametrize("options", [{}, {"reward": "shortfall", "risk_aversion": 1e-7}])
def test_simulated_sales_cost_what_the_model_says(options):
    config = Config(**options)
    model = portfolio_execution.closed_form(config)
    env, params = portfolio_execution.make(config)
    for policy, trades in selling.optimum_and_twap(baselines, env, params, model):
        result = assess(policy, env, params, paths=100_000, seed=1)
        selling.assert_costs_what_the_model_says(result, model, trades)
        assert result.bps == pytest.approx(1e4 * result.shortfall / (50e6 + 50e6 + 8e6))
        left = model.shares - np.cumsum(trades, axis=0)
        assert result.trajectory.shape == (6, 3)
        np.testing.assert_allclose(result.trajectory[0], model.shares)
        np.testing.assert_allclose(result.trajectory[1:], left, atol=5)


def test_prices_move_together_as_the_covariance_says():
    config = Config(correlation=0.7, steps=2)
    env, params = portfolio_execution.make(config)
    state = env.reset_state(jax.random.key(0), params)

    @jax.jit
    @jax.vmap
    def moves(key):
        return env.step_state(key, state, jnp.zeros(3), params)[0].market_move

    found = np.cov(np.asarray(moves(jax.random.split(jax.random.key(1), 100_000))).T)
    covariance = 2.5 * portfolio_execution.closed_form(config).covariance
    np.testing.assert_allclose(found, covariance, rtol=0.03)


def test_one_asset_costs_the_same_as_in_the_market_for_one():
    options = {"steps": 4, "horizon": 4.0, "risk_aversion": 1e-6, "action": "pace"}
    config = Config(
        shares=(1e6,),
        initial_prices=(50.0,),
        volatilities=(0.0,),
        half_spreads=(0.0625,),
        temporary_impacts=(2.5e-6,),
        permanent_impacts=(2.5e-7,),
        **options,
    )
    env, params = portfolio_execution.make(config)
    actions = jnp.array([0.3, -0.5, 0.1, 0.0])
    _, several = walk(jax_source(env, params), Plan(actions[:, None]), jax.random.key(0), 4)
    env, params = execution.make(execution.Config(volatility=0.0, **options))
    _, single = walk(jax_source(env, params), Plan(actions[:, None]), jax.random.key(0), 4)
    for name in ("sold", "remaining", "fill_price", "price", "cost_dollars", "reward"):
        np.testing.assert_allclose(np.ravel(several[name]), single[name], rtol=1e-5)


KINDS = ["target", "pace", "fraction", "rate"]


@pytest.mark.parametrize("action", KINDS)
def test_everything_is_sold_when_the_last_step_ends_and_no_sooner_does_it_end(action):
    rng = np.random.default_rng(0)
    for seed in range(4):
        sale = sell(rng.uniform(-1, 1, (5, 3)), seed=seed, action=action)
        assert sale.info["done"].tolist() == [False] * 4 + [True]
        assert sale.info["remaining"][-1].tolist() == [0, 0, 0]
        np.testing.assert_allclose(sale.info["sold"].sum(0), sale.params.shares, atol=1.0)
        if action in ("pace", "fraction"):
            assert (sale.info["sold"] * np.sign(sale.params.shares) >= 0).all()


def test_a_plan_sells_all_from_holdings_that_it_did_not_foresee():
    env, params = portfolio_execution.make(Config())
    other = params.replace(shares=params.shares * jnp.array([-0.5, 2.0, 0.1]))
    for policy in baselines.baselines(env, params).values():
        _, info = walk(jax_source(env, other), policy.actor(sample=False), jax.random.key(0), 5)
        assert info["remaining"][-1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("action", KINDS)
def test_actions_say_what_is_sold_and_back(action):
    config = Config(action=action)
    env, params = portfolio_execution.make(config)
    shares = params.shares * jnp.array([0.8, 0.5, 0.9])
    step = jnp.int32(2)
    given = jnp.array([[0.0, 0.0, 0.0], [-0.7, 0.2, 0.6]])
    sales = env.sales(given, shares, step, params)
    np.testing.assert_allclose(env.actions(sales, shares, step, params), given, atol=1e-6)
    optimum = portfolio_execution.closed_form(config).gains()[2] @ np.asarray(shares)
    meaning = {
        "target": shares - 0.4 * params.shares,  # after three steps of five
        "pace": shares / 3,
        "fraction": shares / 2,
        "rate": optimum,
    }
    np.testing.assert_allclose(sales[0], meaning[action], rtol=1e-5)
    # At the bounds, and beyond them, too.
    ends = {
        "target": shares - 0.4 * params.shares - params.unit,
        "pace": shares,
        "fraction": shares,
        "rate": 2 * optimum,
    }
    for most in (1.0, 7.0):
        np.testing.assert_allclose(
            env.sales(jnp.full(3, most), shares, step, params), ends[action], rtol=1e-5
        )


def test_the_observation_is_the_clock_and_holdings_and_prices():
    config = Config(shares=(1e6, 0.0, -4e5), half_spreads=(0.05,))
    env, params = portfolio_execution.make(config)
    # An asset that is not held at first is counted in shares worth 50 million.
    assert params.unit.tolist() == [1e6, 5e5, 4e5]
    state = env.reset_state(jax.random.key(0), params)
    assert env.get_obs(state, params).tolist() == [1, 1, 0, -1, 0, 0, 0]
    action = jnp.array([0.0, -0.3, 0.2])
    state, *_, info = jax.jit(env.step_state)(jax.random.key(0), state, action, params)
    move = (info["price"] - jnp.array(config.initial_prices)) / np.sqrt(5)
    seen = [0.8, 0.8, -0.3, -0.6, *(np.asarray(move) / config.volatilities)]
    np.testing.assert_allclose(env.get_obs(state, params), seen, rtol=1e-5)


def test_a_plan_acts_alike_on_flat_and_factored_observations():
    env, params = portfolio_execution.make(Config())
    policy = baselines.almgren_chriss(env, params)
    state, action = selling.assert_acts_alike_on_flat_and_factored_observations(
        policy, env, params, jnp.array([0.1, -0.4, 0.2])
    )
    sold = env.sales(action, state.shares, state.step, params)
    expected = portfolio_execution.closed_form(Config()).gains()[1] @ np.asarray(state.shares)
    np.testing.assert_allclose(sold, expected, atol=1.0)


def test_one_by_one_is_the_closed_form_of_every_single_asset():
    config = Config()
    gains = baselines.one_by_one(*portfolio_execution.make(config)).gains
    for i in range(3):
        alone = AlmgrenChriss(
            volatility=config.volatilities[i],
            temporary_impact=config.temporary_impacts[i],
            permanent_impact=config.permanent_impacts[i],
        )
        np.testing.assert_allclose(gains[:, i, i], alone.fractions(), rtol=1e-5)
    assert np.count_nonzero(gains) == 5 * 3


def test_plans_that_actions_cannot_express_are_left_out():
    everything = {"sell_at_once", "twap", "one_by_one", "almgren_chriss"}
    for action, config, found in (
        ("target", {}, everything),
        ("rate", {}, everything - {"sell_at_once"}),
        ("pace", {}, everything - {"almgren_chriss"}),
        ("pace", ONE_WAY, everything),
        ("fraction", ONE_WAY, everything),
    ):
        env, params = portfolio_execution.make(Config(**config, action=action))
        assert set(baselines.baselines(env, params)) == found
    env, params = portfolio_execution.make(Config(action="pace"))
    message = r'"pace" cannot express this plan: in step \d it sells .* of asset 2 .*use "target"'
    with pytest.raises(ConfigError, match=message):
        baselines.almgren_chriss(env, params)


def test_numbers_are_leaves_and_equal_choices_make_equal_environments():
    configs = [Config(risk_aversion=x) for x in (0.0, 1e-6, 1e-5)]
    made = [portfolio_execution.make(c) for c in configs]
    assert made[0][0] == made[1][0]
    assert hash(made[0][0]) == hash(made[1][0])
    assert made[0][0] != portfolio_execution.make(Config(action="rate"))[0]
    env = portfolio_execution.PortfolioExecution(action="rate")
    sold = selling.first_sales(env, [p for _, p in made], lambda params: jnp.zeros(3))
    expected = [portfolio_execution.closed_form(c).trades()[0] for c in configs]
    np.testing.assert_allclose(sold, expected, rtol=1e-4)


def test_it_works_as_a_gymnax_environment_and_terminates_at_its_deadline():
    env = portfolio_execution.PortfolioExecution()
    assert env.observation_space(env.default_params).shape == (7,)
    assert env.num_actions == 3
    selling.assert_terminates_at_its_deadline(env, n_assets=3)


def test_ppo_learns_to_sell_and_hedge_nearly_as_well_as_the_optimum():
    env, params = portfolio_execution.make(Config())
    result = assess(selling.trained(env, params), env, params, paths=4_096)
    model = portfolio_execution.closed_form(Config())
    assert result.objective < 1.01 * model.utility()  # an even sale costs 1.80 times the optimum
    assert result.objective > 0.9999 * (model.utility() - model.round_trip_spread())


def test_bad_options_are_refused():
    name = "portfolio_execution"
    for options, message in (
        ({"shares": (0.0, 0.0)}, rf"{name}.shares is \(0.0, 0.0\); at least one number"),
        ({"shares": ()}, rf"{name}.shares is \(\); at least one number must not be 0"),
        ({"volatilities": (0.1, 0.2)}, f"{name}.volatilities has 2 numbers; shares has 3: give"),
        ({"volatilities": (-0.1,)}, f"{name}.volatilities is .* must be at least 0"),
        ({"temporary_impacts": (0.0,)}, "must be above 0"),
        ({"correlation": -0.5}, "3 assets cannot all be correlated like that: .* above -0.5"),
        ({"correlation": 1.0}, "must be below 1"),
        ({"cross_impact": 1.1}, "must be at most 1"),
        ({"action": "all"}, f"{name}.action is 'all'; it must be one of target, pace"),
        (
            {"permanent_impacts": (1e-6, 1e-7, 4e-6)},
            f"{name}.temporary_impacts is .* mix of assets.* Take more steps, larger",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            Config(**options)
    with pytest.raises(ConfigError, match="simulates its own prices and takes no data"):
        portfolio_execution.make(Config(), object())
    env, params = portfolio_execution.make(Config())
    selling.assert_refuses_one_path_and_foreign_policies(
        assess, baselines.twap(env, params), env, params
    )


def test_numbers_outside_the_model_are_refused():
    model, eye = random_model(0, assets=2, steps=4), np.eye(2)
    for changes, message in (
        ({"shares": [0.0, 0.0]}, "nothing to sell"),
        ({"shares": [1.0, np.nan]}, "all of it must be finite"),
        ({"covariance": np.eye(3)}, r"covariance has shape \(3, 3\); for 2 assets it is \(2, 2\)"),
        ({"covariance": [[1.0, 0.5], [0.4, 1.0]]}, "covariance is not symmetric"),
        ({"covariance": [[1.0, 2.0], [2.0, 1.0]]}, "covariance has a negative eigenvalue"),
        ({"half_spread": [0.1, -0.1]}, "must be at least 0"),
        ({"steps": 0}, "steps is 0; it must be a whole number of at least 1"),
        ({"horizon": 0.0}, "horizon is 0.0; it must be above 0"),
        ({"risk_aversion": -1.0}, "risk_aversion is -1.0; it must be at least 0"),
        ({"temporary_impact": 1e-7 * eye, "permanent_impact": 4e-7 * eye}, "in one go is always"),
        # Each asset alone would do, both together do not.
        (
            {"temporary_impact": 1e-6 * (eye * 0.1 + 1), "permanent_impact": 8e-7 * eye},
            "least eigenvalue is -0.0909",
        ),
        (
            {"permanent_impact": 1e-5 * np.array([[0, 1.0], [-1.0, 0]]), "risk_aversion": 0.0},
            "trading round and round earns money",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(model, **changes)
    with pytest.raises(ConfigError, match=r"trades have shape \(4,\); the sale has 4 steps of 2"):
        model.utility(np.ones(4))
    with pytest.raises(ConfigError, match="trades add up to"):
        model.utility(np.ones((4, 2)))
