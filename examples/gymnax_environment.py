"""Train on an environment that is not a market, save the policy, load it and act."""

import jax.numpy as jnp

import tradax

result = tradax.train(env="CartPole-v1", total_timesteps=150_000, seed=1)
print("mean return", result.summary["mean_return"])

policy = tradax.load_policy(result.run_dir / "policy.zip")
print("action", int(policy.act(jnp.zeros(4))))
print(tradax.evaluate(policy, "CartPole-v1", episodes=100, seed=0).mean)
