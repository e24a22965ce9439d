"""evosax's SimpleGA and Open_ES on its GymnaxProblem; a run is a compiled generation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from evosax.algorithms import Open_ES, SimpleGA
from evosax.problems.networks import MLP, tanh_output_fn
from evosax.problems.rl.gymnax import GymnaxProblem

from benchmarks import _cases


def make(case: dict[str, Any]) -> tuple[int, Callable[[], None]]:
    env, params = _cases.environment(case)
    population, length = case["population_size"], case["episode_limit"]
    discrete = hasattr(env.action_space(params), "n")

    def greedy(outputs, key=None):
        return jnp.argmax(outputs, axis=-1) if discrete else tanh_output_fn(outputs)

    class Problem(GymnaxProblem):
        """The same, of an environment that has no name."""

        def __init__(self):
            sizes = (*case["hidden_sizes"], env.num_actions)
            self.policy = MLP(layer_sizes=sizes, output_fn=greedy)
            self.env, self.env_params, self.episode_length = env, params, length
            self.num_rollouts, self.use_normalize_obs = 1, False
            self._rollouts = jax.vmap(self._rollout, in_axes=(0, None, None))
            self._eval = jax.vmap(self._rollouts, in_axes=(None, 0, None))

    problem = Problem()
    start = problem.sample(jax.random.key(0))
    played = problem.init(jax.random.key(3))
    if case["algorithm"] == "genetic":
        spread = optax.constant_schedule(case["mutation_scale"])
        search = SimpleGA(population, start, std_schedule=spread)
        first = jax.vmap(problem.sample)(jax.random.split(jax.random.key(1), population))
        fitness, played, _ = problem.eval(jax.random.key(4), first, played)
        given = (first, -fitness)
    else:
        spread = optax.constant_schedule(case["sigma"])
        adam = optax.adam(case["learning_rate"])
        search = Open_ES(population, start, optimizer=adam, std_schedule=spread)
        given = (start,)
    options = search.default_params
    state = search.init(jax.random.key(5), *given, options)

    @jax.jit
    def generation(state, key):
        ask_key, play_key, tell_key = jax.random.split(key, 3)
        solutions, state = search.ask(ask_key, state, options)
        fitness, _, _ = problem.eval(play_key, solutions, played)
        state, _ = search.tell(tell_key, solutions, -fitness, state, options)
        return state

    key = jax.random.key(6)

    def run():
        nonlocal state, key
        key, own = jax.random.split(key)
        state = jax.block_until_ready(generation(state, own))

    return population * length, run
