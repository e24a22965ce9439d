"""Off-policy steps a second on Pendulum-v1: tradax, Stable-Baselines3 and SBX.

One environment, one gradient step a step, batches of 256, equal networks; medians of alternating
runs, compilation and warm-up not counted. Eight seeds are shared out between a simulated device a
core, as `tradax sweep` does it. TD3 of tradax takes its two gradient steps after two steps. The
share is that of the measured peak of a 1024 x 1024 matrix product, counting the products of the
networks alone.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._peers import Peer
from tradax import parallel, training
from tradax.algorithms import sac, td3
from tradax.rollout import jax_source

REPEATS, SEEDS, BATCH, WARM_UP = 3, 8, 256, 300
# Products of batch x width x width in a gradient step: target, critics, policy, in this order.
# A forward pass counts 1, a backward one 2, and 1 where only the input's gradient is needed.
PRODUCTS = {"sac": 3 + 6 + 3 + 4, "td3": 3 + 6 + (3 + 2) / 2}
MODULES = {"sac": sac, "td3": td3}


class Clock(training.Hook):
    """When how many steps were done, once all are past the warm-up."""

    def __init__(self):
        self.seen = []

    def on_tick(self, timesteps, steps_per_second):
        if timesteps > 2 * WARM_UP:
            self.seen.append((time.perf_counter(), timesteps))

    @property
    def speed(self) -> float:
        (begin, first), (end, last) = self.seen[0], self.seen[-1]
        return (last - first) / (end - begin)


def ours(name: str, width: int, steps: int, members: int | None = None) -> float:
    """Steps a second, of all members."""
    module = MODULES[name]
    config = module.Config(hidden_sizes=(width, width), batch_size=BATCH, learning_starts=WARM_UP)
    source = jax_source("Pendulum-v1", num_envs=1)
    key = jax.random.key(0)
    clock = Clock()
    training.train(
        module.make(config, source.spec, jnp.float32(1)),
        source,
        key if members is None else jax.random.split(key, members),
        total_timesteps=steps,
        members=members,
        shared_source=True,
        hooks=[clock],
        log_rows=1,
        mesh=None if members is None else parallel.device_mesh(),
    )
    return clock.speed * (members or 1)


def peak() -> float:
    """Multiplications and additions a second of a matrix product."""
    n = 1024
    x = jnp.ones((n, n))
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    seconds = []
    for _ in range(30):
        began = time.perf_counter()
        product(x, x).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * n**3 / min(seconds)


def main() -> None:
    # In a process of its own: devices are simulated before anything of tradax is imported.
    program = (
        f"import jax; jax.config.update('jax_num_cpu_devices', {os.cpu_count()}); "
        "from benchmarks import off_policy_speed; off_policy_speed.measure()"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], check=True)


def measure() -> None:
    """Print the table."""
    best = peak()
    print(f"peak of a matrix product: {best / 1e9:.0f} GFLOP/s on {os.cpu_count()} cores\n")
    print(
        "| algorithm | networks | tradax | share of the peak | Stable-Baselines3 | ratio | SBX "
        f"| ratio | {SEEDS} seeds, in all |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for width, steps, peer_steps in ((64, 6_000, 400), (256, 3_000, 200)):
        for name in PRODUCTS:
            mid = {who: np.median(found) for who, found in speeds(name, width, steps, peer_steps)}
            share = mid["one"] * PRODUCTS[name] * 2 * BATCH * width**2 / best
            sb3 = max(speed for who, speed in mid.items() if who.startswith("sb3"))
            print(
                f"| {name} | {width}x{width} | {mid['one']:,.0f} | {share:.0%} | {sb3:,.0f} | "
                f"{mid['one'] / sb3:.1f}x | {mid['sbx']:,.0f} | {mid['one'] / mid['sbx']:.1f}x | "
                f"{mid['seeds']:,.0f} |",
                flush=True,
            )


def speeds(name: str, width: int, steps: int, peer_steps: int) -> Iterable[tuple[str, list[float]]]:
    """Steps a second of each, in alternation: Stable-Baselines3 with one thread and with all."""
    case = (name, str(width), str(peer_steps))
    found = {}
    with contextlib.ExitStack() as stack:
        rivals = {
            f"sb3 {threads}": stack.enter_context(
                Peer("_off_policy_peers", "stable_baselines3", *case, str(threads))
            )
            for threads in {1, os.cpu_count() or 1}
        }
        rivals["sbx"] = stack.enter_context(Peer("_off_policy_peers", "sbx", *case))
        for _ in range(REPEATS):
            found.setdefault("one", []).append(ours(name, width, steps))
            found.setdefault("seeds", []).append(ours(name, width, steps // 2, SEEDS))
            for who, rival in rivals.items():
                found.setdefault(who, []).append(rival.steps / rival.seconds())
    return found.items()


if __name__ == "__main__":
    main()
