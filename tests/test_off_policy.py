from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tradax
from tradax.envs.probes import Memoryless, ThreeSteps
from tradax.errors import ConfigError, DataError, TradaxError
from tradax.evaluation.off_policy import (
    METHODS,
    effective_sample_size,
    log_ratios,
    off_policy_value,
)
from tradax.logged import Log
from tradax.networks import mlp
from tradax.policies import NetworkPolicy, head_of
from tradax.recording import record
from tradax.rollout import jax_source


def moving(source, theta):
    """The policy that takes action 1 with chance theta everywhere."""
    network = mlp(jax.random.key(0), source.spec, (), 2, "tanh")
    network = jax.tree.map(jnp.zeros_like, network)
    policy = NetworkPolicy(network, None, None, source.spec, head_of(source.spec))
    bias = jnp.log(jnp.array([1.0 - theta, theta]))
    return eqx.tree_at(lambda p: p.network.first.bias, policy, bias)


SOURCE = jax_source(ThreeSteps(), num_envs=1)


def test_estimates_equal_those_computed_by_hand():
    # Two episodes, of two steps and one; the target moves with 3/4, the log's policy with 1/2.
    log = Log(
        obs=np.zeros((3, 2), np.float32),
        action=np.array([1, 0, 1], np.int32),
        log_prob=np.full(3, np.log(0.5), np.float32),
        reward=np.array([1.0, 2.0, 4.0], np.float32),
        terminated=np.array([False, True, True]),
        truncated=np.zeros(3, bool),
        episode=np.array([0, 0, 1]),
        last_obs=np.zeros((2, 2), np.float32),
    )
    policy = moving(SOURCE, 0.75)
    rho = [1.5, 1.5 * 0.5], [1.5]
    returns = 1.0 + 0.5 * 2.0, 4.0
    expected = {
        "ordinary": (rho[0][1] * returns[0] + rho[1][0] * returns[1]) / 2,
        "weighted": (rho[0][1] * returns[0] + rho[1][0] * returns[1]) / (rho[0][1] + rho[1][0]),
        "per_decision": (rho[0][0] * 1.0 + rho[0][1] * 0.5 * 2.0 + rho[1][0] * 4.0) / 2,
    }
    for method, value in expected.items():
        found = off_policy_value(policy, log, method=method, gamma=0.5)
        assert found.value == pytest.approx(value, rel=1e-5)
        assert found.low < found.value < found.high
        assert found.episodes == 2
        assert found.logged_value == pytest.approx(3.0)
        assert found.effective_sample_size == pytest.approx(
            (0.75 + 1.5) ** 2 / (0.75**2 + 1.5**2), rel=1e-5
        )


@pytest.mark.parametrize("method", METHODS)
def test_95_percent_intervals_hold_the_true_value_in_90_of_100_logs_at_least(method):
    behaviour, theta, each = moving(SOURCE, 0.4), 0.7, 150
    true = 3 * (0.25 + theta / 2)
    # One recording, cut into a hundred logs of whole episodes of three steps.
    log = record(behaviour, SOURCE, episodes=100 * each, seed=1)
    steps = 3 * each
    found = []
    for i in range(100):
        names = ("obs", "action", "log_prob", "reward", "terminated", "truncated", "episode")
        part = {name: getattr(log, name)[i * steps : (i + 1) * steps] for name in names}
        part = Log(**part, last_obs=log.last_obs[i * each : (i + 1) * each])
        found.append(off_policy_value(moving(SOURCE, theta), part, method=method))
    covered = sum(f.low <= true <= f.high for f in found)
    assert covered >= 90
    # And they are not just wide: the mean over all is near.
    assert np.mean([f.value for f in found]) == pytest.approx(true, abs=0.03)
    assert np.mean([f.high - f.low for f in found]) < 1.0


def test_an_interval_far_from_the_logged_policy_leaves_out_its_value():
    # J = 3 (1/4 + theta / 2): 1.05 where the log's policy moves, 1.95 for the target.
    log = record(moving(SOURCE, 0.2), SOURCE, episodes=15_000, seed=3)
    found = off_policy_value(moving(SOURCE, 0.8), log)
    assert found.logged_value == pytest.approx(1.05, abs=0.03)
    assert found.low < 1.95 < found.high
    assert found.low > 1.4
    # E[w^2] = 0.8^2 / 0.2 + 0.2^2 / 0.8 = 3.25 a step.
    assert found.effective_sample_size == pytest.approx(15_000 / 3.25**3, rel=0.2)


def test_the_logged_policy_itself_gets_the_mean_return_and_all_episodes_count():
    source = jax_source(Memoryless(), num_envs=1)
    policy = moving(source, 0.3)
    log = tradax.collect(policy, Memoryless(), episodes=200, seed=2)
    for method in METHODS:
        found = tradax.off_policy_value(policy, log, method=method)
        assert found.value == pytest.approx(log.returns.mean(), rel=1e-5)
        assert found.effective_sample_size == pytest.approx(200, rel=1e-5)
        assert found.low < 2.5 < found.high
    np.testing.assert_allclose(log_ratios(policy, log), 0.0, atol=1e-6)


def test_weights_may_be_huge_or_vanish():
    assert effective_sample_size(np.array([1e200, 1e200, 0.0])) == pytest.approx(2.0)
    assert effective_sample_size(np.zeros(3)) == 0.0


def test_bad_requests_are_refused():
    policy = moving(SOURCE, 0.5)
    log = record(policy, SOURCE, episodes=4)
    for options in ({"method": "doubly"}, {"gamma": 1.5}, {"confidence": 95}):
        with pytest.raises(ConfigError, match="it must be"):
            off_policy_value(policy, log, **options)
    running = replace(log, terminated=log.terminated & (np.arange(12) < 9))
    with pytest.raises(DataError, match="1 of 4 episodes were unfinished"):
        off_policy_value(policy, running)
    assert off_policy_value(policy, running, drop_unfinished=True).episodes == 3
    running = replace(log, terminated=log.terminated & (np.arange(12) < 3))
    with pytest.raises(DataError, match="1 finished episodes are too few"):
        off_policy_value(policy, running, drop_unfinished=True)
    with pytest.raises(TradaxError, match="stochastic"):
        off_policy_value(object(), log)
    other = replace(policy, spec=jax_source("CartPole-v1").spec)
    with pytest.raises(DataError, match="the environment has 4"):
        off_policy_value(other, log)
