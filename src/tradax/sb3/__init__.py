"""Stable-Baselines3's calls on tradax: change one import and go on.

    from tradax.sb3 import PPO

    model = PPO("MlpPolicy", "CartPole-v1", seed=0).learn(100_000)
    model.save("policy.zip")            # Stable-Baselines3 opens it

`install()` does the same for programs that import `stable_baselines3` themselves.
"""

from tradax.sb3._algorithms import A2C, DDPG, PPO, SAC, TD3, TRPO
from tradax.sb3._evaluation import evaluate_policy
from tradax.sb3._install import install, uninstall
from tradax.sb3._vec_normalize import load_vec_normalize, save_vec_normalize

__all__ = [
    "A2C",
    "DDPG",
    "PPO",
    "SAC",
    "TD3",
    "TRPO",
    "evaluate_policy",
    "install",
    "load_vec_normalize",
    "save_vec_normalize",
    "uninstall",
]
