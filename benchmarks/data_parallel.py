"""PPO's steps a second on one device and on two that the CPU simulates, in alternation.

Simulated devices share the cores on which one device computes with all of its threads, so this
shows what sharing an update costs, not what a second device gains. Steady speed: compilation is not
counted. The networks of both are compared after five updates.
"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from tradax import parallel, training
from tradax.algorithms import ppo
from tradax.data import features, samples
from tradax.data.pipeline import Pipeline
from tradax.envs import trading
from tradax.policies import flatten_policy
from tradax.rollout import jax_source

REPEATS, DEVICES, STEPS = 3, (1, 2), 1_000_000
CONFIG = ppo.Config(num_envs=256, n_steps=64, minibatches=4)
CASES = ("trading", "CartPole-v1")


def measure(case: str) -> None:
    """Print the rows of one environment; in a process whose devices are simulated."""
    if case == "trading":
        bars = samples.load("sp500")
        pipeline = Pipeline.fit(bars, features.Config(window=10))
        (market,) = pipeline.transform(bars)
        env, params = trading.make(trading.Config(), market, pipeline.splits.train)
        source = jax_source(env, params, num_envs=CONFIG.num_envs)
    else:
        source = jax_source(case, num_envs=CONFIG.num_envs)
    algorithm = ppo.make(CONFIG, source.spec, jnp.float32(1))

    def train(devices, steps):
        mesh = parallel.device_mesh(devices) if devices > 1 else None
        key = jax.random.key(0)
        return training.train(algorithm, source, key, total_timesteps=steps, mesh=mesh)

    short = 5 * algorithm.steps_per_update
    flat = {n: np.asarray(flatten_policy(train(n, short).policy)) for n in DEVICES}
    speeds: dict[int, list[float]] = {n: [] for n in DEVICES}
    for n in DEVICES * REPEATS:
        speeds[n].append(train(n, STEPS).steps_per_second)
    for n, measured in speeds.items():
        said = ", ".join(f"{x:,.0f}" for x in sorted(measured))
        apart = np.abs(flat[n] - flat[1]).max()
        print(f"| {case} | {n} | {np.median(measured):,.0f} | {said} | {apart:.1e} |")


def main() -> None:
    print("| environment | devices | median steps/s | all | largest difference of a parameter |")
    print("|---|---|---|---|---|", flush=True)
    flags = f"--xla_force_host_platform_device_count={max(DEVICES)}"
    for case in CASES:
        subprocess.run(
            [sys.executable, "-m", __name__, case],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
            check=True,
        )


if __name__ == "__main__":
    measure(sys.argv[1])
