"""Searches without gradients: what they share, and each one's own arithmetic."""

import importlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tradax import training
from tradax.algorithms import cem, evolution_strategies, genetic, hill_climbing, simulated_annealing
from tradax.algorithms._evolution import Generation, PopulationActor
from tradax.envs import trading
from tradax.envs.probes import Delayed, Target
from tradax.errors import ConfigError
from tradax.model_file import load_policy, save_policy
from tradax.rollout import jax_source

ALL = ("hill_climbing", "simulated_annealing", "cem", "evolution_strategies", "genetic")


def small(name, env, **options):
    module = importlib.import_module(f"tradax.algorithms.{name}")
    config = module.Config(
        **{"population_size": 16, "episode_limit": 8, "hidden_sizes": (8,)} | options
    )
    source = jax_source(env, num_envs=config.num_envs)
    return module.make(config, source.spec, jnp.float32(10)), source


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
    population = algorithm.init(jax.random.key(0)).own
    actor = PopulationActor(jax.vmap(algorithm.unflatten)(population), source.spec)
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
    ranked = np.arange(10)[:, None] * 100.0 + np.arange(7)  # a parent's number in the hundreds
    key = jax.random.key(3)
    children = np.asarray(algorithm.children(jnp.asarray(ranked, jnp.float32), key))
    choose, cross, rate, scale = jax.random.split(key, 4)
    parents = np.asarray(jax.random.randint(choose, (2, 8), 0, 2))
    points = np.asarray(jax.random.randint(cross, (8, 1), 1, 7))[:, 0]
    mutated = np.asarray(jax.random.bernoulli(rate, 0.3, (8, 7)))
    noise = np.asarray(jax.random.normal(scale, (8, 7)))
    for i in range(8):
        first, second = ranked[parents[0, i]], ranked[parents[1, i]]
        child = np.concatenate([first[: points[i]], second[points[i] :]])
        np.testing.assert_allclose(children[i], child + mutated[i] * 0.5 * noise[i], rtol=1e-5)


@pytest.mark.parametrize("selection", ["truncation", "tournament"])
@pytest.mark.parametrize("crossover", ["single_point", "uniform", "none"])
def test_elites_are_kept_unchanged(crossover, selection):
    algorithm, _ = small("genetic", "CartPole-v1", crossover=crossover, selection=selection)
    learner = algorithm.init(jax.random.key(0))
    fitness = jax.random.normal(jax.random.key(1), (16,))
    generation = Generation(learner.own, fitness, jnp.float32(0))
    new, _ = algorithm.tell(learner, generation, jax.random.key(2))
    best = np.argsort(-np.asarray(fitness))[:4]  # a fifth of 16, rounded up
    np.testing.assert_array_equal(new.own[:4], learner.own[best])
    assert new.own.shape == learner.own.shape
    np.testing.assert_array_equal(new.parameters, learner.own[best[0]])
    # A worse generation does not replace the best that was ever found.
    worse, _ = algorithm.tell(new, generation._replace(fitness=fitness - 10), jax.random.key(3))
    np.testing.assert_array_equal(worse.parameters, new.parameters)


def test_evolution_strategies_climb_the_gradient_of_a_plane():
    algorithm, _ = small("evolution_strategies", "CartPole-v1", population_size=64)
    learner = algorithm.init(jax.random.key(0))
    population = algorithm.ask(learner, jax.random.key(1))
    np.testing.assert_allclose(
        population[:32] + population[32:], jnp.tile(2 * learner.parameters, (32, 1)), atol=1e-5
    )
    slope = jax.random.normal(jax.random.key(2), learner.parameters.shape)
    generation = Generation(population, population @ slope, jnp.float32(0))
    new, _ = algorithm.tell(learner, generation, jax.random.key(3))
    moved = new.parameters - learner.parameters
    assert float(moved @ slope) > 0
    ranks = evolution_strategies.centred_ranks(jnp.array([3.0, 1.0, 2.0, 2.0]))
    np.testing.assert_allclose(ranks, [0.5, -0.5, 0.0, 0.0], atol=1e-6)


def test_cross_entropy_takes_mean_and_deviation_of_the_elites():
    algorithm, _ = small("cem", "CartPole-v1", population_size=10, elite_fraction=0.3)
    learner = algorithm.init(jax.random.key(0))
    population = algorithm.ask(learner, jax.random.key(1))
    fitness = jnp.arange(10.0)
    new, _ = algorithm.tell(learner, Generation(population, fitness, fitness[0]), None)
    np.testing.assert_allclose(new.parameters, population[7:].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(new.own, population[7:].std(axis=0), atol=1e-6)


def test_hill_climbing_shrinks_on_success_and_grows_on_failure_within_bounds():
    algorithm, _ = small("hill_climbing", "CartPole-v1", population_size=3)
    learner = algorithm.init(jax.random.key(0))
    population = algorithm.ask(learner, jax.random.key(1))
    np.testing.assert_array_equal(population[0], learner.parameters)
    better = Generation(population, jnp.array([1.0, 2.0, 3.0]), jnp.float32(0))
    new, _ = algorithm.tell(learner, better, None)
    np.testing.assert_array_equal(new.parameters, population[2])
    assert float(new.own) == pytest.approx(0.1 * 0.7)
    worse = better._replace(fitness=jnp.array([4.0, 2.0, 3.0]))
    for _ in range(20):
        new, _ = algorithm.tell(new, worse, None)
    np.testing.assert_array_equal(new.parameters, population[2])
    assert float(new.own) == 1.0


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
