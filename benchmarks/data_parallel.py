"""PPO's steps a second on one device and on two that the CPU simulates, in programs of their own.

Simulated devices share the cores on which one device computes with all of its threads, so this
shows what sharing an update costs, not what a second device gains. Steady speed: compilation is not
counted. The networks of both are compared after equally many updates.
"""

import os
import subprocess
import sys
import tempfile

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

REPEATS, DEVICES, STEPS = 3, (1, 2), 1_500_000
CASES = {
    "trading": ppo.Config(num_envs=256, n_steps=64, minibatches=4),
    "CartPole-v1": ppo.Config(num_envs=256, n_steps=64, minibatches=4),
}


def measure(case: str, devices: int, file: str) -> None:
    """Train once, in a process whose devices are simulated; print the steps a second."""
    config = CASES[case]
    if case == "trading":
        bars = samples.load("sp500")
        pipeline = Pipeline.fit(bars, features.Config(window=10))
        (market,) = pipeline.transform(bars)
        env, params = trading.make(trading.Config(), market, pipeline.splits.train)
        source = jax_source(env, params, num_envs=config.num_envs)
    else:
        source = jax_source(case, num_envs=config.num_envs)
    algorithm = ppo.make(config, source.spec, jnp.float32(1))
    mesh = parallel.device_mesh(devices) if devices > 1 else None

    def train(steps):
        return training.train(
            algorithm, source, jax.random.key(0), total_timesteps=steps, mesh=mesh, evaluations=1
        )

    np.save(file, np.asarray(flatten_policy(train(5 * algorithm.steps_per_update).policy)))
    print(train(STEPS).steps_per_second)


def main() -> None:
    print("| environment | devices | median steps/s | all | largest difference of a parameter |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            speeds: dict[int, list[float]] = {devices: [] for devices in DEVICES}
            for devices in DEVICES * REPEATS:
                simulated = f"--xla_force_host_platform_device_count={devices}"
                done = subprocess.run(
                    [sys.executable, "-m", __name__, case, str(devices), f"{folder}/{devices}.npy"],
                    env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": simulated},
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                speeds[devices].append(float(done.stdout))
            one = np.load(f"{folder}/1.npy")
            for devices, measured in speeds.items():
                apart = np.abs(np.load(f"{folder}/{devices}.npy") - one).max()
                said = ", ".join(f"{x:,.0f}" for x in sorted(measured))
                print(f"| {case} | {devices} | {np.median(measured):,.0f} | {said} | {apart:.1e} |")


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]), sys.argv[3])
