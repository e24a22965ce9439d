"""PPO on Gymnasium's own environments, stepped on the host: tradax and Stable-Baselines3 in turn.

Speed: equal networks, rollouts, minibatches and epochs, 8 environments, medians of alternating
runs. Learning: mean return of 20 greedy episodes after so many steps, of each seed. Then the other
direction: steps a second of `tradax/Trading-v0`, one environment and a vector of them.
"""

import os
import time

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from tradax import training
from tradax.algorithms import ppo
from tradax.envs import from_gymnasium
from tradax.evaluation.scoring import evaluate

REPEATS = 3
SEEDS = 3
SPEED = {"num_envs": 8, "n_steps": 32, "minibatches": 1}
LEARNING = {
    "CartPole-v1": (ppo.Config(num_envs=8, n_steps=128), 150_000),
    "Pendulum-v1": (
        ppo.Config(num_envs=8, n_steps=256, minibatches=8, epochs=10, gamma=0.9),
        200_000,
    ),
}


def train(name: str, config: ppo.Config, steps: int, seed: int = 0) -> training.Trained:
    source = from_gymnasium(name, num_envs=config.num_envs)
    algorithm = ppo.make(config, source.spec, jnp.float32(1))
    return training.train(algorithm, source, jax.random.key(seed), total_timesteps=steps)


def compare_speed() -> None:
    print("| environment | tradax, steps/s | Stable-Baselines3, steps/s | ratio |")
    print("|---|---|---|---|")
    config = ppo.Config(**SPEED)
    for name in LEARNING:
        ours, others = [], []
        for _ in range(REPEATS):
            ours.append(train(name, config, 50_000).steps_per_second)
            others.append(theirs(lambda n=name: gymnasium.make(n), 8, 32, 256, 20_000))
        a, b = np.median(ours), np.median(others)
        print(f"| {name} | {a:,.0f} | {b:,.0f} | {a / b:.2f}x |", flush=True)


def theirs(make_env, num_envs: int, n_steps: int, batch_size: int, steps: int) -> float:
    """Steps a second of Stable-Baselines3."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    torch.set_num_threads(os.cpu_count() or 1)
    model = PPO(
        "MlpPolicy",
        DummyVecEnv([make_env] * num_envs),
        n_steps=n_steps,
        batch_size=batch_size,
        n_epochs=4,
        device="cpu",
        seed=0,
    )
    model.learn(n_steps * num_envs)
    start = time.perf_counter()
    model.learn(steps)
    return model.num_timesteps / (time.perf_counter() - start)


def show_learning() -> None:
    print("\n| environment | steps | return of each seed |\n|---|---|---|")
    for name, (config, steps) in LEARNING.items():
        scores = [
            evaluate(train(name, config, steps, seed).policy, f"gymnasium:{name}", episodes=20).mean
            for seed in range(SEEDS)
        ]
        shown = ", ".join(f"{score:.0f}" for score in scores)
        print(f"| {name} | {steps:,} | {shown} |", flush=True)


def show_stepping() -> None:
    print("\n| tradax/Trading-v0 | steps/s |\n|---|---|")
    name = "tradax/Trading-v0"
    one = gymnasium.make(name)
    print(f"| gymnasium.make | {speed(one, 1, 5_000):,.0f} |")
    for count in (8, 256):
        many = gymnasium.make_vec(name, num_envs=count)
        print(f"| gymnasium.make_vec, {count} | {speed(many, count, 2_000):,.0f} |", flush=True)


def speed(env, count: int, steps: int) -> float:
    """Steps a second with one action for ever."""
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    env.step(action)
    start = time.perf_counter()
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(action)
        if count == 1 and (terminated or truncated):
            env.reset()
    return count * steps / (time.perf_counter() - start)


def main() -> None:
    compare_speed()
    show_learning()
    show_stepping()


if __name__ == "__main__":
    main()
