"""Learn to sell a million shares in five days where trading is sometimes halted."""

import jax
import jax.numpy as jnp

from tradax import training
from tradax.algorithms import ppo
from tradax.envs import execution
from tradax.envs.execution_baselines import baselines
from tradax.evaluation.execution import assess
from tradax.rollout import jax_source

env, params = execution.make(
    execution.Config(
        volume_profile="u_shaped", impact_exponent=0.6, temporary_impact=1e-3, halt_probability=0.2
    )
)
options = ppo.Config(n_steps=60, gamma=1.0, gae_lambda=1.0, initial_log_std=-2.0)
source = jax_source(env, params, num_envs=options.num_envs)
algorithm = ppo.make(options, source.spec, jnp.float32(1))
learned = training.train(algorithm, source, jax.random.key(0), total_timesteps=500_000).policy

print(f"{'':>16} {'shortfall $':>12} {'+-':>7} {'sd $':>11} {'bps':>6} {'E + lambda V $':>15}")
for name, policy in {**baselines(env, params), "ppo": learned}.items():
    r = assess(policy, env, params)
    print(
        f"{name:>16} {r.shortfall:12,.0f} {r.standard_error:7,.0f} {r.sd:11,.0f} {r.bps:6.1f} "
        f"{r.objective:15,.0f}"
    )
