"""Markets whose best possible Sharpe ratio is known: daily bars with a signal of two states.

    1 + r_{t+1} = (1 + drift + edge s_t) exp(sigma e_t - sigma^2 / 2)      e_t ~ Normal(0, 1)

s_t is -1 or 1, is known at the close of bar t, and changes with probability SWITCH a bar; sigma is
16% a year. With an edge of 0 the signal is noise. A bar opens at the close before it, so that an
order of bar t is filled at the price which the agent has seen, and earns r_{t+1}.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tradax.data.bars import Bars
from tradax.envs import discrete_trading

DAYS = 252
SIGMA = 0.16 / DAYS**0.5
SWITCH = 0.02


class Process(NamedTuple):
    """Simple returns a bar."""

    drift: float = 0.0
    edge: float = 0.0


def simulated(process: Process, symbols: int, bars: int, seed: int | Sequence[int]) -> Bars:
    """That many independent markets on one calendar."""
    rng = np.random.default_rng(seed)
    changed = rng.random((symbols, bars)) < SWITCH
    signal = rng.choice([-1.0, 1.0], (symbols, 1)) * (-1.0) ** np.cumsum(changed, axis=1)
    noise = np.exp(SIGMA * rng.standard_normal((symbols, bars)) - SIGMA**2 / 2.0)
    growth = (1.0 + process.drift + process.edge * signal) * noise
    # s_t moves the bar after t.
    growth = np.concatenate([np.ones((symbols, 1)), growth[:, :-1]], axis=1)
    close = 100.0 * np.cumprod(growth, axis=1)
    opened = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
    calendar = np.busday_offset(np.datetime64("1990-01-01"), np.arange(bars))
    return Bars(
        tuple(f"M{i:03d}" for i in range(symbols)),
        calendar.astype("datetime64[us]"),
        opened,
        np.maximum(opened, close),
        np.minimum(opened, close),
        close,
        np.full_like(close, 1e6),
        signals={"signal": signal},
        has_range=True,
        has_volume=True,
        source="planted",
    )


def best_sharpe(edge: float, drift: float = 0.0) -> float:
    """Annual, after costs, of the best of all rules that are long or out of the market.

    Signal and position are all that is worth knowing, as the signal is Markov: a rule gives each
    of four states one of two positions, and there are 16. Each is a Markov chain whose stationary
    mean and deviation of a bar's return are exact. Default costs of `discrete_trading`.
    """
    config = discrete_trading.Config()
    fee, half = config.commission_bps * 1e-4, config.half_spread_bps * 1e-4
    states = list(itertools.product((-1, 1), (0, 1)))  # signal, position
    found = []
    for rule in itertools.product((0, 1), repeat=4):
        chain = np.zeros((4, 4))
        first, second = np.zeros(4), np.zeros(4)  # moments of 1 + return
        for i, (signal, position) in enumerate(states):
            target = rule[i]
            for j, (following, then) in enumerate(states):
                if then == target:
                    chain[i, j] = 1.0 - SWITCH if following == signal else SWITCH
            kept = 1.0
            if target > position:
                kept = 1.0 / ((1.0 + half) * (1.0 + fee))
            elif target < position:
                kept = (1.0 - half) * (1.0 - fee)
            mean = 1.0 + target * (drift + edge * signal)
            square = mean**2 * (np.exp(SIGMA**2) if target else 1.0)
            first[i], second[i] = kept * mean, kept**2 * square
        # Long run from being out of the market, whichever the signal.
        start = np.array([0.5, 0.0, 0.5, 0.0])
        share = start @ np.linalg.matrix_power(chain, 2**14)
        mean = share @ first - 1.0
        variance = share @ second - (1.0 + mean) ** 2
        found.append(mean / np.sqrt(variance) if variance > 1e-12 else 0.0)
    return float(max(found) * DAYS**0.5)


def edge_for(sharpe: float) -> float:
    """The edge whose best possible Sharpe ratio this is, by bisection."""
    low, high = 0.0, 0.01
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if best_sharpe(middle) < sharpe else (low, middle)
    return (low + high) / 2.0
