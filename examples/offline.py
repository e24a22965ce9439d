"""Learn from what a mediocre policy left behind, without a step in the environment."""

import tradax

mediocre = tradax.train(env="CartPole-v1", total_timesteps=16_384, seed=0)
log = tradax.collect(mediocre.run_dir, path="cartpole.parquet", n_steps=200_000)
print(f"logged: {len(log):,} steps, mean return {log.returns.mean():.0f}")

# One evaluation, after the last update: no policy is chosen by playing.
learned = tradax.train(
    env="CartPole-v1", offline="cartpole.parquet", total_timesteps=400_000, evaluations=1
)
print("greedy, played 100 times:", learned.summary["mean_return"])
print("effective sample:", learned.summary["offline"]["effective_sample_fraction"])

# What would the learned policy have earned in short episodes? Estimated from another one's.
short = tradax.collect(mediocre.policy, "CartPole-v1", episodes=1_000, max_steps=500)
print(tradax.off_policy_value(learned.policy, short, method="per_decision", gamma=0.8))
played = tradax.collect(learned.policy, "CartPole-v1", episodes=1_000)
print(tradax.off_policy_value(learned.policy, played, gamma=0.8).logged_value)
