"""TD3 and SAC of Stable-Baselines3 and SBX on Pendulum-v1, timed on request.

    python -m benchmarks._off_policy_peers LIBRARY ALGORITHM WIDTH STEPS [THREADS]

Runs in the peers' environment (`benchmarks._peers`).
"""

import importlib
import sys

import gymnasium

from benchmarks._peers import serve


def main() -> None:
    library, algorithm, width, steps, *threads = sys.argv[1:]
    options = {}
    if threads:
        import torch

        torch.set_num_threads(int(threads[0]))
        options["device"] = "cpu"
    model = getattr(importlib.import_module(library), algorithm.upper())(
        "MlpPolicy",
        gymnasium.make("Pendulum-v1"),
        batch_size=256,
        learning_starts=100,
        train_freq=1,
        gradient_steps=1,
        buffer_size=200_000,
        policy_kwargs={"net_arch": [int(width), int(width)]},
        seed=0,
        **options,
    )
    model.learn(150)  # past the random actions
    serve(int(steps), lambda: model.learn(int(steps), reset_num_timesteps=False))


if __name__ == "__main__":
    main()
