"""Searches without gradients: what they share, and each one's own arithmetic."""

import importlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from evosax.algorithms import Open_ES

from compiled import as_deployed
from tradax import training
from tradax.algorithms import cem, evolution_strategies, genetic, hill_climbing, simulated_annealing
from tradax.algorithms._evolution import Generation
from tradax.draws import near_normals, random_integer, uniforms
from tradax.envs import trading
from tradax.envs.probes import Delayed, Target
from tradax.errors import ConfigError, ModelFileError
from tradax.model_file import load_policy, save_policy
from tradax.optimise import linear_anneal
from tradax.rollout import jax_source

ALL = ("evosax", "hill_climbing", "simulated_annealing", "cem", "evolution_strategies", "genetic")


def small(name, env, **options):
    module = importlib.import_module(f"tradax.algorithms.{name}")
    config = module.Config(
        **{"population_size": 16, "episode_limit": 8, "hidden_sizes": (8,)} | options
    )
    source = jax_source(env, num_envs=config.num_envs)
    return module.make(config, source.spec, jnp.float32(10)), source


def drawn(algorithm, learner, key):
    """The whole population."""
    index = jnp.arange(algorithm.config.population_size)
    return eqx.filter_jit(algorithm.individuals)(learner, key, index)


@eqx.filter_jit
def told(algorithm, learner, fitness, key, *, keep=True):
    """After one generation of this fitness: learner, metrics."""
    index = jnp.arange(algorithm.config.population_size)
    population = algorithm.individuals(learner, key, index) if keep else None
    generation = Generation(fitness, jnp.float32(0), key, population)
    return algorithm.learn(learner, generation, jax.random.key(9))


@pytest.mark.parametrize("name", ALL)
def test_each_learns_a_delayed_reward_and_a_continuous_action(name):
    options = {"genetic": {"mutation_scale": 0.2, "initial_scale": 0.3}}.get(name, {})
    if name == "simulated_annealing":
        options = {"temperature": 0.1, "final_temperature": 0.001}
    for env, least in ((Delayed(), 0.99), (Target(), -0.04)):
        algorithm, source = small(name, env, **options)
        steps = 60 * algorithm.steps_per_update
        result = training.train(algorithm, source, jax.random.key(0), total_timesteps=steps)
        test = jax_source(env, num_envs=200)
        returns, _ = test.episodes(result.policy.actor(sample=False), jax.random.key(1), 8)
        assert float(returns.mean()) >= least, env.name


def test_all_individuals_meet_the_same_episodes():
    algorithm, source = small("cem", "CartPole-v1")
    learner = algorithm.init(jax.random.key(0))
    actor = algorithm.actor(learner)  # sixteen times the same network
    play = eqx.filter_jit(source.episodes)
    returns, _ = play(actor, jax.random.key(1), 40, copies=16)
    returns = np.asarray(returns).reshape(16, 4)
    assert (returns == returns[0]).all()
    assert len(set(returns[0])) > 1
    returns, _ = play(actor, jax.random.key(1), 40)
    assert len(np.unique(np.asarray(returns).reshape(16, 4), axis=0)) > 1


def test_a_population_acts_as_each_of_its_networks_would():
    env = trading.Trading()
    source = jax_source(env, env.default_params, num_envs=12)
    config = genetic.Config(population_size=4, elite_fraction=0.5, episodes=3, hidden_sizes=(8,))
    algorithm = genetic.make(config, source.spec, jnp.float32(1))
    population = drawn(algorithm, algorithm.init(jax.random.key(0)), jax.random.key(0))
    actor = algorithm.population_actor(population, jnp.arange(4))
    carry = source.reset(jax.random.key(1), actor)
    table = source.table()
    action, _, _ = actor.tabulate(table)(carry.obs, (), jax.random.key(2))
    flat = carry.obs.flat(table)
    for p in range(4):
        outputs = algorithm.unflatten(population[p])(flat[3 * p : 3 * p + 3])
        expected = np.tanh(outputs)  # bounds are -1 and 1
        np.testing.assert_allclose(action[3 * p : 3 * p + 3], expected, atol=1e-5)


def test_squashed_policies_are_saved_and_loaded(tmp_path):
    algorithm, _ = small("cem", "Pendulum-v1")
    policy = algorithm.policy(algorithm.init(jax.random.key(0)))
    save_policy(policy, tmp_path / "policy.zip", {})
    obs = jax.random.normal(jax.random.key(1), (5, 3))
    action = policy.act(obs)
    assert float(jnp.abs(action).max()) <= 2.0
    np.testing.assert_array_equal(load_policy(tmp_path / "policy.zip").act(obs), action)


def test_children_against_a_plain_reference():
    config = genetic.Config(population_size=10, mutation_rate=0.3, mutation_scale=0.5)
    algorithm, _ = small("genetic", "CartPole-v1")
    algorithm = genetic.make(config, algorithm.spec, jnp.float32(1))
    parents = np.arange(2)[:, None] * 100.0 + np.arange(7)  # a parent's number in the hundreds
    learner = algorithm.init(jax.random.key(0))._replace(own=jnp.float32(parents))
    learner = learner._replace(updates=jnp.int32(1))
    population = np.asarray(drawn(algorithm, learner, jax.random.key(3)))
    np.testing.assert_array_equal(population[:2], parents)  # the elites, untouched
    points, changed = set(), 0
    for index in range(2, 10):
        own = jax.random.fold_in(jax.random.key(3), index)
        choose, cross, rate, scale = (jax.random.fold_in(own, i) for i in range(4))
        mother, father = (int(random_integer(choose, jnp.int32(2), i)) for i in range(2))
        point = 1 + int(random_integer(cross, jnp.int32(6)))
        points.add(point)
        child = np.concatenate([parents[mother][:point], parents[father][point:]])
        noise = np.asarray(near_normals(scale, 7))
        for place in np.flatnonzero(np.asarray(uniforms(rate, 7)) < 0.3):
            changed += 1
            child[place] += 0.5 * noise[place]
        np.testing.assert_allclose(population[index], child, rtol=1e-5)
    assert len(points) > 2
    assert 8 <= changed <= 26  # of 56 at a rate of 0.3


@pytest.mark.parametrize("selection", ["truncation", "tournament"])
@pytest.mark.parametrize("crossover", ["single_point", "uniform", "none"])
def test_elites_are_kept_unchanged(crossover, selection):
    algorithm, _ = small("genetic", "CartPole-v1", crossover=crossover, selection=selection)
    learner = algorithm.init(jax.random.key(0))
    key = jax.random.key(2)
    population = drawn(algorithm, learner, key)
    assert len(np.unique(np.asarray(population), axis=0)) == 16
    fitness = jax.random.normal(jax.random.key(1), (16,))
    new, _ = told(algorithm, learner, fitness, key)
    best = np.argsort(-np.asarray(fitness))[:4]  # a fifth of 16, rounded up
    np.testing.assert_array_equal(new.own[:4], population[best])
    np.testing.assert_array_equal(drawn(algorithm, new, jax.random.key(4))[:4], population[best])
    np.testing.assert_array_equal(new.parameters, population[best[0]])
    # A worse generation does not replace the best that was ever found.
    worse, _ = told(algorithm, new, fitness - 10, jax.random.key(4))
    np.testing.assert_array_equal(worse.parameters, new.parameters)
    assert float(worse.best_fitness) == float(fitness.max())


@pytest.mark.parametrize("name", ALL)
def test_what_was_kept_of_a_population_can_be_drawn_again(name):
    algorithm, _ = small(name, "CartPole-v1")
    learner = algorithm.init(jax.random.key(0))
    fitness = jax.random.normal(jax.random.key(1), (16,))
    for key in jax.random.split(jax.random.key(2), 2):
        kept, _ = told(algorithm, learner, fitness, key)
        again, _ = told(algorithm, learner, fitness, key, keep=False)
        for one, other in zip(jax.tree.leaves(kept), jax.tree.leaves(again), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        learner = kept


def test_evolution_strategies_climb_the_gradient_of_a_plane():
    algorithm, _ = small("evolution_strategies", "CartPole-v1", population_size=64)
    learner, key = algorithm.init(jax.random.key(0)), jax.random.key(1)
    population = drawn(algorithm, learner, key)
    np.testing.assert_allclose(
        population[:32] + population[32:], jnp.tile(2 * learner.parameters, (32, 1)), atol=1e-5
    )
    slope = jax.random.normal(jax.random.key(2), learner.parameters.shape)
    new, _ = told(algorithm, learner, population @ slope, key)
    moved = new.parameters - learner.parameters
    assert float(moved @ slope) > 0
    ranks = evolution_strategies.centred_ranks(jnp.array([3.0, 1.0, 2.0, 2.0]))
    np.testing.assert_allclose(ranks, [0.5, -0.5, 0.0, 0.0], atol=1e-6)


def test_evolution_strategies_take_the_step_of_open_es():
    algorithm, _ = small("evolution_strategies", "CartPole-v1", weight_decay=0.01)
    learner = algorithm.init(jax.random.key(0))
    rate = linear_anneal(0.03, 0.1, jnp.float32(0), algorithm.horizon)
    theirs = Open_ES(
        population_size=16,
        solution=learner.parameters,
        optimizer=optax.adamw(rate, weight_decay=0.01),
        std_schedule=lambda step: 0.05,
    )
    state = theirs.init(jax.random.key(0), learner.parameters, theirs.default_params)
    for number in range(3):
        key = jax.random.key(10 + number)
        population = drawn(algorithm, learner, key)
        fitness = jnp.round(3 * jax.random.normal(jax.random.key(number), (16,)))  # with ties
        learner, _ = told(algorithm, learner._replace(updates=jnp.int32(0)), fitness, key)
        state, _ = theirs.tell(key, population, -fitness, state, theirs.default_params)
        np.testing.assert_allclose(learner.parameters, state.mean, atol=2e-6)


@pytest.mark.parametrize("strategy", ["CR_FM_NES", "PSO"])
def test_strategies_of_evosax_by_name(strategy):
    algorithm, source = small("evosax", Target(), strategy=strategy)
    steps = 60 * algorithm.steps_per_update
    result = training.train(algorithm, source, jax.random.key(0), total_timesteps=steps)
    test = jax_source(Target(), num_envs=200)
    returns, _ = test.episodes(result.policy.actor(sample=False), jax.random.key(1), 8)
    assert float(returns.mean()) >= -0.04
    assert result.rows[0][-1]["best_ever"] > result.rows[0][0]["best_ever"]
    with pytest.raises(ConfigError, match=r"evosax.strategy is CMA; it must be one of .*CMA_ES"):
        small("evosax", Target(), strategy="CMA")


def test_cross_entropy_takes_mean_and_deviation_of_the_elites():
    algorithm, _ = small("cem", "CartPole-v1", population_size=10, elite_fraction=0.3)
    learner = algorithm.init(jax.random.key(0))
    population = drawn(algorithm, learner, jax.random.key(1))
    new, _ = told(algorithm, learner, jnp.arange(10.0), jax.random.key(1))
    np.testing.assert_allclose(new.parameters, population[7:].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(new.own, population[7:].std(axis=0), atol=1e-6)


def test_hill_climbing_shrinks_on_success_and_grows_on_failure_within_bounds():
    algorithm, _ = small("hill_climbing", "CartPole-v1", population_size=3)
    learner = algorithm.init(jax.random.key(0))
    key = jax.random.key(1)
    tell = as_deployed(told)
    population = as_deployed(drawn)(algorithm, learner, key)
    np.testing.assert_array_equal(population[0], learner.parameters)
    new, _ = tell(algorithm, learner, jnp.array([1.0, 2.0, 3.0]), key)
    np.testing.assert_array_equal(new.parameters, population[2])
    assert float(new.own) == pytest.approx(0.1 * 0.7)
    for _ in range(20):
        new, _ = tell(algorithm, new, jnp.array([4.0, 2.0, 3.0]), key)
    np.testing.assert_array_equal(new.parameters, population[2])
    assert float(new.own) == 1.0


def test_sampled_actions_differ_between_individuals_and_follow_the_softmax():
    algorithm, source = small("cem", "CartPole-v1", population_size=400, actions="sampled")
    learner = algorithm.init(jax.random.key(0))
    carry = source.reset(jax.random.key(1), algorithm.actor(learner))
    action, _, _ = algorithm.actor(learner)(carry.obs, (), jax.random.key(2))
    logits = algorithm.unflatten(learner.parameters)(carry.obs)
    expected = jax.nn.softmax(logits)[:, 1]
    assert abs(float(action.mean() - expected.mean())) < 4 * 0.5 / 1600**0.5
    algorithm, _ = small("cem", "Pendulum-v1", actions="sampled", action_noise=0.0)
    greedy, _ = small("cem", "Pendulum-v1")
    learner = algorithm.init(jax.random.key(0))
    obs = jax.random.normal(jax.random.key(1), (64, 3))
    act = [a.actor(learner)(obs, (), jax.random.key(2))[0] for a in (algorithm, greedy)]
    np.testing.assert_array_equal(*act)


def test_a_search_begins_at_a_saved_policy(tmp_path):
    algorithm, _ = small("cem", "Pendulum-v1")
    learner = algorithm.init(jax.random.key(7))
    file = tmp_path / "policy.zip"
    save_policy(algorithm.policy(learner), file, {})
    for name in ALL:
        warm, _ = small(name, "Pendulum-v1", initial_policy=str(file))
        begun = warm.init(jax.random.key(0))
        np.testing.assert_array_equal(begun.parameters, learner.parameters)
    with pytest.raises(ConfigError, match=r"has hidden layers \[8\] with tanh"):
        small("genetic", "Pendulum-v1", initial_policy=str(file), hidden_sizes=(9,))
    with pytest.raises(ConfigError, match="was made for"):
        small("genetic", "CartPole-v1", initial_policy=str(file))
    with pytest.raises(ModelFileError, match=r"nowhere\.zip"):
        small("genetic", "CartPole-v1", initial_policy=str(tmp_path / "nowhere.zip"))


def test_only_rows_that_can_be_visited_are_tabulated():
    # Equal starts and a short limit: a window of the table; different starts: flat observations.
    env = trading.Trading()
    params = env.default_params
    for same in (True, False):
        config = cem.Config(
            population_size=8, episodes=2, episode_limit=20, hidden_sizes=(8,), same_episodes=same
        )
        source = jax_source(env, params, num_envs=config.num_envs)
        algorithm = cem.make(config, source.spec, jnp.float32(1))
        learner, key = algorithm.init(jax.random.key(0)), jax.random.key(3)
        population = jax.random.normal(jax.random.key(1), (8, learner.parameters.size))
        actor = algorithm.population_actor(population, jnp.arange(8))
        play = eqx.filter_jit(source.episodes)
        returns, lengths = play(actor, key, 20, copies=8 if same else 1)
        assert (np.asarray(lengths) == 20).all()
        one = source.of(2)
        for p in range(8):
            alone = algorithm.population_actor(population[p : p + 1], jnp.arange(p, p + 1))
            expected, _ = eqx.filter_jit(one.episodes)(alone, key, 20, first=0 if same else 2 * p)
            np.testing.assert_allclose(returns[2 * p : 2 * p + 2], expected, atol=2e-5)
        assert len(np.unique(np.asarray(returns))) > 8


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match="fewer than 2 parents to cross"):
        genetic.Config(population_size=4, elite_fraction=0.2)
    genetic.Config(population_size=4, elite_fraction=0.2, crossover="none")
    with pytest.raises(ConfigError, match=r"genetic.mutation_rate is 1.5; it must be at most 1"):
        genetic.Config(mutation_rate=1.5)
    with pytest.raises(ConfigError, match="population_size is 0; it must be at least 1"):
        genetic.Config(population_size=0)
    with pytest.raises(ConfigError, match="must be even"):
        evolution_strategies.Config(population_size=7)
    with pytest.raises(ConfigError, match="leaves fewer than 2"):
        cem.Config(population_size=4)
    with pytest.raises(ConfigError, match="must lie between smallest_noise"):
        hill_climbing.Config(noise=5.0)
    with pytest.raises(ConfigError, match="a population_size of at least 2"):
        hill_climbing.Config(population_size=1)
    with pytest.raises(ConfigError, match="must not be above the temperature at the start"):
        simulated_annealing.Config(final_temperature=100.0)
