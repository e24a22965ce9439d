"""SBX, Stable-Baselines3's interface on JAX: its classes in the same calls."""

from collections.abc import Callable
from typing import Any

from sbx import PPO, SAC, TD3

from benchmarks.peers import sb3


def make(case: dict[str, Any]) -> tuple[int, Callable]:
    return sb3.make(case, {"ppo": PPO, "sac": SAC, "td3": TD3})
