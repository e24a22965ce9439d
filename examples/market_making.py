"""Learn to quote both sides of a market, and compare with Avellaneda and Stoikov's closed form."""

import jax
import jax.numpy as jnp

from tradax import training
from tradax.algorithms import ppo
from tradax.envs import market_making
from tradax.envs import market_making_baselines as baselines
from tradax.evaluation.market_making import assess
from tradax.rollout import jax_source

env, params = market_making.make(market_making.Config(reward="expected"))
config = ppo.Config(num_envs=128, n_steps=100, gamma=1.0, initial_log_std=-1.0)
source = jax_source(env, params, num_envs=config.num_envs)
algorithm = ppo.make(config, source.spec, jnp.float32(1))
result = training.train(algorithm, source, jax.random.key(0), total_timesteps=1_000_000)

for name, policy in {**baselines.baselines(env, params), "ppo": result.policy}.items():
    r = assess(policy, env, params)
    print(
        f"{name:20} spread {r.spread:5.2f}  profit {r.profit:6.2f} (sd {r.sd:5.2f})  "
        f"final inventory sd {r.inventory_sd:4.1f}  utility {r.utility:6.2f}"
    )
