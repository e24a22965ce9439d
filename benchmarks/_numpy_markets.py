"""`trading` and `portfolio` with their default options, as one writes them in plain numpy.

tests/test_benchmarks.py holds them against ours, step by step.
"""

import abc
from typing import Any

import gymnasium
import numpy as np


class _OnRows(gymnasium.Env, abc.ABC):
    """Episodes that begin anywhere in the span of `params` and go from row to row."""

    def __init__(self, params: Any, actions: int, limit: float, account: int):
        self.table = np.asarray(params.table)
        size = self.table.shape[1] + account
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-limit, limit, (actions,), np.float32)
        self.first, self.last = int(params.first_row), int(params.last_row)
        self.episode_length = int(params.episode_length)
        self.random_start = bool(params.random_start)
        self.initial_cash = float(params.initial_cash)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        room = max(self.last - self.first - self.episode_length, 0)
        self.row = self.first + int(self.np_random.integers(room + 1)) * self.random_start
        self.time, self.worth = 0, self.initial_cash
        self.begin()
        return self.observe(), {}

    def step(self, action):
        reward = self.trade(action)
        self.row += 1
        self.time += 1
        over = self.time >= self.episode_length or self.row >= self.last
        return self.observe(), reward, bool(self.worth <= 0.1 * self.initial_cash), over, {}

    def observe(self):
        return np.concatenate([self.table[self.row], self.account()]).astype(np.float32)

    @abc.abstractmethod
    def begin(self): ...

    @abc.abstractmethod
    def trade(self, action) -> float: ...

    @abc.abstractmethod
    def account(self): ...


class NumpyTrading(_OnRows):
    def __init__(self, params: Any):
        super().__init__(params, 2, 1.0, 3)
        quotes = np.asarray(params.quotes, np.float64)
        self.close, self.next_open, self.next_close = quotes[:, 0], quotes[:, 1], quotes[:, 4]
        self.fee, self.half = float(params.commission), float(params.half_spread)

    def begin(self):
        self.cash, self.shares, self.entry = self.worth, 0.0, 0.0

    def trade(self, action):
        price, fraction = self.next_open[self.row], (action[1] + 1) / 2
        if action[0] > 1 / 3:
            paid = price * (1 + self.half) * (1 + self.fee)
            bought = fraction * self.cash / paid
            if bought > 0:
                filled = price * (1 + self.half)
                total = self.shares + bought
                self.entry = (self.shares * self.entry + bought * filled) / total
            self.cash -= bought * paid
            self.shares += bought
        elif action[0] < -1 / 3:
            sold = fraction * self.shares
            self.cash += sold * price * (1 - self.half) * (1 - self.fee)
            self.shares -= sold
        worth = self.cash + self.shares * self.next_close[self.row]
        reward = float(np.log(worth / self.worth))
        self.worth = worth
        return reward

    def account(self):
        close = self.close[self.row]
        gain = close / self.entry - 1 if self.shares > 0 else 0.0
        return np.array([self.shares * close / self.worth, self.cash / self.worth, gain])


class NumpyPortfolio(_OnRows):
    def __init__(self, params: Any):
        self.moves = np.asarray(params.moves, np.float64)
        self.cost = float(params.cost)
        assets = self.moves.shape[2]
        super().__init__(params, assets + 1, 10.0, assets + 1)

    def begin(self):
        self.weights = np.zeros(self.moves.shape[2])

    def trade(self, action):
        power = np.exp(np.asarray(action, np.float64) - np.max(action))
        target = power[:-1] / power.sum()
        to_fill, to_close = self.moves[self.row]
        first, held = self._hold(self.weights, to_fill)
        _, wanted = self._hold(target, to_fill)
        spent = 0.0
        for _ in range(3):
            side = np.sign(wanted * (1 - spent) - held)
            spent = self.cost * (side @ (wanted - held)) / (1 + self.cost * (side @ wanted))
        second, self.weights = self._hold(wanted, to_close)
        growth = (1 + first) * (1 + second) * (1 - spent)
        self.worth *= growth
        return float(np.log(growth))

    @staticmethod
    def _hold(weights, moves):
        gain = weights @ moves
        return gain, weights * (1 + moves) / (1 + gain)

    def account(self):
        return np.append(self.weights, 1 - self.weights.sum())
