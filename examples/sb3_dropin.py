"""Stable-Baselines3's calls on a market: learn on the device, evaluate, save, open, act."""

import gymnasium

import tradax.envs  # registers the markets
from tradax.sb3 import PPO, evaluate_policy

env = gymnasium.make("tradax/Trading-v0", data="sp500", commission_bps=2.0)
model = PPO("MlpPolicy", env, seed=0).learn(40_960)

unseen = gymnasium.make("tradax/Trading-v0", data="sp500", commission_bps=2.0, span="test")
print("return on years never seen:", evaluate_policy(model, unseen, n_eval_episodes=1)[0])

model.save("ppo_trading")  # Stable-Baselines3 opens ppo_trading.zip too
model = PPO.load("ppo_trading")
obs, _ = unseen.reset(seed=0)
action, _ = model.predict(obs, deterministic=True)
print("first action:", action)
print("markets:", ", ".join(tradax.envs.register()))
