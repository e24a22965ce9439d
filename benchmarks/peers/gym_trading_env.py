"""gym-trading-env: its environment stepped with random positions, one asset, five features."""

from collections.abc import Callable
from typing import Any

import gym_trading_env.environments as library
import numpy as np
import pandas as pd


def make(case: dict[str, Any]) -> tuple[int, Callable[[], None]]:
    rng = np.random.default_rng(0)
    bars, steps = 5_000, case["peer_steps"]
    close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(bars)))
    frame = pd.DataFrame(
        dict.fromkeys(("open", "high", "low", "close"), close),
        index=pd.date_range("2000-01-03", periods=bars, freq="D"),
    )
    for i in range(5):
        frame[f"feature_{i}"] = rng.standard_normal(bars)
    env = library.TradingEnv(df=frame, positions=[0, 1], trading_fees=0.0005, verbose=0)
    actions = rng.integers(2, size=steps)

    def run():
        env.reset()
        for action in actions:
            if any(env.step(int(action))[2:4]):
                env.reset()

    return steps, run
