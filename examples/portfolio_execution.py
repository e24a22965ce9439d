"""Learn to sell one asset and to buy another back, where a liquid third one can hedge them."""

import jax
import jax.numpy as jnp

from tradax import training
from tradax.algorithms import ppo
from tradax.envs import portfolio_execution
from tradax.envs.portfolio_execution_baselines import baselines
from tradax.evaluation.portfolio_execution import assess
from tradax.rollout import jax_source

config = portfolio_execution.Config(
    shares=(1_000_000, -300_000, 0),
    initial_prices=(50, 80, 100),
    volatilities=(1.0, 1.4, 1.5),
    correlation=0.6,
    temporary_impacts=(2.5e-6, 4e-6, 2e-7),
    permanent_impacts=(2.5e-7, 4e-7, 2e-8),
    half_spreads=(0.05, 0.05, 0.01),
)
env, params = portfolio_execution.make(config)
options = ppo.Config(n_steps=60, gamma=1.0, gae_lambda=1.0, initial_log_std=-2.0)
source = jax_source(env, params, num_envs=options.num_envs)
algorithm = ppo.make(options, source.spec, jnp.float32(1))
learned = training.train(algorithm, source, jax.random.key(0), total_timesteps=500_000).policy

print(f"{'':>16} {'shortfall $':>12} {'+-':>7} {'sd $':>11} {'E + lambda V $':>15}  after step 1")
for name, policy in {**baselines(env, params), "ppo": learned}.items():
    r = assess(policy, env, params)
    left = " ".join(f"{shares:10,.0f}" for shares in r.trajectory[1])
    print(
        f"{name:>16} {r.shortfall:12,.0f} {r.standard_error:7,.0f} {r.sd:11,.0f} "
        f"{r.objective:15,.0f}  {left}"
    )
print("optimum:", f"{portfolio_execution.closed_form(config).utility():,.0f}")
