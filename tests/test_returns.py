import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradax.returns import explained_variance, gae, standardise


def column(*values):
    return jnp.array(values, jnp.float32)[:, None]


def test_gae_by_hand():
    # delta = (1 + .5*2 - 1, 2 + .5*3 - 2, 3 + 0 - 3) = (1, 1.5, 0); gamma lam = .25
    advantage = gae(
        column(1, 2, 3),
        column(1, 2, 3),
        column(2, 3, 9),
        column(0, 0, 1).astype(bool),
        column(0, 0, 1).astype(bool),
        gamma=0.5,
        lam=0.5,
    )
    np.testing.assert_allclose(advantage[:, 0], [1 + 0.25 * 1.5, 1.5, 0.0])


def test_truncation_bootstraps_from_the_true_next_observation_and_termination_does_not():
    arguments = (column(1.0), column(0.0), column(10.0))
    no, yes = jnp.array([[False]]), jnp.array([[True]])
    truncated = gae(*arguments, no, yes, gamma=0.9, lam=0.95)
    terminated = gae(*arguments, yes, yes, gamma=0.9, lam=0.95)
    assert float(truncated[0, 0]) == pytest.approx(10.0)
    assert float(terminated[0, 0]) == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0.5, 1.0))
def test_lambda_0_is_the_td_error_and_lambda_1_the_monte_carlo_advantage(seed, gamma):
    rng = np.random.default_rng(seed)
    steps = 7
    reward, value, next_value = (rng.normal(size=(steps, 3)).astype(np.float32) for _ in range(3))
    next_value[:-1] = value[1:]
    none = np.zeros((steps, 3), bool)
    td = gae(reward, value, next_value, none, none, gamma=gamma, lam=0.0)
    np.testing.assert_allclose(td, reward + gamma * next_value - value, atol=1e-5)
    returns = next_value[-1]
    expected = np.zeros_like(reward)
    for t in reversed(range(steps)):
        returns = reward[t] + gamma * returns
        expected[t] = returns - value[t]
    monte_carlo = gae(reward, value, next_value, none, none, gamma=gamma, lam=1.0)
    np.testing.assert_allclose(monte_carlo, expected, atol=1e-4)


def test_explained_variance_is_1_for_a_perfect_prediction_and_0_for_a_constant_target():
    x = jax.random.normal(jax.random.key(0), (50,))
    assert float(explained_variance(x, x)) == pytest.approx(1.0)
    assert float(explained_variance(x, jnp.ones(50))) == 0.0


def test_equal_numbers_standardise_to_zeros():
    np.testing.assert_allclose(standardise(jnp.full(1000, 0.1)), 0.0, atol=1e-6)
    x = standardise(jnp.arange(10.0))
    assert float(x.mean()) == pytest.approx(0, abs=1e-6)
    assert float(x.std()) == pytest.approx(1, abs=1e-5)
