"""PPO steps a second: tradax against Stable-Baselines3, in alternation in one run.

Market: one asset, 5,031 daily bars, window 10; Stable-Baselines3 steps an equivalent plain numpy
environment. CartPole: gymnax against Gymnasium. 64x64 tanh, 4 epochs, minibatches of the same
number of steps on both sides of a row. Steady speed: compilation and the first update are not
counted.
"""

import os
import time

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from tradax import training
from tradax.algorithms import ppo
from tradax.data import features, samples
from tradax.data.pipeline import Pipeline
from tradax.envs import trading
from tradax.rollout import jax_source

REPEATS = 3


class NumpyTrading(gymnasium.Env):
    """`trading` with its default options, as one writes it in numpy."""

    def __init__(self, market, span, episode_length=252):
        size = market.table.shape[1] + 3
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.market, self.span, self.episode_length = market, span, episode_length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        last = self.span.last - self.episode_length
        self.row = int(self.np_random.integers(self.span.first, last + 1))
        self.time, self.cash, self.shares, self.entry = 0, 100_000.0, 0.0, 0.0
        self.worth = self.cash
        return self._observe(), {}

    def step(self, action):
        m, fraction = self.market, (action[1] + 1) / 2
        price = m.open[self.row + 1]
        if action[0] > 1 / 3:
            bought = fraction * self.cash / (price * 1.0001 * 1.0005)
            if bought > 0:
                total = self.shares + bought
                self.entry = (self.shares * self.entry + bought * price) / total
            self.cash -= bought * price * 1.0001 * 1.0005
            self.shares += bought
        elif action[0] < -1 / 3:
            sold = fraction * self.shares
            self.cash += sold * price * 0.9999 * 0.9995
            self.shares -= sold
        self.row += 1
        self.time += 1
        worth = self.cash + self.shares * m.close[self.row]
        reward = float(np.log(worth / self.worth))
        self.worth = worth
        truncated = self.time >= self.episode_length or self.row >= self.span.last
        return self._observe(), reward, bool(worth <= 10_000), truncated, {}

    def _observe(self):
        close = self.market.close[self.row]
        weight = self.shares * close / self.worth
        gain = close / self.entry - 1 if self.shares > 0 else 0.0
        account = [weight, self.cash / self.worth, gain]
        return np.concatenate([self.market.table[self.row], account]).astype(np.float32)


def ours(source, config, steps):
    algorithm = ppo.make(config, source.spec, jnp.float32(1))
    result = training.train(algorithm, source, jax.random.key(0), total_timesteps=steps)
    return result.steps_per_second


def theirs(make_env, num_envs, n_steps, batch_size, steps):
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    torch.set_num_threads(os.cpu_count() or 1)
    model = PPO(
        "MlpPolicy",
        DummyVecEnv([make_env] * num_envs),
        n_steps=n_steps,
        batch_size=batch_size,
        n_epochs=4,
        device="cpu",
        seed=0,
    )
    model.learn(n_steps * num_envs)
    start = time.perf_counter()
    model.learn(steps)
    return model.num_timesteps / (time.perf_counter() - start)


def main() -> None:
    bars = samples.load("sp500")
    pipeline = Pipeline.fit(bars, features.Config(window=10))
    (market,) = pipeline.transform(bars)
    span = pipeline.splits.train
    env, params = trading.make(trading.Config(), market, span)
    width = market.table.shape[1]
    wide = {"num_envs": 256, "n_steps": 64, "minibatches": 4}
    small = {"num_envs": 8, "n_steps": 64, "minibatches": 4}
    rows = []
    for name, options, source_of, numpy_env in (
        (f"trading, F = {width}", wide, lambda n: jax_source(env, params, num_envs=n), None),
        (
            f"trading, F = {width}",
            small,
            lambda n: jax_source(env, params, num_envs=n),
            lambda: NumpyTrading(market, span),
        ),
        (
            "CartPole-v1",
            {"num_envs": 8, "n_steps": 32, "minibatches": 1},
            lambda n: jax_source("CartPole-v1", num_envs=n),
            lambda: gymnasium.make("CartPole-v1"),
        ),
        (
            "CartPole-v1",
            {"num_envs": 64, "n_steps": 128, "minibatches": 4},
            lambda n: jax_source("CartPole-v1", num_envs=n),
            None,
        ),
    ):
        config = ppo.Config(**options)
        source = source_of(config.num_envs)
        batch = config.num_envs * config.n_steps // config.minibatches
        our_speed, their_speed = [], []
        for _ in range(REPEATS):
            our_speed.append(ours(source, config, 120 * config.num_envs * config.n_steps))
            if numpy_env is not None:
                their_speed.append(
                    theirs(numpy_env, config.num_envs, config.n_steps, batch, 20_000)
                )
        a = np.median(our_speed)
        b = np.median(their_speed) if their_speed else None
        rows.append((name, config.num_envs, config.n_steps, batch, a, b))
    print("| environment | envs | steps | minibatch | tradax | Stable-Baselines3 | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, envs, steps, batch, a, b in rows:
        right = f"{b:,.0f} | {a / b:.0f}x" if b else "- | -"
        print(f"| {name} | {envs} | {steps} | {batch} | {a:,.0f} | {right} |")


if __name__ == "__main__":
    main()
