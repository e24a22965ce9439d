"""Stable-Baselines3: PPO, SAC and TD3. A run is more steps of the same model."""

import os
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import torch
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from benchmarks import _cases, _numpy_markets

ALGORITHMS = {"ppo": PPO, "sac": SAC, "td3": TD3}


def make(case: dict[str, Any], algorithms=ALGORITHMS, **device) -> tuple[int, Callable]:
    torch.set_num_threads(case.get("threads") or os.cpu_count() or 1)
    if algorithms is ALGORITHMS:
        device = {"device": "cpu"}
    if case["kind"] == "to_return":
        return 1, to_return(case)
    learn = {"off_policy": off_policy, "ppo": ppo}[case["kind"]](case, algorithms, device)
    steps = case["peer_steps"]
    return steps, lambda: learn.learn(steps, reset_num_timesteps=False) and None


def ppo(case: dict[str, Any], algorithms, device: dict) -> Any:
    numbers = case["num_envs"], case["n_steps"]
    return algorithms["ppo"](
        "MlpPolicy",
        make_vec_env(lambda: environment(case), numbers[0]),
        n_steps=numbers[1],
        batch_size=numbers[0] * numbers[1] // case["minibatches"],
        n_epochs=case["epochs"],
        learning_rate=case["learning_rate"],
        gamma=case["gamma"],
        gae_lambda=case["gae_lambda"],
        clip_range=case["clip_range"],
        max_grad_norm=case["max_grad_norm"],
        policy_kwargs={"net_arch": case["hidden_sizes"]},
        seed=0,
        **device,
    )


def off_policy(case: dict[str, Any], algorithms, device: dict) -> Any:
    model = algorithms[case["algorithm"]](
        "MlpPolicy",
        gymnasium.make(case["env"]),
        batch_size=case["batch_size"],
        learning_starts=100,
        train_freq=1,
        gradient_steps=1,
        buffer_size=200_000,
        policy_kwargs={"net_arch": case["hidden_sizes"]},
        seed=0,
        **device,
    )
    return model.learn(150)  # past the random actions


def environment(case: dict[str, Any]) -> gymnasium.Env:
    """Ours through Gymnasium, the same in numpy, or one of Gymnasium's own."""
    if case["env"] not in _cases.MARKETS:
        return gymnasium.make(case["env"])
    if not case.get("numpy"):
        import tradax.envs  # noqa: F401 registers them

        return gymnasium.make(f"tradax/{case['env'].title()}-v0", data="sp500")
    kinds = {
        "trading": _numpy_markets.NumpyTrading,
        "portfolio": _numpy_markets.NumpyPortfolio,
    }
    return kinds[case["env"]](_cases.environment(case)[1])


def to_return(case: dict[str, Any]) -> Callable[[], float]:
    """Default PPO until its greedy policy has a return on validation; validating takes no time."""
    env, params, validation = _cases.planted(case)
    level = _cases.level(case, env, validation)
    over_span = _numpy_markets.NumpyTrading(validation)

    class Watch(BaseCallback):
        def _on_training_start(self):
            self.began, self.aside, self.taken = time.perf_counter(), 0.0, float("inf")

        def _on_step(self):
            return self.taken == float("inf")

        def _on_rollout_start(self):  # after each update
            stopped = time.perf_counter()
            (obs, _), total, over = over_span.reset(), 0.0, False
            while not over:
                action, _ = self.model.predict(obs, deterministic=True)
                obs, reward, terminated, truncated, _ = over_span.step(action)
                total, over = total + reward, terminated or truncated
            if total >= level:
                self.taken = stopped - self.began - self.aside
            self.aside += time.perf_counter() - stopped

    seed = 0

    def run() -> float:
        nonlocal seed
        seed += 1
        model = PPO("MlpPolicy", _numpy_markets.NumpyTrading(params), seed=seed, device="cpu")
        watch = Watch()
        model.learn(case["peer_most_steps"], callback=watch)
        return watch.taken

    return run
