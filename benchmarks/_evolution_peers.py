"""Generations of other genetic algorithms, timed on request; runs in the peers' environment.

python -m benchmarks._evolution_peers CASE
"""

import sys
from collections.abc import Callable
from typing import Any

from benchmarks._evolution_cases import CASES, HIDDEN, SPREAD
from benchmarks._peers import serve


def simple_ga(case: str) -> tuple[int, Callable[[], None]]:
    """evosax's SimpleGA and its GymnaxProblem, a generation as one compiled program.

    Returns: steps of a generation, a function that runs one.
    """
    import jax
    import jax.numpy as jnp
    import optax
    from evosax.algorithms import SimpleGA
    from evosax.problems.networks import MLP, tanh_output_fn
    from evosax.problems.rl.gymnax import GymnaxProblem

    env, params, population, length = CASES[case]()
    discrete = hasattr(env.action_space(params), "n")

    def greedy(outputs, key=None):
        return jnp.argmax(outputs, axis=-1) if discrete else tanh_output_fn(outputs)

    class Problem(GymnaxProblem):
        """The same, of an environment that has no name."""

        def __init__(self):
            outputs = env.num_actions
            self.policy = MLP(layer_sizes=(*HIDDEN, outputs), output_fn=greedy)
            self.env, self.env_params, self.episode_length = env, params, length
            self.num_rollouts, self.use_normalize_obs = 1, False
            self._rollouts = jax.vmap(self._rollout, in_axes=(0, None, None))
            self._eval = jax.vmap(self._rollouts, in_axes=(None, 0, None))

    problem = Problem()
    start = problem.sample(jax.random.key(0))
    search = SimpleGA(population, start, std_schedule=optax.constant_schedule(SPREAD))
    options = search.default_params
    first = jax.vmap(problem.sample)(jax.random.split(jax.random.key(1), population))
    played = problem.init(jax.random.key(3))
    fitness, played, _ = problem.eval(jax.random.key(4), first, played)
    state = search.init(jax.random.key(5), first, -fitness, options)

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


def torch_ga() -> tuple[int, Callable[[], None]]:
    """A genetic algorithm as one writes it in torch: network after network in a Gymnasium pole."""
    import gymnasium
    import numpy as np
    import torch
    from torch import nn
    from torch.nn.utils import parameters_to_vector, vector_to_parameters

    torch.set_num_threads(1)  # such small products gain nothing from more
    population, length, elites = 64, 500, 13
    env: Any = gymnasium.make("CartPole-v1")
    pole = env.unwrapped
    pole.x_threshold = pole.theta_threshold_radians = np.inf  # nobody falls: all steps are played
    network = nn.Sequential(
        nn.Linear(4, HIDDEN[0]),
        nn.Tanh(),
        nn.Linear(HIDDEN[0], HIDDEN[1]),
        nn.Tanh(),
        nn.Linear(HIDDEN[1], 2),
    )
    size = parameters_to_vector(network.parameters()).numel()
    networks = SPREAD * torch.randn(population, size)

    def play(parameters) -> float:
        vector_to_parameters(parameters, network.parameters())
        obs, _ = env.reset()
        total, over = 0.0, False
        while not over:
            action = int(network(torch.from_numpy(obs)).argmax())
            obs, reward, terminated, truncated, _ = env.step(action)
            total, over = total + reward, terminated or truncated
        return total

    @torch.inference_mode()
    def run():
        nonlocal networks
        fitness = torch.tensor([play(parameters) for parameters in networks])
        parents = networks[fitness.topk(elites).indices]
        mother, father = parents[torch.randint(elites, (2, population - elites))]
        point = torch.randint(1, size, (population - elites, 1))
        child = torch.where(torch.arange(size) < point, mother, father)
        mutated = torch.rand_like(child) < 0.1
        networks = torch.cat([parents, child + mutated * SPREAD * torch.randn_like(child)])

    return population * length, run


def main() -> None:
    serve(*(torch_ga() if sys.argv[1] == "torch" else simple_ga(sys.argv[1])))


if __name__ == "__main__":
    main()
