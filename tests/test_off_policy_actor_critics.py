"""What DDPG, TD3 and SAC compute, by hand where it can be done, and what all of them must do."""

import dataclasses
import importlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from tradax import checkpoint, discovery, model_file, protocols, replay, training
from tradax.algorithms import _off_policy, ddpg, sac, td3
from tradax.algorithms._exploration import Explorer
from tradax.algorithms._off_policy import Batch
from tradax.algorithms._q_networks import Moment, net, stacked
from tradax.distributions import TanhGaussian
from tradax.envs import execution, market_making, portfolio, trading
from tradax.envs.probes import Bandit, Target
from tradax.errors import ConfigError
from tradax.networks import Dense
from tradax.optimise import all_finite
from tradax.rollout import jax_source
from tradax.spaces import ActionSpec, Spec

ALL = ("ddpg", "td3", "sac")
SPEC = Spec(0, 2, ActionSpec(low=(-1.0,), high=(1.0,)))
SMALL = {"hidden_sizes": (8,), "batch_size": 16, "learning_starts": 8, "replay_size": 64}


def made(name, spec=SPEC, **options):
    module = importlib.import_module(f"tradax.algorithms.{name}")
    return module.make(module.Config(**{**SMALL, **options}), spec, jnp.float32(100))


def small(name, env="Pendulum-v1", **options):
    config = importlib.import_module(f"tradax.algorithms.{name}").Config(**{**SMALL, **options})
    source = jax_source(env, num_envs=config.num_envs)
    return made(name, source.spec, **options), source


@eqx.filter_jit
def start(algorithm, source, key):
    return protocols.init(algorithm, source, key)


@eqx.filter_jit
def one_update(algorithm, source, state):
    return protocols.step(algorithm, source, state)


def updated(algorithm, source, state, count):
    """After so many updates; metrics of the last."""
    for _ in range(count):
        state, metrics, _ = one_update(algorithm, source, state)
    return state, metrics


def blank(algorithm, make="networks"):
    """What `networks` or `init` return, zeros throughout; nothing is compiled."""
    shapes = eqx.filter_eval_shape(getattr(algorithm, make), jax.random.key(0))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def fresh(algorithm):
    """Networks whose weights are of ordinary size."""
    rng = np.random.default_rng(0)
    networks = blank(algorithm)
    learned = {name: x for name, x in networks._asdict().items() if not name.endswith("_opt")}
    learned = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), learned)
    return networks._replace(**learned)


def batches(count, spec=SPEC):
    keys = jax.random.split(jax.random.key(5), 5)
    shape = (count, 16)
    return Batch(
        jax.random.normal(keys[0], (*shape, spec.account)),
        jax.random.uniform(keys[1], (*shape, spec.action.size), minval=-1.0),
        jax.random.normal(keys[2], shape),
        jax.random.normal(keys[3], (*shape, spec.account)),
        jnp.where(jax.random.bernoulli(keys[4], 0.2, shape), 0.0, 0.9),
    )


@eqx.filter_jit
def improve(algorithm, networks, given):
    return algorithm.improve(networks, given, jnp.int32(0), noise_of(algorithm, given))


def noise_of(algorithm, given):
    """[U, draws, B, A]"""
    shape = (given.reward.shape[0], algorithm.draws, *given.action.shape[1:])
    return jax.random.normal(jax.random.key(2), shape)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


# Two states: the observation is one of two unit vectors, and Q(s, a) = w_s + v a.


def linear(weights, bias=0.0):
    weight = jnp.asarray(weights, jnp.float32).reshape(-1, 1)
    return eqx.tree_at(
        lambda n: n.layers,
        net(jax.random.key(0), len(weights), (), 1, "relu", "none"),
        (Dense(weight, jnp.full(1, bias, jnp.float32)),),
    )


TWO_STATES = Batch(
    obs=jnp.eye(2),
    action=jnp.zeros((2, 1)),
    reward=jnp.array([1.0, -2.0]),
    next_obs=jnp.eye(2)[::-1],
    discount=jnp.array([0.9, 0.0]),  # the second transition terminates
)


@eqx.filter_jit
def target(algorithm, networks, *noise):
    return algorithm.target(networks, TWO_STATES, *noise)


def test_targets_by_hand_on_two_states():
    one, two = linear([3.0, 5.0, 2.0]), linear([4.0, 4.0, 1.0])
    policy = linear([0.5, -0.5])  # before tanh
    # After the first transition comes the second state: a' = tanh(-0.5).
    action = np.tanh(-0.5)
    algorithm = made("ddpg", hidden_sizes=())
    networks = blank(algorithm)
    networks = networks._replace(target_actor=policy, target_critic=stacked([one]))
    found = target(algorithm, networks)
    np.testing.assert_allclose(found, [1 + 0.9 * (5 + 2 * action), -2], rtol=1e-5)

    algorithm = made("td3", hidden_sizes=(), target_noise=0.0)
    networks = blank(algorithm)
    networks = networks._replace(target_actor=policy, target_critic=stacked([one, two]))
    noise = jax.random.normal(jax.random.key(0), (2, 2, 1))
    found = target(algorithm, networks, noise)
    least = min(5 + 2 * action, 4 + action)
    np.testing.assert_allclose(found, [1 + 0.9 * least, -2], rtol=1e-5)
    # Noise is clipped, and so is the action: it moves the target by v c at most.
    noisy = made("td3", hidden_sizes=(), target_noise=100.0, target_noise_clip=0.3)
    for sign in (-1, 1):
        moved = target(noisy, networks, sign * jnp.ones((2, 2, 1)))[0]
        there = action + sign * 0.3
        assert float(moved) == pytest.approx(1 + 0.9 * min(5 + 2 * there, 4 + there), rel=1e-5)

    algorithm = made("sac", hidden_sizes=())
    networks = blank(algorithm)
    # A deviation of e^-20: the action is sure, and its log-probability that of the noise drawn.
    actor = eqx.tree_at(
        lambda n: n.layers,
        networks.actor,
        (Dense(jnp.array([[0.5, -30.0], [-0.5, -30.0]]), jnp.zeros(2)),),
    )
    networks = networks._replace(
        actor=actor, target_critic=stacked([one, two]), log_temperature=jnp.log(0.5)
    )
    found = target(algorithm, networks, noise[1])
    drawn = float(noise[1, 0, 0])
    log_prob = -0.5 * drawn**2 - 0.5 * np.log(2 * np.pi) + 20 - np.log(1 - action**2)
    np.testing.assert_allclose(found, [1 + 0.9 * (least - 0.5 * log_prob), -2], rtol=1e-4)


def test_targets_move_by_tau_or_are_copied_every_n_steps():
    soft = made("ddpg", tau=0.25)
    target, online = {"x": jnp.array([0.0, 4.0])}, {"x": jnp.array([1.0, 8.0])}
    np.testing.assert_allclose(soft.towards(target, online, jnp.int32(1))["x"], [0.25, 5.0])
    hard = made("ddpg", tau=1.0, target_update_every=3)
    for step in range(1, 7):
        moved = hard.towards(target, online, jnp.int32(step))["x"]
        np.testing.assert_array_equal(moved, (online if step % 3 == 0 else target)["x"])


@pytest.mark.parametrize("name", ALL)
def test_after_a_gradient_step_the_targets_are_the_mixture(name):
    algorithm = made(name, tau=0.25, n_steps=2)
    before = fresh(algorithm)
    given = batches(2 if name == "td3" else 1)
    after, _ = improve(algorithm, before, given)
    mixed = 0.75 * flat(before.target_critic) + 0.25 * flat(after.critic)
    np.testing.assert_allclose(flat(after.target_critic), mixed, atol=1e-6)
    assert np.abs(flat(after.critic) - flat(before.critic)).max() > 0


@pytest.mark.parametrize("actions", [1, 2, 6])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("action_layer", [0, 1])
@pytest.mark.parametrize("width", [8, 128])
def test_gradients_of_action_values_are_those_of_the_plain_network(
    actions, count, action_layer, width
):
    keys = jax.random.split(jax.random.key(0), count)
    sizes = {"action_size": actions, "action_layer": action_layer}
    values = stacked([net(k, 3, (width, width), 1, "tanh", "none", **sizes) for k in keys])
    values = values if count > 1 else values.first()
    obs = jax.random.normal(jax.random.key(1), (32, 3))
    action = jax.random.normal(jax.random.key(2), (32, actions))

    def plain(values, action):
        x = obs
        for i, layer in enumerate(values.layers):
            if i == action_layer:
                beside = jnp.broadcast_to(action, (*x.shape[:-1], actions))
                x = jnp.concatenate([x, beside], axis=-1)
            x = x @ layer.weight + layer.bias[..., None, :]
            x = jnp.tanh(x) if i < 2 else x
        return x

    def total(function):
        return jax.grad(lambda v, a: jnp.sum(jnp.sin(function(v, a))), argnums=(0, 1))

    np.testing.assert_allclose(values(obs, action), plain(values, action), atol=1e-5)
    ours = jax.jit(total(lambda v, a: v(obs, a)))(values, action)
    for mine, theirs in zip(
        jax.tree.leaves(ours), jax.tree.leaves(total(plain)(values, action)), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=2e-4)


def test_adam_by_layer_takes_the_steps_that_it_takes_on_one_vector(monkeypatch):
    algorithm, given = made("sac", max_grad_norm=0.5), batches(2)
    whole, _ = improve(algorithm, fresh(algorithm), given)
    monkeypatch.setattr(_off_policy, "_LARGE", 0)
    by_layer, _ = improve(algorithm, fresh(algorithm), given)
    assert len(jax.tree.leaves(by_layer.actor_opt)) > len(jax.tree.leaves(whole.actor_opt))
    for mine, theirs in zip(by_layer[:4], whole[:4], strict=True):
        np.testing.assert_allclose(flat(mine), flat(theirs), atol=1e-6)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-2.0, 0.5)])
def test_the_squashed_normal_has_the_density_of_its_samples(mean, log_std):
    policy = TanhGaussian(jnp.array([mean]), jnp.array([log_std]), (-2.0,), (3.0,))
    # The density integrates to the normal's probability of the preimage of every interval.
    u = np.linspace(mean - 4 * np.exp(log_std), mean + 4 * np.exp(log_std), 20_001)
    edges = -2 + 5 * (np.tanh(u) + 1) / 2
    middle = (edges[1:] + edges[:-1]) / 2
    keep = np.abs(2 * (middle + 2) / 5 - 1) < 0.999  # beyond, float32 has no room for tanh
    density = np.exp(np.asarray(policy.log_prob(jnp.asarray(middle)[:, None])))
    integrated = (density * np.diff(edges))[keep].sum()
    z = (u - mean) / np.exp(log_std)
    normal = np.exp(-0.5 * ((z[1:] + z[:-1]) / 2) ** 2) / np.sqrt(2 * np.pi) * np.diff(z)
    assert integrated == pytest.approx(normal[keep].sum(), abs=1e-3)
    # And the log-probability that comes with a sample is that of the sample.
    draw = jax.jit(jax.vmap(policy.sample_and_log_prob))
    sample, log_prob = draw(jax.random.split(jax.random.key(0), 500))
    inside = np.abs(2 * (np.asarray(sample)[:, 0] + 2) / 5 - 1) < 0.999
    found = np.asarray(policy.log_prob(sample))
    np.testing.assert_allclose(found[inside], np.asarray(log_prob)[inside], atol=2e-3)
    assert bool(jnp.isfinite(policy.sample_and_log_prob(jax.random.key(0))[1]))


def test_the_log_probability_stays_exact_where_tanh_rounds_to_one():
    policy = TanhGaussian(jnp.array([50.0]), jnp.array([0.0]), (-1.0,), (1.0,))
    action, log_prob = policy.sample_and_log_prob(jax.random.key(0))
    noise = float(jax.random.normal(jax.random.key(0), (1,))[0])
    exact = -0.5 * noise**2 - 0.5 * np.log(2 * np.pi) - 2 * (np.log(2) - (50 + noise))
    assert float(action[0]) == 1.0
    assert float(log_prob) == pytest.approx(exact, rel=1e-5)


def test_the_temperature_rises_where_entropy_lacks_and_falls_where_it_abounds():
    algorithm = made("sac", target_entropy=-1.0)
    slope = jax.grad(algorithm.temperature_loss)
    assert float(slope(jnp.float32(0.0), jnp.float32(-3.0))) == pytest.approx(-2.0)  # descends: up
    assert float(slope(jnp.float32(0.0), jnp.float32(0.5))) == pytest.approx(1.5)
    networks = fresh(algorithm)
    for wanted, sign in ((50.0, 1), (-50.0, -1)):
        after, _ = improve(made("sac", target_entropy=wanted), networks, batches(1))
        assert np.sign(float(after.log_temperature - networks.log_temperature)) == sign
    fixed, _ = improve(made("sac", learn_temperature=False), networks, batches(1))
    assert float(fixed.log_temperature) == float(networks.log_temperature)


def test_td3_moves_its_actor_and_targets_at_every_second_step_only():
    algorithm = made("td3", n_steps=4)
    given, networks = batches(4), fresh(algorithm)
    noise = noise_of(algorithm, given)
    step = eqx.filter_jit(algorithm.improve_critic)
    alone = networks
    for i in range(2):
        one = jax.tree.map(lambda x, i=i: x[i], given)
        alone, _ = step(alone, one, noise[i], jnp.int32(i))
        for name in ("actor", "target_actor", "target_critic"):
            np.testing.assert_array_equal(flat(getattr(alone, name)), flat(getattr(networks, name)))
    # Two steps of the critics, then one of the actor, judged by what they have become.
    moved, _ = eqx.filter_jit(algorithm.improve_actor)(alone, one, jnp.int32(2))
    two = jax.tree.map(lambda x: x[:2], given)
    found, _ = eqx.filter_jit(algorithm.improve)(networks, two, jnp.int32(0), noise[:2])
    np.testing.assert_allclose(flat(found.actor), flat(moved.actor), atol=1e-5)
    np.testing.assert_allclose(flat(found.critic), flat(moved.critic), atol=1e-5)
    # In four steps Adam has moved the critics four times and the actor twice.
    whole, _ = improve(algorithm, networks, given)
    counts = [int(state[0].count) for state in (whole.critic_opt, whole.actor_opt)]
    assert counts == [4, 2]


def test_ddpg_is_td3_without_delay_smoothing_and_twin():
    one = made("ddpg")
    two = made("td3", n_steps=1, policy_delay=1, target_noise=0.0, critics=1)
    networks = fresh(one)
    other = td3.Networks(**networks._asdict())
    a, first = improve(one, networks, batches(3))
    b, second = improve(two, other, batches(3))
    np.testing.assert_allclose(flat(a), flat(b), rtol=1e-5, atol=1e-6)
    for metric in first:
        np.testing.assert_allclose(first[metric], second[metric].ravel(), rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_discrete_actions_are_refused_with_the_names_of_what_fits(name):
    with pytest.raises(ConfigError, match="2 discrete ones; take one of ") as error:
        made(name, jax_source(Bandit()).spec)
    offered = str(error.value).split("take one of ")[1].split(", ")
    assert {"ppo", "a2c", "genetic"} <= set(offered)
    assert not set(offered) & set(ALL)


@pytest.mark.parametrize("name", ["td3"])
def test_nothing_is_learned_before_the_warm_up_is_over(name):
    algorithm, source = small(name, learning_starts=8, n_steps=2)
    state = start(algorithm, source, jax.random.key(0))
    before = flat(state.learner.networks)
    state, metrics = updated(algorithm, source, state, 3)  # 6 steps
    np.testing.assert_array_equal(flat(state.learner.networks), before)
    assert float(metrics["critic_loss"]) == 0.0
    assert bool(algorithm.actor(state.learner).random)
    state, metrics = updated(algorithm, source, state, 1)
    assert float(metrics["critic_loss"]) > 0.0
    assert not bool(algorithm.actor(state.learner).random)
    assert int(state.learner.steps) == 2


@pytest.mark.parametrize("name", ["td3", "sac"])
def test_each_finds_the_best_action_of_a_continuous_bandit(name):
    options = {"num_envs": 4, "n_steps": 2, "hidden_sizes": (32,), "batch_size": 64}
    options |= {"replay_size": 4_000, "learning_starts": 200, "update_to_data": 0.25}
    options |= {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3}
    algorithm, source = small(name, Target(), **options)
    result = training.train(algorithm, source, jax.random.key(0), total_timesteps=6_000)
    test = jax_source(Target(), num_envs=200)
    returns, _ = test.episodes(result.policy.actor(sample=False), jax.random.key(1), 2)
    assert float(returns.mean()) >= -0.01


OPTIONS = {
    "second layer, hard targets, gradients clipped": {
        "action_layer": "second",
        "hidden_sizes": (8, 8),
        "tau": 1.0,
        "target_update_every": 2,
        "max_grad_norm": 0.5,
    },
    "layer norm, noise of weights": {"normalization": "layer", "noise": "parameter"},
    "batch norm, n-step, without replacement": {
        "normalization": "batch",
        "return_steps": 3,
        "sample_with_replacement": False,
        "learning_starts": 16,
        "noise": "ou",
    },
}


@pytest.mark.parametrize(("name", "options"), list(zip(ALL, OPTIONS, strict=True)))
def test_every_option_trains_and_its_policy_is_the_network_that_was_trained(
    name, options, tmp_path
):
    for other in ALL:  # traced, not compiled
        algorithm, source = small(other, num_envs=2, update_to_data=2.0, **OPTIONS[options])
        state = eqx.filter_eval_shape(protocols.init, algorithm, source, jax.random.key(0))
        eqx.filter_eval_shape(protocols.step, algorithm, source, state)
    algorithm, source = small(name, num_envs=2, update_to_data=2.0, **OPTIONS[options])
    state = start(algorithm, source, jax.random.key(0))
    state, metrics = updated(algorithm, source, state, 12)
    assert bool(all_finite((metrics, state.learner.networks)))
    policy = algorithm.policy(state.learner)
    model_file.save_policy(policy, tmp_path / "policy.zip")
    loaded = model_file.load_policy(tmp_path / "policy.zip")
    obs = jax.random.normal(jax.random.key(1), (5, source.spec.size))
    outputs = state.learner.networks.actor(policy.normalizer(obs))
    expected = source.spec.action.squash(outputs[:, :1])
    np.testing.assert_allclose(loaded.act(obs), expected, atol=1e-5)
    if name == "sac":
        sampled = loaded.act(obs, jax.random.key(2))
        assert np.abs(sampled - expected).max() > 1e-3
        assert np.abs(sampled).max() <= 2.0


def test_batch_normalisation_uses_the_batch_in_training_and_what_it_saw_afterwards():
    network = net(jax.random.key(0), 3, (4, 4), 2, "relu", "batch")
    obs = 5.0 + 2.0 * jax.random.normal(jax.random.key(1), (400, 3))
    hidden = obs @ network.layers[0].weight
    outputs, moments = network.train(obs)
    np.testing.assert_allclose(moments[0].mean, hidden.mean(0), rtol=1e-4)
    for _ in range(1_000):
        network = network.observed(moments)
    np.testing.assert_allclose(network(obs), outputs, atol=2e-3)
    spec = Spec(0, 3, ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)))
    np.testing.assert_allclose(network.deployed(spec)(obs), network(obs), atol=1e-4)
    assert isinstance(network.moments[0], Moment)


def explorer(algorithm, noise, theta=0.15, scale=0.2):
    learner = blank(algorithm, "init")  # acts in the middle of the bounds
    moments = learner.moments._replace(observations=None)
    actor = algorithm.actor(learner._replace(moments=moments))
    return dataclasses.replace(
        actor,
        random=jnp.bool_(False),
        noise=noise,
        theta=jnp.float32(theta),
        scale=jnp.float32(scale),
    )


@pytest.mark.parametrize("noise", ["none", "gaussian", "ou"])
def test_exploration_has_the_deviation_and_the_memory_that_were_asked_for(noise):
    actor = explorer(made("ddpg"), noise)
    assert isinstance(actor, Explorer)
    obs = jnp.zeros((64, 2))

    @jax.jit
    def walk(actor):
        def one(memory, key):
            action, memory, _ = actor(obs, memory, key)
            return memory, action[:, 0]

        keys = jax.random.split(jax.random.key(1), 400)
        return jax.lax.scan(one, actor.initial_memory(64), keys)[1]

    moved = np.asarray(walk(actor))[100:]
    correlation = np.mean(moved[1:] * moved[:-1]) / max(np.mean(moved**2), 1e-12)
    if noise == "none":
        np.testing.assert_allclose(moved, 0.0, atol=1e-6)
    else:
        assert moved.std() == pytest.approx(0.2, rel=0.06)
        assert correlation == pytest.approx(0.85 if noise == "ou" else 0.0, abs=0.03)


def test_noise_of_weights_is_new_after_an_episode_and_is_sized_by_actions():
    algorithm = made("ddpg", noise="parameter", noise_scale=0.3)
    networks = jax.tree.map(lambda x: 0.3 * x, fresh(algorithm))
    learner = blank(algorithm, "init")._replace(networks=networks)
    learner = eqx.tree_at(lambda n: n.perturbation.scale, learner, jnp.float32(0.3))
    given = batches(1)
    perturb = eqx.filter_jit(algorithm._perturb)
    same, _ = perturb(learner, given, jnp.zeros((1, 1), bool), jax.random.key(1))
    np.testing.assert_array_equal(flat(same.perturbation), flat(learner.perturbation))
    distances = []
    for i in range(600):
        learner, metrics = perturb(learner, given, jnp.ones((1, 1), bool), jax.random.key(i))
        distances.append(float(metrics["noise_scale"]))
    assert np.median(distances[-300:]) == pytest.approx(0.3, rel=0.2)


MARKETS = {
    "trading": lambda: (trading.Trading(), None),
    "portfolio": lambda: (portfolio.Portfolio(), None),
    "execution": lambda: execution.make(execution.Config()),
    "market_making": lambda: market_making.make(market_making.Config()),
}


COMPILED = {"portfolio": "sac"}  # the others are traced with all three, for time


@pytest.mark.parametrize("market", MARKETS)
def test_every_market_trains(market):
    env, params = MARKETS[market]()
    source = jax_source(env, params, num_envs=2)
    for other in ALL:  # traced, not compiled
        algorithm = made(other, source.spec, num_envs=2, replay_size=40)
        state = eqx.filter_eval_shape(protocols.init, algorithm, source, jax.random.key(0))
        eqx.filter_eval_shape(protocols.step, algorithm, source, state)
    name = COMPILED.get(market)
    if name is None:
        return
    algorithm = made(name, source.spec, num_envs=2, replay_size=40)
    assert algorithm.memory() == replay.memory(source.spec, 20, 2)
    state = start(algorithm, source, jax.random.key(0))
    before = flat(algorithm.policy(state.learner).network)
    state, metrics = updated(algorithm, source, state, 25)
    assert bool(all_finite((metrics, state.learner.networks)))
    assert int(state.learner.replay.size) == 40
    assert np.abs(flat(algorithm.policy(state.learner).network) - before).max() > 1e-4
    low, high = (np.array(x) for x in (source.spec.action.low, source.spec.action.high))
    action = algorithm.policy(state.learner).act(jnp.zeros(source.spec.size))
    assert (low <= action).all()
    assert (action <= high).all()
    stored = state.learner.replay._unpack(state.learner.replay.words)
    assert np.abs(stored.action).max() <= 1.0 + 1e-6


@pytest.mark.parametrize("name", ["td3"])
def test_seeds_side_by_side_equal_single_runs_and_compile_once(name, monkeypatch):
    algorithm, source = small(name, n_steps=2)
    keys = jax.random.split(jax.random.key(0), 3)
    steps = {"total_timesteps": 20 * algorithm.steps_per_update, "log_rows": 2}
    traces = []
    learn = type(algorithm).learn
    monkeypatch.setattr(
        type(algorithm), "learn", lambda self, *a: traces.append(1) or learn(self, *a)
    )
    together = training.train(algorithm, source, keys, members=3, shared_source=True, **steps)
    # Once for the shapes, once for the program; other chunks and settings do not trace again.
    assert len(traces) == 2
    other = dataclasses.replace(algorithm.config, gamma=0.5, tau=0.1, critic_learning_rate=1e-4)
    other = dataclasses.replace(algorithm, config=other)
    training.train(other, source, keys, members=3, shared_source=True, **steps)
    assert len(traces) == 2
    for index in range(2):
        alone = training.train(algorithm, source, keys[index], **steps)
        for a, b in zip(*(map(jax.tree.leaves, (together.policy, alone.policy))), strict=True):
            np.testing.assert_allclose(a[index], b, atol=2e-4)


@pytest.mark.parametrize("name", ["sac"])
def test_a_run_that_was_interrupted_goes_on_to_the_same_result(name, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 0.0)
    algorithm, source = small(name, n_steps=2, noise="ou", learning_starts=6)
    key, whole_steps = jax.random.key(3), 16 * algorithm.steps_per_update

    class Stop(training.Hook):
        def on_tick(self, timesteps, steps_per_second):
            if timesteps == whole_steps // 2:
                import signal

                signal.raise_signal(signal.SIGINT)

    def run(**more):
        return training.train(algorithm, source, key, total_timesteps=whole_steps, **more)

    whole, stopped = run(), run(hooks=[Stop()])
    assert stopped.interrupted
    checkpoint.save_checkpoint(tmp_path, stopped.progress)
    like = training.blank(algorithm, source, key, whole_steps, None)
    resumed = run(resume=checkpoint.load_checkpoint(tmp_path, like))

    def as_numbers(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    for a, b in zip(*(jax.tree.leaves(r.progress.state) for r in (whole, resumed)), strict=True):
        np.testing.assert_array_equal(as_numbers(a), as_numbers(b))


def test_memory_is_told_before_training_and_too_much_is_refused(monkeypatch):
    algorithm, source = small("sac")
    notes = []

    class Listen(training.Hook):
        def on_note(self, note):
            notes.append(note)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(algorithm, source, jax.random.key(0), total_timesteps=2, hooks=[Listen()])
    assert len(notes) == 1
    assert notes[0].startswith("the replay buffer takes 0.00 MB of ")
    monkeypatch.setattr(replay, "free_memory", lambda: 10**9)
    huge, source = small("sac", replay_size=2_000_000)
    with pytest.raises(ConfigError, match=r"takes 1.44 GB, and 1.00 GB are free"):
        training.train(
            huge,
            source,
            jax.random.split(jax.random.key(0), 20),
            total_timesteps=2,
            members=20,
            shared_source=True,
        )


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match="must make a whole number"):
        ddpg.Config(update_to_data=0.3)
    with pytest.raises(ConfigError, match=r"td3.policy_delay is 2, which does not divide the 1 "):
        td3.Config(n_steps=1)
    with pytest.raises(ConfigError, match="without replacement a batch of 256 needs"):
        sac.Config(sample_with_replacement=False, learning_starts=100)
    with pytest.raises(ConfigError, match=r"sac.log_std_min is 3.0; it must be below"):
        sac.Config(log_std_min=3.0)
    with pytest.raises(ConfigError, match="does not hold the 8 x 4 steps"):
        ddpg.Config(num_envs=8, n_steps=4, replay_size=24)
    with pytest.raises(ConfigError, match="at least one hidden layer"):
        ddpg.Config(action_layer="second", hidden_sizes=())
    with pytest.raises(ConfigError, match=r"ddpg.noise is 'pink'"):
        ddpg.Config(noise="pink")
    with pytest.raises(ConfigError, match=r"ddpg.tau is 0"):
        ddpg.Config(tau=0.0)


@pytest.mark.parametrize("name", ALL)
def test_options_read_from_source_text_are_those_of_the_program(name):
    described = {option.name: option for option in discovery.options("algorithms", name)}
    fields = dataclasses.fields(importlib.import_module(f"tradax.algorithms.{name}").Config)
    assert {field.name for field in fields} == set(described)
    assert all(option.doc for option in described.values())
    assert _off_policy.Config().gradient_steps == 1
