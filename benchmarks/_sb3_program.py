"""A program as users of Stable-Baselines3 write it; `sb3_dropin` runs it with and without tradax.

    python -m benchmarks._sb3_program ALGORITHM ENVIRONMENTS STEPS

Prints seconds of the first update, where programs are compiled, and of STEPS steps after it.
"""

import json
import sys
import time

import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env

import tradax.envs  # noqa: F401 registers tradax/Trading-v0


def main() -> None:
    name, environments, steps, *threads = sys.argv[1:]
    if threads:
        torch.set_num_threads(int(threads[0]))
    env = make_vec_env("tradax/Trading-v0", int(environments), env_kwargs={"data": "sp500"})
    model = getattr(stable_baselines3, name)("MlpPolicy", env, seed=0, device="cpu")
    began = time.perf_counter()
    model.learn(300 if name == "SAC" else 1)
    first = time.perf_counter()
    before = model.num_timesteps
    model.learn(int(steps), reset_num_timesteps=False)
    taken = model.num_timesteps - before
    print(json.dumps({"first": first - began, "speed": taken / (time.perf_counter() - first)}))


if __name__ == "__main__":
    main()
