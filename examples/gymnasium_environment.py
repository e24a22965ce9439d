"""Train on a Gymnasium environment of one's own, act in it, and step a market through Gymnasium."""

import gymnasium
import numpy as np

import tradax
from tradax.envs import from_gymnasium


class Corridor(gymnasium.Env):
    """Walk from -1 to 1: the reward is what the step brings nearer, minus its square."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.time = -1.0, 0
        return np.float32([self.place]), {}

    def step(self, action):
        before, self.place, self.time = self.place, self.place + float(action[0]), self.time + 1
        reward = abs(1.0 - before) - abs(1.0 - self.place) - float(action[0]) ** 2
        return np.float32([self.place]), reward, self.place >= 1.0, self.time >= 20, {}


settings = {"ppo": {"n_steps": 64, "minibatches": 4}}
result = tradax.train(
    env=from_gymnasium(Corridor, num_envs=8), settings=settings, total_timesteps=40_000
)
print("mean return", result.summary["mean_return"])

env = Corridor()
obs, _ = env.reset(seed=0)
print("first step", np.asarray(result.policy.act(obs)))

market = gymnasium.make("tradax/Trading-v0", data="sp500", commission_bps=2.0)
obs, _ = market.reset(seed=0)
obs, reward, terminated, truncated, info = market.step(np.float32([1.0, 1.0]))
print("net worth", info["net_worth"])
