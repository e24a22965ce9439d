"""Learn how much of a fortune to put into a risky asset, where Merton's answer is known."""

import jax
import jax.numpy as jnp

from tradax import training
from tradax.algorithms import ppo
from tradax.envs import simulated_portfolio
from tradax.envs.simulated_portfolio_baselines import baselines
from tradax.evaluation.simulated_portfolio import assess
from tradax.rollout import jax_source

config = simulated_portfolio.Config(
    process="gbm,drift=0.08,volatility=0.4", cash_rate=0.02, reward="expected_growth"
)
env, params = simulated_portfolio.make(config)
options = ppo.Config(gamma=0.0, gae_lambda=0.0, initial_log_std=-1.0)
source = jax_source(env, params, num_envs=options.num_envs)
algorithm = ppo.make(options, source.spec, jnp.float32(1))
learned = training.train(algorithm, source, jax.random.key(0), total_timesteps=300_000).policy

for name, policy in {**baselines(env, params), "ppo": learned}.items():
    r = assess(policy, env, params)
    print(
        f"{name:>12}: weight {r.weights[0]:.3f}, growth {r.growth:.3%} +- {r.growth_error:.3%} "
        f"a year, volatility {r.volatility:.1%}"
    )
