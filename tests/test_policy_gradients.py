"""What theory says of every policy gradient, and what all of them must do."""

import dataclasses
import importlib
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from tradax import training
from tradax.algorithms import a2c, a3c, npg, ppo, reinforce, trpo
from tradax.algorithms._natural_gradient import flat_policy
from tradax.algorithms._policy_gradient import Batch
from tradax.distributions import Categorical
from tradax.envs.probes import Delayed, Target
from tradax.errors import ConfigError
from tradax.protocols import Experience
from tradax.rollout import jax_source
from tradax.spaces import ActionSpec, Spec
from updates import start, step

ALL = ("reinforce", "a2c", "a3c", "npg", "trpo", "ppo")
SMALL = {
    "reinforce": {"num_envs": 16, "n_steps": 8, "learning_rate": 1e-2},
    "a2c": {"num_envs": 16, "n_steps": 4, "learning_rate": 5e-3},
    "a3c": {"num_envs": 16, "n_steps": 4, "workers": 4},
    "npg": {"num_envs": 16, "n_steps": 8, "critic_minibatches": 4},
    "trpo": {"num_envs": 16, "n_steps": 8, "critic_minibatches": 4},
    "ppo": {"num_envs": 16, "n_steps": 8, "minibatches": 4},
}


def module(name):
    return importlib.import_module(f"tradax.algorithms.{name}")


def small(name, env, **options):
    config = module(name).Config(hidden_sizes=(16,), gamma=0.9, **{**SMALL[name], **options})
    source = jax_source(env, num_envs=config.num_envs)
    return module(name).make(config, source.spec, jnp.float32(1)), source


@eqx.filter_jit
def learn(algorithm, learner, experience):
    return algorithm.learn(learner, experience, jax.random.key(3))


@eqx.filter_jit
def gathered(algorithm, source, learner):
    carry = source.reset(jax.random.key(1), algorithm.actor(learner))
    return algorithm.collect(learner, source, carry, jax.random.key(2))[1]


# A market of three steps, small enough to write down all that can happen in it.

STATES, ACTIONS, STEPS = 2, 2, 3
CHANCE = np.array([[[0.7, 0.3], [0.2, 0.8]], [[0.5, 0.5], [0.9, 0.1]]])  # of state' [s, a, s']
REWARD = np.array([[1.0, -0.5], [0.3, 2.0]])  # [s, a]
SPEC = Spec(0, STATES * STEPS, ActionSpec(ACTIONS))


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def histories():
    """All of them: states [T, N], actions [T, N], chance of the market's part [N]."""
    states, actions, chances = [], [], []
    choices = itertools.product(range(ACTIONS), repeat=STEPS)
    for a in choices:
        for later in itertools.product(range(STATES), repeat=STEPS - 1):
            s = (0, *later)
            states.append(s)
            actions.append(a)
            chances.append(np.prod([CHANCE[s[t], a[t], s[t + 1]] for t in range(STEPS - 1)]))
    return np.array(states).T, np.array(actions).T, np.array(chances)


def observations(states):
    """State and time, one-hot [T, N, 6]."""
    index = np.asarray(states) + STATES * np.arange(len(states))[:, None]
    return jnp.eye(STATES * STEPS)[index]


def action_log_probs(network, states, actions):
    return Categorical.from_logits(network.outputs(observations(states))).log_prob(actions)


def true_values(network):
    """V [t, s] under the network's policy, 0 after the end."""
    values = np.zeros((STEPS + 1, STATES))
    for t in reversed(range(STEPS)):
        states = np.zeros((STEPS, STATES), int)
        states[t] = np.arange(STATES)
        chance = np.exp(Categorical.from_logits(network.outputs(observations(states))).log_probs[t])
        for s in range(STATES):
            values[t, s] = np.sum(chance[s] * (REWARD[s] + CHANCE[s] @ values[t + 1]))
    return values


def written_down(name, value="network", **options):
    """An algorithm, its network, and the batch of all histories, weighted by their chances."""
    config = module(name).Config(
        hidden_sizes=(3,), gamma=1.0, normalize_advantages=False, **{**SMALL[name], **options}
    )
    algorithm = module(name).make(config, SPEC, jnp.float32(1))
    network = algorithm.init(jax.random.key(3)).network
    # Weights of ordinary size, so that the policy is not uniform.
    keys = iter(jax.random.split(jax.random.key(1), 20))
    network = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape, jnp.float64), network)
    states, actions, chances = histories()
    obs, last = observations(states), jnp.zeros((STEPS, states.shape[1]), bool).at[-1].set(True)
    log_prob = action_log_probs(network, states, actions)
    if value == "true":
        values = true_values(network)
        value = jnp.asarray(values[np.arange(STEPS)[:, None], states])
    else:
        value = network.value(obs)
    following = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
    reward = jnp.asarray(REWARD[states, actions])
    experience = Experience(obs, jnp.asarray(actions), reward, obs, last, last & False, (), None)
    advantage = algorithm.advantage(experience, value, following, None)
    chance = chances * np.exp(log_prob.sum(0))
    assert float(chance.sum()) == pytest.approx(1.0)
    weight = jnp.broadcast_to(chance * len(chances), log_prob.shape)
    batch = Batch(obs, jnp.asarray(actions), log_prob, value, advantage, advantage + value, weight)
    return algorithm, network, batch


def expected_return(network):
    states, actions, chances = histories()
    chance = chances * jnp.exp(action_log_probs(network, states, actions).sum(0))
    return jnp.sum(chance * REWARD[states, actions].sum(0))


def true_gradient(network):
    """By central differences of the return that is enumerated exactly."""
    flat, with_policy = flat_policy(network)
    step = 1e-5
    returns = jax.vmap(lambda x: expected_return(with_policy(x)))
    moves = step * jnp.eye(flat.size)
    return (returns(flat + moves) - returns(flat - moves)) / (2 * step)


def estimate(algorithm, network, batch):
    """The gradient that the algorithm climbs, of a mean over steps, times their number."""
    if isinstance(algorithm, npg.NPG | trpo.TRPO):
        return STEPS * algorithm.direction(network, batch, None).gradient
    flat, with_policy = flat_policy(network)
    extra = (None, 0.0) if isinstance(algorithm, ppo.PPO) else (None,)
    loss = lambda flat: algorithm.loss(with_policy(flat), batch, *extra)[0]  # noqa: E731
    return -STEPS * jax.grad(loss)(flat)


ESTIMATORS = {
    "total return": ("reinforce", {"credit": "total"}, "network"),
    "reward to go": ("reinforce", {"credit": "reward_to_go"}, "network"),
    "baseline": ("reinforce", {}, "network"),
    "to the end of the rollout": ("a2c", {}, "network"),
    "GAE with true values": ("a2c", {"gae_lambda": 0.6}, "true"),
    "two steps with true values": ("a2c", {"return_steps": 2}, "true"),
    "NPG": ("npg", {"gae_lambda": 1.0}, "network"),
    "TRPO": ("trpo", {"gae_lambda": 0.5}, "true"),
    "PPO, clipped": ("ppo", {"gae_lambda": 1.0}, "network"),
    "PPO, KL": ("ppo", {"gae_lambda": 1.0, "objective": "kl"}, "network"),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_mean_gradient_over_all_histories_is_that_of_the_return(estimator, float64):
    name, options, value = ESTIMATORS[estimator]
    algorithm, network, batch = written_down(name, value, **options)
    found = estimate(algorithm, network, batch.flat())
    # Values are not part of what is compared; the policy's parameters come alone.
    np.testing.assert_allclose(found, true_gradient(network), atol=1e-8, rtol=1e-7)


def test_a_baseline_keeps_the_mean_and_lowers_the_variance(float64):
    spread = {}
    for credit in ("total", "reward_to_go", "baseline"):
        algorithm, network, batch = written_down("reinforce", "true", credit=credit)
        chance = batch.weight[0] / batch.weight.shape[1]
        single = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batch._replace(weight=None))
        single = single._replace(weight=None)
        each = jax.vmap(lambda b, a=algorithm, n=network: estimate(a, n, b))(single)
        mean = chance @ each
        np.testing.assert_allclose(mean, true_gradient(network), atol=1e-8)
        spread[credit] = float(chance @ jnp.sum((each - mean) ** 2, axis=1))
    assert spread["baseline"] < 0.8 * spread["reward_to_go"] < 0.8 * spread["total"]


def test_fisher_products_are_the_hessian_of_the_divergence(float64):
    algorithm, network, batch = written_down("npg", damping=0.05)
    batch = batch.flat()
    flat, product = algorithm.fisher(network, batch, None)
    _, with_policy = flat_policy(network)
    hessian = jax.hessian(lambda x: algorithm.divergence(network, with_policy(x), batch, None))(
        flat
    )
    found = jax.vmap(product)(jnp.eye(flat.size))
    np.testing.assert_allclose(found, hessian + 0.05 * jnp.eye(flat.size), atol=1e-10)
    # It is the covariance of the scores, too.
    states, actions, chances = histories()

    def log_prob(x):
        return action_log_probs(with_policy(x), states, actions)

    scores = jax.jacobian(log_prob)(flat)  # [T, N, P]
    chance = chances * np.exp(batch.log_prob.reshape(STEPS, -1).sum(0))
    covariance = jnp.einsum("n,tnp,tnq->pq", chance, scores, scores) / STEPS
    np.testing.assert_allclose(hessian, covariance, atol=1e-10)


def test_the_natural_gradient_solves_the_damped_system(float64):
    for damping in (0.1, 1e-3):
        solutions = []
        for solver in ("cg", "explicit"):
            algorithm, network, batch = written_down(
                "npg", solver=solver, damping=damping, cg_iterations=100, cg_tolerance=1e-24
            )
            batch = batch.flat()
            found = algorithm.direction(network, batch, None)
            flat, product = algorithm.fisher(network, batch, None)
            matrix = np.asarray(jax.vmap(product)(jnp.eye(flat.size)))
            expected = np.linalg.solve(matrix, np.asarray(found.gradient))
            np.testing.assert_allclose(found.direction, expected, rtol=1e-6, atol=1e-8)
            assert float(found.residual) < 1e-16
            assert float(found.curvature) == pytest.approx(expected @ matrix @ expected)
            solutions.append(found.direction)
        np.testing.assert_allclose(*solutions, rtol=1e-6, atol=1e-8)


def test_an_explicit_solve_of_a_large_network_is_refused():
    algorithm, source = small("npg", "CartPole-v1", solver="explicit")
    big = dataclasses.replace(algorithm.config, hidden_sizes=(64, 64))
    with pytest.raises(ConfigError, match=r"parameters and its Fisher matrix their square"):
        npg.make(big, source.spec, jnp.float32(1))


def test_trpo_stays_within_its_bound_or_where_it_is():
    # A bound so wide that the quadratic picture of the divergence is wrong.
    algorithm, source = small("trpo", "CartPole-v1", target_kl=0.5, damping=1e-4)
    state = start(algorithm, source)
    tried = set()
    for _ in range(30):
        state, metrics, _ = step(algorithm, source, state)
        assert float(metrics["kl"]) <= 0.5
        assert float(metrics["surrogate"]) >= 0.0
        tried.add(int(metrics["line_search_steps"]))
    assert max(tried) > 1


def test_trpo_keeps_the_old_policy_exactly_where_no_step_is_accepted():
    algorithm, source = small("trpo", "CartPole-v1")
    state = start(algorithm, source)
    e = gathered(algorithm, source, state.learner)
    # Nothing to gain: no reward, no value, so no advantage.
    network = jax.tree.map(lambda x: x, state.learner.network)
    critic = jax.tree.map(jnp.zeros_like, network.critic)
    learner = state.learner._replace(network=type(network)(network.actor, critic, None))
    e = e._replace(reward=jnp.zeros_like(e.reward))
    new, metrics = learn(algorithm, learner, e)
    assert float(metrics["accepted"]) == 0.0
    for a, b in zip(
        jax.tree.leaves(new.network.actor), jax.tree.leaves(network.actor), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_the_first_gradient_of_ppo_is_that_of_a2c():
    shared = {"num_envs": 16, "n_steps": 8, "gae_lambda": 0.9, "normalize_advantages": True}
    one, source = small(
        "ppo", "CartPole-v1", epochs=1, minibatches=1, entropy_coefficient=0.01, **shared
    )
    two, _ = small("a2c", "CartPole-v1", entropy_coefficient=0.01, **shared)
    learner = start(one, source).learner
    experience = gathered(one, source, learner)
    batches = []
    for algorithm in (one, two):
        scaled, normalised = algorithm._normalize(learner, experience)
        batches.append(algorithm.part(algorithm._batch(scaled, normalised).flat()))
    first = jax.grad(lambda n: one.loss(n, batches[0], None, 0.0)[0])(learner.network)
    second = jax.grad(lambda n: two.loss(n, batches[1], None)[0])(learner.network)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a3c_with_one_worker_that_is_never_stale_is_a2c():
    keys = jax.random.key(5)
    results = []
    for name, options in (("a2c", {"learning_rate": 1e-3}), ("a3c", {"workers": 1})):
        algorithm, source = small(name, "CartPole-v1", **options)
        results.append(training.train(algorithm, source, keys, total_timesteps=64 * 20))
    for a, b in zip(*(jax.tree.leaves(r.policy) for r in results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_worker_lacks_what_came_after_its_turn():
    algorithm, source = small("a3c", "CartPole-v1", sync_every=2)
    algorithm = a3c.make(algorithm.config, source.spec, jnp.float32(10))
    state = start(algorithm, source)
    before = state.learner.network
    flat = lambda tree: ravel_pytree(tree)[0]  # noqa: E731
    first, _, _ = step(algorithm, source, state)
    for worker in range(4):  # not yet synchronised: all as they began
        own = jax.tree.map(lambda x, i=worker: x[i], first.learner.own)
        np.testing.assert_array_equal(flat(own), flat(before))
    assert float(jnp.abs(flat(first.learner.network) - flat(before)).max()) > 0
    second, _, _ = step(algorithm, source, first)
    away = []
    for worker in range(4):
        own = jax.tree.map(lambda x, i=worker: x[i], second.learner.own)
        away.append(float(jnp.linalg.norm(flat(own) - flat(second.learner.network))))
    assert away[3] == 0.0
    assert min(away[:3]) > 0.0


@pytest.mark.parametrize("name", [n for n in ALL if n != "ppo"])
def test_each_learns_from_later_rewards_and_with_continuous_actions(name):
    for env, limit, least in ((Delayed(), 4, 0.99), (Target(), 2, -0.03)):
        algorithm, source = small(name, env)
        result = training.train(algorithm, source, jax.random.key(0), total_timesteps=25_000)
        test = jax_source(env, num_envs=200)
        returns, _ = test.episodes(result.policy.actor(sample=False), jax.random.key(1), limit)
        assert float(returns.mean()) >= least, env.name


@pytest.mark.parametrize("name", [n for n in ALL if n != "a3c"])
def test_an_update_an_episode_leaves_out_what_comes_after_its_end(name):
    options = {"critic_minibatches": 1} if name in ("npg", "trpo") else {}
    algorithm, source = small(name, Delayed(), update_every="episodes", **options)
    learner = start(algorithm, source).learner
    e = gathered(algorithm, source, learner)
    assert e.done[2].all()  # every column starts an episode of three steps
    weight = algorithm._batch(learner, e).weight
    np.testing.assert_allclose(weight[:3], len(weight) / 3, rtol=1e-6)
    assert not weight[3:].any()
    # So nothing after the end has any influence.
    noise = e._replace(reward=e.reward.at[3:].set(7.0))
    plain = dataclasses.replace(
        algorithm.config, normalize_rewards=False, normalize_observations=False
    )
    algorithm = module(name).make(plain, source.spec, jnp.float32(1))
    learner = start(algorithm, source).learner
    updated = [learn(algorithm, learner, x)[0].network for x in (e, noise)]
    for a, b in zip(*map(jax.tree.leaves, updated), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_episodes_that_all_count_learn_the_delayed_reward():
    for credit in ("total", "reward_to_go"):
        algorithm, source = small("reinforce", Delayed(), update_every="episodes", credit=credit)
        result = training.train(algorithm, source, jax.random.key(0), total_timesteps=40_000)
        returns, _ = source.episodes(result.policy.actor(sample=False), jax.random.key(1), 4)
        assert returns.mean() == 1.0


@pytest.mark.parametrize("name", [n for n in ALL if n != "ppo"])
def test_seeds_side_by_side_equal_single_runs(name):
    algorithm, source = small(name, "CartPole-v1")
    keys = jax.random.split(jax.random.key(0), 2)
    steps = 3 * algorithm.steps_per_update
    together = training.train(
        algorithm, source, keys, total_timesteps=steps, members=2, shared_source=True
    )
    for index in range(2):
        alone = training.train(algorithm, source, keys[index], total_timesteps=steps)
        for a, b in zip(
            jax.tree.leaves(together.policy), jax.tree.leaves(alone.policy), strict=True
        ):
            np.testing.assert_allclose(a[index], b, atol=2e-4)


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match=r"a3c.workers is 3, which does not divide the 16"):
        a3c.Config(workers=3)
    with pytest.raises(ConfigError, match="must be steps"):
        a3c.Config(update_every="episodes")
    with pytest.raises(ConfigError, match="do not divide into 7 minibatches"):
        trpo.Config(critic_minibatches=7)
    with pytest.raises(ConfigError, match=r"trpo.line_search_shrink is 1.0"):
        trpo.Config(line_search_shrink=1.0)
    with pytest.raises(ConfigError, match="at least one hidden layer to share"):
        a2c.Config(shared_network=True, hidden_sizes=())
    with pytest.raises(ConfigError, match=r"reinforce.credit is 'all'"):
        reinforce.Config(credit="all")


@pytest.mark.parametrize("name", ["a2c", "a3c", "ppo"])
@pytest.mark.parametrize("n_steps", [1, 8])
def test_next_values_are_those_of_the_true_next_observations(name, n_steps):
    algorithm, source = small(name, "CartPole-v1", n_steps=n_steps)
    learner = eqx.filter_jit(algorithm.init)(jax.random.key(0))
    experience = gathered(algorithm, source, learner)
    rng = np.random.default_rng(0)
    terminated, truncated = rng.random((2, n_steps, 16)) < 0.3
    obs = jnp.asarray(rng.normal(size=(n_steps + 1, 16, 4)), jnp.float32)
    elsewhere = jnp.asarray(rng.normal(size=(n_steps, 16, 4)), jnp.float32)
    ends = (terminated | truncated)[..., None]
    experience = experience._replace(
        obs=obs[:-1],
        next_obs=jnp.where(ends, elsewhere, obs[1:]),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
    )
    value, all_of_them = (
        algorithm.value(learner, seen, None, experience.share)
        for seen in (experience.obs, experience.next_obs)
    )
    found = algorithm.next_value(learner, experience, value)
    counts = ~terminated
    np.testing.assert_allclose(found[counts], all_of_them[counts], atol=1e-5)
    assert np.isfinite(found).all()
