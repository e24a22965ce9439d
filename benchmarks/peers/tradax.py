"""tradax, timed as its peers are: whole calls of the training loop, everything in it counted."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks import _cases
from tradax import discovery, parallel, training
from tradax.algorithms import ppo
from tradax.envs._baselines import Plan
from tradax.rollout import jax_source

Made = tuple[int, Callable[[], float | None]]


def make(case: dict[str, Any]) -> Made:
    return KINDS[case["kind"]](case)


def gradient(case: dict[str, Any]) -> Made:
    """PPO: a run is a training of `updates` updates, networks drawn anew."""
    algorithm, source = ppo_of(case)
    steps = case["updates"] * algorithm.steps_per_update

    def run():
        training.train(algorithm, source, jax.random.key(0), total_timesteps=steps)

    return steps, run


def ppo_of(case: dict[str, Any]) -> tuple[ppo.PPO, Any]:
    """Algorithm and source of a case."""
    env, params = _cases.environment(case)
    if case.get("flat"):
        env = _cases.flat(env)
    source = jax_source(env, params, num_envs=case["num_envs"])
    # Equal on all sides: no annealing, and statistics of observations and rewards off.
    plain = {
        "final_learning_rate_fraction": 1.0,
        "normalize_observations": False,
        "normalize_rewards": False,
    }
    return ppo.make(ppo.Config(**plain, **options(ppo, case)), source.spec, jnp.float32(1)), source


def options(module: Any, case: dict[str, Any]) -> dict[str, Any]:
    """What of a case is an option of the algorithm."""
    names = module.Config.__dataclass_fields__
    found = {k: v for k, v in case.items() if k in names}
    return found | (
        {"hidden_sizes": tuple(case["hidden_sizes"])} if "hidden_sizes" in found else {}
    )


def update(case: dict[str, Any]) -> Made:
    """PPO's update alone, on experience collected once; a "step" is a floating-point operation.

    Counted are the products of minibatches: 2 a weight and row forwards, twice that backwards, less
    the gradient of the first layer's input, which nobody needs.
    """
    algorithm, source = ppo_of(case)
    c, spec = algorithm.config, source.spec
    total = 0
    for outputs in (spec.action.size, 1):  # policy and value
        sizes = [spec.size, *c.hidden_sizes, outputs]
        weights = [n * m for n, m in itertools.pairwise(sizes)]
        total += 2 * (3 * sum(weights) - weights[0])
    learner = begun(algorithm)
    carry = eqx.filter_jit(source.reset)(jax.random.key(1), algorithm.actor(learner))
    collect = eqx.filter_jit(lambda a, s, learner, carry, key: a.collect(learner, s, carry, key)[1])
    experience = collect(algorithm, source, learner, carry, jax.random.key(2))
    learn = eqx.filter_jit(lambda a, learner, experience, key: a.learn(learner, experience, key)[0])

    def run():
        jax.block_until_ready(learn(algorithm, learner, experience, jax.random.key(3)))

    return total * algorithm.steps_per_update * c.epochs, run


@eqx.filter_jit
def begun(algorithm: Any) -> Any:
    """A learner before its first update."""
    return algorithm.init(jax.random.key(0))


def product(case: dict[str, Any]) -> Made:
    """A matrix product, as fast as this machine does one; a "step" is an operation."""
    n = case["size"]
    x = jnp.ones((n, n))
    multiply = jax.jit(jnp.matmul)

    def run():
        jax.block_until_ready(multiply(x, x))

    return 2 * n**3, run


def generation(case: dict[str, Any]) -> Made:
    """Evolution: a run is a generation, and counts as population x length of an episode."""
    env, params = _cases.environment(case)
    module = discovery.module("algorithms", case["algorithm"])
    config = module.Config(episodes=1, **options(module, case))
    source = jax_source(env, params, num_envs=config.num_envs)
    algorithm = module.make(config, source.spec, jnp.float32(1))

    @eqx.filter_jit
    def generate(algorithm, source, learner, key):
        play_key, learn_key = jax.random.split(key)
        _, experience, _ = algorithm.collect(learner, source, (), play_key)
        return algorithm.learn(learner, experience, learn_key)[0]

    learner, key = begun(algorithm), jax.random.key(1)

    def run():
        nonlocal learner, key
        key, own = jax.random.split(key)
        learner = jax.block_until_ready(generate(algorithm, source, learner, own))

    return config.population_size * config.episode_limit, run


def off_policy(case: dict[str, Any]) -> Made:
    """SAC, TD3: steps after the warm-up, of all members where there are several."""
    members = case.get("members")
    module = discovery.module("algorithms", case["algorithm"])
    source = jax_source("Pendulum-v1", num_envs=1)
    algorithm = module.make(module.Config(**options(module, case)), source.spec, jnp.float32(1))
    key = jax.random.key(0)

    def run() -> float:
        clock = _Clock(2 * case["learning_starts"])
        training.train(
            algorithm,
            source,
            jax.random.split(key, members) if members else key,
            total_timesteps=case["steps"],
            members=members,
            shared_source=True,
            hooks=[clock],
            log_rows=1,
            mesh=parallel.device_mesh() if members else None,
        )
        return case["steps"] / clock.speed

    return case["steps"] * (members or 1), run


class _Clock(training.Hook):
    """When how many steps were done, once all are past the warm-up."""

    def __init__(self, warm_up: int):
        self.warm_up, self.seen = warm_up, []

    def on_tick(self, timesteps, steps_per_second):
        if timesteps > self.warm_up:
            self.seen.append((time.perf_counter(), timesteps))

    @property
    def speed(self) -> float:
        (begin, first), (end, last) = self.seen[0], self.seen[-1]
        return (last - first) / (end - begin)


def stepping(case: dict[str, Any]) -> Made:
    """An environment under random actions drawn beforehand, as training steps it."""
    env, params = _cases.environment(case)
    source = jax_source(env, params, num_envs=case["num_envs"])
    space, steps = source.spec.action, case["n_steps"]
    low, high = jnp.array(space.low), jnp.array(space.high)
    shape = (steps, space.size)
    actor = Plan(jax.random.uniform(jax.random.key(0), shape, minval=low, maxval=high))
    collect = eqx.filter_jit(lambda source, carry, key: source.collect(carry, actor, key, steps))
    carry = eqx.filter_jit(source.reset)(jax.random.key(0), actor)

    def run():
        jax.block_until_ready(collect(source, carry, jax.random.key(1)))

    return steps * case["num_envs"], run


def to_return(case: dict[str, Any]) -> Made:
    """PPO until its greedy policy has a return on validation, which takes no time.

    Options are defaults where the case has none.
    """
    env, params, validation = _cases.planted(case)
    config = ppo.Config(**options(ppo, case))
    source = jax_source(env, params, num_envs=config.num_envs)
    algorithm = ppo.make(config, source.spec, jnp.float32(1))
    level, score = _cases.level(case, env, validation), on_validation(env, validation)
    seed = 0

    def run() -> float:
        nonlocal seed
        seed += 1
        result = training.train(
            algorithm,
            source,
            jax.random.key(seed),
            total_timesteps=case["most_steps"],
            evaluate=score,
            evaluations=case["evaluations"],
            log_rows=case["evaluations"],
        )
        reached = (row["seconds"] for row in result.rows[0] if row["validation_score"] >= level)
        return next(reached, float("inf"))

    return 1, run


def on_validation(env: Any, validation: Any) -> Callable:
    """A greedy policy's return over the span of a market."""
    span, limit = jax_source(env, validation), int(validation.episode_length)

    @eqx.filter_jit
    def score(policy):
        return span.episodes(policy.actor(sample=False), jax.random.key(0), limit)[0][0]

    return score


KINDS = {
    "ppo": gradient,
    "update": update,
    "product": product,
    "generation": generation,
    "off_policy": off_policy,
    "stepping": stepping,
    "to_return": to_return,
}
