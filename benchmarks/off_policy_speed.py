"""Off-policy steps a second on Pendulum-v1: tradax, Stable-Baselines3 and, if installed, SBX.

One environment, one gradient step a step, batches of 256, equal networks; medians of alternating
runs, compilation and warm-up not counted. TD3 of tradax takes its two gradient steps after two
steps. The share is that of the measured peak of a 1024 x 1024 matrix product, counting the products
of the networks alone.
"""

import os
import time

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from tradax import training
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
    )
    return clock.speed * (members or 1)


def stable_baselines3(name: str, width: int, steps: int) -> float:
    """With one thread or all, whichever is faster."""
    import torch
    from stable_baselines3 import SAC, TD3

    found = []
    for threads in {1, os.cpu_count() or 1}:
        torch.set_num_threads(threads)
        arch = {"net_arch": [width, width]}
        found.append(_theirs({"sac": SAC, "td3": TD3}[name], arch, steps, device="cpu"))
    return max(found)


def sbx(name: str, width: int, steps: int) -> float | None:
    try:
        from sbx import SAC, TD3  # type: ignore[import-not-found]
    except ImportError:
        return None
    arch = {"net_arch": [width, width]}
    return _theirs({"sac": SAC, "td3": TD3}[name], arch, steps)


def _theirs(algorithm, policy_kwargs, steps: int, **options) -> float:
    model = algorithm(
        "MlpPolicy",
        gymnasium.make("Pendulum-v1"),
        batch_size=BATCH,
        learning_starts=100,
        train_freq=1,
        gradient_steps=1,
        buffer_size=200_000,
        policy_kwargs=policy_kwargs,
        seed=0,
        **options,
    )
    model.learn(150)
    began = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    return steps / (time.perf_counter() - began)


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
    best = peak()
    print(f"peak of a matrix product: {best / 1e9:.0f} GFLOP/s on {os.cpu_count()} cores\n")
    print(
        "| algorithm | networks | tradax | share of the peak | Stable-Baselines3 | ratio | SBX "
        f"| ratio | {SEEDS} seeds, in all |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for width, steps, peer_steps in ((64, 6_000, 400), (256, 2_000, 200)):
        for name in PRODUCTS:
            found = {"ours": [], "sb3": [], "sbx": [], "seeds": []}
            for _ in range(REPEATS):
                found["ours"].append(ours(name, width, steps))
                found["seeds"].append(ours(name, width, 1_200, SEEDS))
                found["sb3"].append(stable_baselines3(name, width, peer_steps))
                found["sbx"].append(sbx(name, width, peer_steps) or np.nan)
            mid = {who: float(np.median(speeds)) for who, speeds in found.items()}
            share = mid["ours"] * PRODUCTS[name] * 2 * BATCH * width**2 / best
            there = np.isfinite(mid["sbx"])
            peer = f"{mid['sbx']:,.0f} | {mid['ours'] / mid['sbx']:.1f}x" if there else "- | -"
            print(
                f"| {name} | {width}x{width} | {mid['ours']:,.0f} | {share:.0%} | "
                f"{mid['sb3']:,.0f} | {mid['ours'] / mid['sb3']:.1f}x | {peer} | "
                f"{mid['seeds']:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
