import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradax.returns import (
    effective_sample_size,
    explained_variance,
    gae,
    importance_weight,
    n_step_return,
    per_decision_weight,
    reward_to_go,
    standardise,
    td_lambda,
    total_return,
)


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


def test_returns_by_hand():
    reward, done = column(1, 2, 3, 4), column(0, 1, 0, 0).astype(bool)
    to_go = reward_to_go(reward, done, gamma=0.5)
    np.testing.assert_allclose(to_go[:, 0], [1 + 0.5 * 2, 2, 3 + 0.5 * 4, 4])
    after = column(9, 10, 9, 20)  # only those at the ends count
    to_go = reward_to_go(reward, done, gamma=0.5, after=after)
    np.testing.assert_allclose(to_go[:, 0], [1 + 0.5 * 7, 2 + 5, 3 + 0.5 * 14, 4 + 10])
    weighted = reward_to_go(reward, done, gamma=0.5, weight=column(7, 3, 7, 2))
    np.testing.assert_allclose(weighted[:, 0], [1 + 0.5 * 3 * 2, 2, 3 + 0.5 * 2 * 4, 4])
    total = total_return(reward, done, gamma=0.5)
    np.testing.assert_allclose(total[:, 0], [2, 2, 5, 5])


def test_n_step_returns_by_hand():
    reward, value = column(1, 2, 3, 4), column(10, 20, 30, 40)
    done = column(0, 0, 1, 0).astype(bool)
    for terminated, third in ((done, 3.0), (jnp.zeros_like(done), 3 + 15.0)):
        two = n_step_return(reward, value, terminated, done, gamma=0.5, n=2)
        expected = [1 + 0.5 * (2 + 0.5 * 20), 2 + 0.5 * third, third, 4 + 20]
        np.testing.assert_allclose(two[:, 0], expected)
    one = n_step_return(reward, value, done, done, gamma=0.5, n=1)
    np.testing.assert_allclose(one[:, 0], [6, 12, 3, 24])
    # So many steps that only the ends are left: reward-to-go with a value behind it.
    after = jnp.where(done, 0.0, value)
    np.testing.assert_allclose(
        n_step_return(reward, value, done, done, gamma=0.5, n=9),
        reward_to_go(reward, done, gamma=0.5, after=after),
    )


def test_lambda_0_is_the_td_error_and_1_the_monte_carlo_advantage():
    rng = np.random.default_rng(0)
    reward, value, following = (jnp.asarray(rng.normal(size=(20, 3))) for _ in range(3))
    done = jnp.asarray(rng.random((20, 3)) < 0.2)
    # Values of next observations are those of the next row, but where an episode ends.
    following = jnp.where(done, following, jnp.concatenate([value[1:], following[-1:]]))
    terminated = done & jnp.asarray(rng.random((20, 3)) < 0.5)
    arguments = (reward, value, following, terminated, done)
    after = jnp.where(terminated, 0.0, following)
    np.testing.assert_allclose(
        gae(*arguments, gamma=0.9, lam=0.0), reward + 0.9 * after - value, atol=1e-6
    )
    monte_carlo = reward_to_go(reward, done, gamma=0.9, after=after)
    np.testing.assert_allclose(gae(*arguments, gamma=0.9, lam=1.0), monte_carlo - value, atol=1e-5)
    np.testing.assert_allclose(td_lambda(*arguments, gamma=0.9, lam=1.0), monte_carlo, atol=1e-5)


def test_importance_weights():
    log = np.log
    weight = importance_weight(log(column(0.5, 0.9, 1e-9)), log(column(0.25, 0.1, 0.5)), clip=3.0)
    np.testing.assert_allclose(weight[:, 0], [2.0, 3.0, 0.0], atol=1e-6)
    assert np.isfinite(importance_weight(jnp.float32(0), jnp.float32(-1e4), clip=2.0))
    product = per_decision_weight(column(2, 3, 5, 7), column(0, 1, 0, 0).astype(bool))
    np.testing.assert_allclose(product[:, 0], [2, 6, 5, 35])
    assert float(effective_sample_size(jnp.ones(10))) == pytest.approx(10)
    assert float(effective_sample_size(jnp.array([1.0, 0, 0, 0]))) == pytest.approx(1)
    # Weights of 1 change nothing.
    arguments = (column(1, 2, 3), column(1, 2, 3), column(2, 3, 9))
    ends = (column(0, 0, 1).astype(bool),) * 2
    plain = gae(*arguments, *ends, gamma=0.5, lam=0.5)
    np.testing.assert_allclose(
        gae(*arguments, *ends, gamma=0.5, lam=0.5, weight=column(1, 1, 1)), plain
    )
    # delta = (1, 1.5, 0); the second counts as often as its action would have been taken.
    weighted = gae(*arguments, *ends, gamma=0.5, lam=0.5, weight=column(5, 2, 1))
    np.testing.assert_allclose(weighted[:, 0], [1 + 0.25 * 2 * 1.5, 1.5, 0.0])


def test_the_three_step_game():
    reward, done = column(1, 0, 1), column(0, 0, 1).astype(bool)
    assert reward_to_go(reward, done, gamma=1.0)[:, 0].tolist() == [2, 1, 1]

    def gradient(actions, rewards, credit):
        # log P(move) = log theta, log P(stay) = log(1 - theta), at theta = 1/2
        credit = credit(column(*rewards), done, gamma=1.0)[:, 0]
        actions = jnp.array(actions)

        def surrogate(theta):
            chance = jnp.where(actions == 1, theta, 1.0 - theta)
            return jnp.log(chance) * credit

        return jax.jacobian(surrogate)(0.5)

    assert gradient([1, 0, 0], [0, 0, 1], reward_to_go).sum() == -2
    steps = gradient([0, 1, 0], [1, 0, 1], reward_to_go)
    assert steps.sum() == -4
    assert steps[1] + steps[2] == 0
    assert gradient([0, 1, 0], [1, 0, 1], total_return).sum() == -4


def test_weighted_standardising_counts_only_what_has_weight():
    x, weight = jnp.array([1.0, 2.0, 3.0, 100.0]), jnp.array([2.0, 2.0, 2.0, 0.0])
    found = standardise(x, weight)
    np.testing.assert_allclose(found[:3], standardise(x[:3]), atol=1e-6)
