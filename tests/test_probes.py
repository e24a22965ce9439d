import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tradax import discovery, training
from tradax.algorithms import ppo
from tradax.envs import probes
from tradax.evaluation.scoring import evaluate
from tradax.protocols import Actor
from tradax.returns import gae
from tradax.rollout import jax_source


class Best(Actor):
    """The best action: the cue, half of the cue where actions are continuous, or move."""

    def __call__(self, obs, memory, key):
        return self.choose(obs), memory, ()

    def choose(self, obs):
        return obs[:, 0].astype(jnp.int32)


class Half(Best):
    def choose(self, obs):
        return obs[:, :1] / 2


class One(Best):
    def choose(self, obs):
        return jnp.ones(obs.shape[0], jnp.int32)


class Zero(Best):
    def choose(self, obs):
        return jnp.zeros(obs.shape[0], jnp.int32)


class Centre(Best):
    def choose(self, obs):
        return jnp.zeros((obs.shape[0], 1))


def mean_return(env, actor, episodes=4_000):
    source = jax_source(env, num_envs=episodes)
    returns, lengths = source.episodes(actor, jax.random.key(0), 100)
    return float(returns.mean()), float(returns.std() / episodes**0.5), set(lengths.tolist())


@pytest.mark.parametrize(
    ("env", "best", "other", "return_of_other", "length"),
    [
        (probes.Bandit(), Best(), Zero(), 0.5, 1),
        # E (cue / 2)^2 = 1 / 12
        (probes.Target(), Half(), Centre(), -1 / 12, 1),
        (probes.Memoryless(), Best(), Zero(), 2.5, 5),
        (probes.Delayed(), One(), Zero(), 0.0, 3),
        (probes.ThreeSteps(), One(), Zero(), 0.75, 3),
        (probes.Endless(), One(), Zero(), 5.0, 5),
        (probes.Mortal(), One(), Zero(), 5.0, 5),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, probes.Probe) else "",
)
def test_the_best_policy_earns_the_stated_return(env, best, other, return_of_other, length):
    mean, error, lengths = mean_return(env, best)
    assert abs(mean - env.best_return) <= 4 * error + 1e-6
    assert lengths == {length}
    mean, error, _ = mean_return(env, other)
    assert abs(mean - return_of_other) <= 4 * error + 1e-6


@pytest.mark.parametrize(
    ("env", "terminates"), [(probes.Endless(), False), (probes.Mortal(), True)]
)
def test_values_where_time_is_up_differ_from_values_where_all_is_over(env, terminates):
    gamma, source = 0.9, jax_source(env, num_envs=1)
    actor = One()
    _, e, _ = eqx.filter_jit(source.collect)(
        eqx.filter_jit(source.reset)(jax.random.key(0), actor), actor, jax.random.key(1), 15
    )
    assert bool(e.terminated.any()) == terminates
    assert bool(e.truncated.any()) != terminates
    # The true values leave no advantage, whatever lambda is.
    left = 5 - e.obs[..., 1]
    value = (1 - gamma**left) / (1 - gamma) if terminates else jnp.full((15, 1), 10.0)
    following = (1 - gamma ** (left - 1)) / (1 - gamma) if terminates else value
    advantage = gae(e.reward, value, following, e.terminated, e.done, gamma=gamma, lam=0.95)
    assert float(jnp.abs(advantage).max()) < 1e-5


def score_gradient(actions, rewards, theta, reward_to_go=True):
    """The policy gradient's estimate from one game, step by step."""
    actions, rewards = np.array(actions), np.array(rewards)
    scores = np.where(actions == 1, 1 / theta, -1 / (1 - theta))
    to_go = np.cumsum(rewards[::-1])[::-1]
    return scores * (to_go if reward_to_go else rewards.sum())


def test_policy_gradients_of_the_three_step_game_by_hand():
    assert np.cumsum([1, 0, 1][::-1])[::-1].tolist() == [2, 1, 1]
    assert score_gradient([1, 0, 1], [1, 0, 1], 0.5).tolist() == [4, -2, 2]
    assert score_gradient([1, 0, 0], [0, 0, 1], 0.5).sum() == -2
    steps = score_gradient([0, 1, 0], [1, 0, 1], 0.5)
    assert steps.sum() == -4
    assert steps[1] + steps[2] == 0
    assert score_gradient([0, 1, 0], [1, 0, 1], 0.5, reward_to_go=False).sum() == -4


class Moves(Actor):
    """Moves with chance theta."""

    theta: float

    def __call__(self, obs, memory, key):
        move = jax.random.bernoulli(key, self.theta, (obs.shape[0],))
        return move.astype(jnp.int32), memory, ()


@pytest.mark.parametrize("theta", [0.5, 0.8])
def test_the_estimate_of_the_policy_gradient_has_the_known_mean(theta):
    n = 4_000
    source, actor = jax_source(probes.ThreeSteps(), num_envs=n), Moves(theta)
    _, e, finished = eqx.filter_jit(source.collect)(
        eqx.filter_jit(source.reset)(jax.random.key(0), actor), actor, jax.random.key(1), 3
    )
    games = zip(np.asarray(e.action).T, np.asarray(e.reward).T, strict=True)
    estimates = [score_gradient(a, r, theta).sum() for a, r in games]
    assert abs(np.mean(estimates) - 1.5) < 4 * np.std(estimates) / n**0.5
    returns = float(finished.return_sum) / n
    assert abs(returns - 3 * (0.25 + theta / 2)) < 4 * np.sqrt(0.75 / n)


@pytest.mark.parametrize("env", [probes.Target(), probes.Memoryless(), probes.ThreeSteps()])
def test_ppo_comes_near_the_best_return(env):
    config = ppo.Config(num_envs=32, n_steps=32, minibatches=4, learning_rate=3e-3)
    source = jax_source(env, num_envs=config.num_envs)
    algorithm = ppo.make(config, source.spec, jnp.float32(1))
    result = training.train(algorithm, source, jax.random.key(0), total_timesteps=40_000)
    mean = evaluate(result.policy, env, episodes=1_000).mean
    slack = {"Target": 0.005, "Memoryless": 0.01, "ThreeSteps": 0.1}[type(env).__name__]
    assert mean > env.best_return - slack


def test_probes_are_no_markets_and_equal_by_value():
    assert "probes" not in discovery.environments()
    assert probes.Bandit() == probes.Bandit()
    assert hash(probes.Bandit()) == hash(probes.Bandit())
    assert probes.Bandit() != probes.Delayed()
