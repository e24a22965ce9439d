import dataclasses

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from tradax.almgren_chriss import AlmgrenChriss
from tradax.errors import ConfigError

SET_A = AlmgrenChriss(volatility=0.144**0.5, horizon=60.0, steps=60)
SET_B = AlmgrenChriss()

# lambda, kappa, then expected shortfall, standard deviation and utility of the optimum.
OPTIMA = [
    (SET_A, 1e-6, 0.245617, 477_712.60, 476_456.32, 704_723.22),
    (SET_A, 1e-8, 0.024623, 229_969.76, 1_473_889.96, 251_693.28),
    (SET_B, 1e-6, 0.607076, 911_226.99, 603_430.67, 1_275_355.56),
    (SET_B, 2e-6, 0.846297, 1_140_715.17, 449_367.65, 1_544_577.74),
    (SET_B, 1e-7, 0.194629, 670_057.46, 961_622.90, 762_529.32),
]
EVEN_SALES = [
    (SET_A, 1e-6, 227_083.33, 1_675_828.15, 3_035_483.33),
    (SET_A, 1e-8, 227_083.33, 1_675_828.15, 255_167.33),
    (SET_B, 1e-6, 662_500.00, 1_040_672.86, 1_745_500.00),
    (SET_B, 2e-6, 662_500.00, 1_040_672.86, 2_828_500.00),
    (SET_B, 1e-7, 662_500.00, 1_040_672.86, 770_800.00),
]


@pytest.mark.parametrize(("model", "risk_aversion", "kappa", "expected", "sd", "utility"), OPTIMA)
def test_optimal_plans_cost_what_is_published_to_the_cent(
    model, risk_aversion, kappa, expected, sd, utility
):
    model = dataclasses.replace(model, risk_aversion=risk_aversion)
    assert model.kappa == pytest.approx(kappa, abs=5e-7)
    assert model.expected_shortfall() == pytest.approx(expected, abs=0.005)
    assert np.sqrt(model.variance()) == pytest.approx(sd, abs=0.005)
    assert model.utility() == pytest.approx(utility, abs=0.005)


@pytest.mark.parametrize(("model", "risk_aversion", "expected", "sd", "utility"), EVEN_SALES)
def test_even_sales_cost_what_is_published_to_the_cent(model, risk_aversion, expected, sd, utility):
    model = dataclasses.replace(model, risk_aversion=risk_aversion)
    assert model.expected_shortfall(model.twap()) == pytest.approx(expected, abs=0.005)
    assert np.sqrt(model.variance(model.twap())) == pytest.approx(sd, abs=0.005)
    assert model.utility(model.twap()) == pytest.approx(utility, abs=0.005)


def test_shortfall_and_variance_by_hand():
    model = AlmgrenChriss(
        shares=100,
        volatility=0.3,
        horizon=2,
        steps=2,
        half_spread=0.1,
        temporary_impact=0.01,
        permanent_impact=0.005,
        risk_aversion=0.5,
    )
    # From a price of 10, 60 shares at 10 - .1 - .6, then 40 at 10 - .3 - .1 - .4.
    assert model.expected_shortfall([60, 40]) == pytest.approx(60 * 0.7 + 40 * 0.8)
    assert model.variance([60, 40]) == pytest.approx(0.09 * 40**2)
    assert model.utility([60, 40]) == pytest.approx(74 + 0.5 * 144)


def cost_matrices(model):
    """The cost n' Q n + c' n of trades n, from the price's recursion rather than from E."""
    n_steps, tau = model.steps, model.step_days
    earlier = np.tri(n_steps, k=-1)
    until = np.tri(n_steps)  # sold up to and including a step
    risk = model.risk_aversion * model.volatility**2 * tau
    quadratic = (
        model.permanent_impact * earlier
        + model.temporary_impact / tau * np.eye(n_steps)
        + risk * until.T @ until
    )
    linear = np.full(n_steps, model.half_spread) - 2 * risk * model.shares * until.sum(0)
    return quadratic, linear


def quadratic_programme(model):
    """The trades that minimise the cost and add up to the shares."""
    quadratic, linear = cost_matrices(model)
    ones = np.ones((model.steps, 1))
    # Impact and shares differ by twelve orders of magnitude: scale before solving.
    scale = np.abs(quadratic).max()
    kkt = np.block([[(quadratic + quadratic.T) / scale, ones], [ones.T, np.zeros((1, 1))]])
    right = np.append(-linear / scale / model.shares, 1.0)
    return scipy.linalg.solve(kkt, right)[:-1] * model.shares


@settings(max_examples=60, deadline=None)
@given(
    shares=st.floats(1e2, 1e7),
    volatility=st.floats(0.05, 2.0),
    horizon=st.floats(0.5, 60.0),
    steps=st.integers(1, 60),
    half_spread=st.floats(0, 0.5),
    permanent_impact=st.floats(0, 4e-8),
    risk_aversion=st.one_of(st.just(0.0), st.floats(1e-10, 1e-5)),
)
def test_the_optimum_equals_that_of_an_independent_quadratic_programme(**numbers):
    model = AlmgrenChriss(temporary_impact=2.5e-6, **numbers)
    trades = quadratic_programme(model)
    trajectory = model.shares - np.append(0.0, np.cumsum(trades))
    np.testing.assert_allclose(model.trades(), trades, rtol=1e-6, atol=1e-6 * model.shares)
    np.testing.assert_allclose(model.trajectory(), trajectory, rtol=1e-6, atol=1e-6 * model.shares)
    quadratic, linear = cost_matrices(model)
    risk_of_start = model.risk_aversion * model.volatility**2 * model.horizon * model.shares**2
    cost = trades @ quadratic @ trades + linear @ trades + risk_of_start
    assert model.utility() == pytest.approx(cost, rel=1e-6)


def test_without_risk_aversion_or_volatility_the_optimum_is_an_even_sale():
    for changes in ({"risk_aversion": 0.0}, {"volatility": 0.0}):
        model = dataclasses.replace(SET_A, **changes)
        assert model.kappa == 0
        np.testing.assert_allclose(model.trades(), model.twap(), rtol=1e-14)
        np.testing.assert_allclose(model.fractions(), 1 / np.arange(60, 0, -1), rtol=1e-14)
    near = dataclasses.replace(SET_A, risk_aversion=1e-20)
    np.testing.assert_allclose(near.trades(), near.twap(), rtol=1e-9)


def test_great_risk_aversion_sells_at_once_without_overflow():
    model = dataclasses.replace(SET_A, risk_aversion=1e6)
    assert model.trajectory()[1] < 1e-3
    assert np.isfinite(model.trades()).all()
    assert model.utility() == pytest.approx(model.utility([1e6] + [0] * 59), rel=1e-3)


def test_the_rest_of_a_plan_is_the_plan_for_the_rest():
    model, done = dataclasses.replace(SET_A, risk_aversion=1e-7), 23
    rest = dataclasses.replace(
        model, shares=model.trajectory()[done], steps=60 - done, horizon=60.0 - done
    )
    np.testing.assert_allclose(rest.trajectory(), model.trajectory()[done:], rtol=1e-9)
    assert model.fraction(done) == pytest.approx(rest.fraction(0))
    assert model.fraction(59) == 1.0


def test_trades_are_the_steps_of_the_trajectory_and_sell_everything():
    for model in (SET_A, SET_B, dataclasses.replace(SET_B, steps=1)):
        np.testing.assert_allclose(model.trades(), -np.diff(model.trajectory()), atol=1e-6)
        assert model.trades().sum() == pytest.approx(model.shares, rel=1e-12)
        assert model.trajectory()[-1] == 0


def test_on_the_efficient_frontier_less_risk_costs_more():
    frontier = SET_B.efficient_frontier(np.geomspace(1e-8, 1e-4, 9))
    assert (np.diff(frontier.expected_shortfall) > 0).all()
    assert (np.diff(frontier.standard_deviation) < 0).all()
    assert frontier.trajectories.shape == (9, 6)
    assert frontier.expected_shortfall[0] > SET_B.expected_shortfall(SET_B.twap())


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"shares": 0.0}, "shares is 0.0; it must be above 0"),
        ({"horizon": -1.0}, "horizon is -1.0; it must be above 0"),
        ({"steps": 0}, "steps is 0; it must be a whole number of at least 1"),
        ({"steps": 2.5}, "steps is 2.5; it must be a whole number"),
        ({"volatility": float("nan")}, "volatility is nan"),
        ({"half_spread": -0.1}, "half_spread is -0.1; it must be at least 0"),
        ({"risk_aversion": -1e-6}, "risk_aversion is -1e-06; it must be at least 0"),
        ({"permanent_impact": 5e-6}, "must exceed half of permanent_impact times the days"),
    ],
)
def test_numbers_outside_the_model_are_refused(numbers, message):
    with pytest.raises(ConfigError, match=message):
        AlmgrenChriss(**numbers)


def test_plans_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"trades have shape \(4,\); the sale has 5 steps"):
        SET_B.utility([1e6, 0, 0, 0])
    with pytest.raises(ConfigError, match=r"trades add up to 900,000.00, not to 1,000,000.00"):
        SET_B.utility([9e5, 0, 0, 0, 0])
    with pytest.raises(ConfigError, match="step is 5; it must be one of 0 to 4"):
        SET_B.fraction(5)
