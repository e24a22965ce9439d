"""Memory over a long run: CHUNKS chunks of one update each (from the environment; 10^6 by default).

A day of training is some 350,000 chunks of a quarter of a second. All that is done between them
is done here too: rows, TensorBoard, a checkpoint a second. Prints the resident memory along the
way, and its growth from a tenth of the run, when everything has been seen once, to its end.
"""

import os
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from tradax import hooks, training
from tradax.algorithms import ppo
from tradax.envs.probes import Bandit
from tradax.rollout import jax_source


class Memory(training.Hook):
    """Prints the resident memory twenty times."""

    def __init__(self, chunks: int):
        self.megabytes: list[float] = []
        self._every, self._count = max(1, chunks // 20), 0

    def on_tick(self, timesteps: int, steps_per_second: float) -> None:
        self._count += 1
        if self._count % self._every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.megabytes.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
            print(f"{self._count:>9,} chunks  {self.megabytes[-1]:.1f} MiB", flush=True)


def main() -> None:
    chunks = int(os.environ.get("CHUNKS", "1000000"))
    training._CHUNK_SECONDS = 0.0
    config = ppo.Config(num_envs=1, n_steps=2, minibatches=1, epochs=1, hidden_sizes=())
    source = jax_source(Bandit(), num_envs=config.num_envs)
    algorithm = ppo.make(config, source.spec, jnp.float32(1))
    memory = Memory(chunks)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = folder / "metrics.jsonl"
        saving = hooks.Checkpoints(folder / "checkpoints", seconds=1, beside=[rows])
        training.train(
            algorithm,
            source,
            jax.random.key(0),
            total_timesteps=chunks * algorithm.steps_per_update,
            hooks=[saving, hooks.MetricsFile([rows]), hooks.TensorBoard([folder / "tb"]), memory],
        )
        saving.close()
    first, last = memory.megabytes[1], memory.megabytes[-1]
    print(
        f"{chunks:,} chunks in {time.monotonic() - began:.0f} s: {first:.1f} -> {last:.1f} MiB, "
        f"{last / first - 1:+.2%}"
    )


if __name__ == "__main__":
    main()
