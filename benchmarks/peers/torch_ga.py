"""A genetic algorithm as one writes it in torch: network after network in a Gymnasium pole."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters


def make(case: dict[str, Any]) -> tuple[int, Callable[[], None]]:
    torch.set_num_threads(1)  # such small products gain nothing from more
    population, length, elites = 64, case["episode_limit"], 13
    spread, hidden = case["mutation_scale"], case["hidden_sizes"]
    env: Any = gymnasium.make(case["env"])
    pole = env.unwrapped
    pole.x_threshold = pole.theta_threshold_radians = np.inf  # nobody falls: all steps are played
    network = nn.Sequential(
        nn.Linear(4, hidden[0]),
        nn.Tanh(),
        nn.Linear(hidden[0], hidden[1]),
        nn.Tanh(),
        nn.Linear(hidden[1], 2),
    )
    size = parameters_to_vector(network.parameters()).numel()
    networks = spread * torch.randn(population, size)

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
        networks = torch.cat([parents, child + mutated * spread * torch.randn_like(child)])

    return population * length, run
