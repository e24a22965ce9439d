"""Soft actor-critic on a continuous task, three seeds in one program, then the best one acts."""

import jax
import jax.numpy as jnp

from tradax import training
from tradax.algorithms import sac
from tradax.rollout import jax_source

SEEDS = 3
options = sac.Config(replay_size=20_000)
source = jax_source("Pendulum-v1", num_envs=options.num_envs)
algorithm = sac.make(options, source.spec, jnp.float32(1))
print(f"replay buffers: {SEEDS * algorithm.memory() / 1e6:.1f} MB")
learned = training.train(
    algorithm,
    source,
    jax.random.split(jax.random.key(0), SEEDS),
    total_timesteps=10_000,
    members=SEEDS,
    shared_source=True,
).policy

test = jax_source("Pendulum-v1", num_envs=100)
for seed in range(SEEDS):
    policy = jax.tree.map(lambda x, i=seed: x[i], learned)
    returns, _ = test.episodes(policy.actor(sample=False), jax.random.key(1), 200)
    print(f"seed {seed}: mean return {float(returns.mean()):.0f}")
print("action", policy.act(jnp.array([1.0, 0.0, 0.0])), "at the top, at rest")
