"""On what genetic algorithms are compared, the same for all of them."""

from typing import Any

import jax.numpy as jnp

HIDDEN = (64, 64)
SPREAD = 0.02
"""Deviation of a mutation."""


def cartpole(fall: bool = False) -> tuple[Any, Any, int, int]:
    """Returns: environment, parameters, population, steps of an episode.

    Args:
        fall: whether a pole can. Where it cannot, every episode takes all its steps.
    """
    from tradax.rollout import gymnax_environment

    env, params = gymnax_environment("CartPole-v1")
    if not fall:
        never = jnp.float32(1e30)
        params = params.replace(x_threshold=never, theta_threshold_radians=never)
    return env, params, 1_024, 500


def market() -> tuple[Any, Any, int, int]:
    """The same of `trading`: 400 features of daily prices, episodes of a year."""
    from tradax.data import features, samples
    from tradax.data.pipeline import Pipeline
    from tradax.envs import trading

    bars = samples.load("sp500")
    pipeline = Pipeline.fit(bars, features.Config(window=34))
    (market,) = pipeline.transform(bars)
    market = market._replace(table=market.table[:, :400])
    env, params = trading.make(trading.Config(), market, pipeline.splits.train)
    return env, params, 256, 252


CASES = {
    "cartpole": cartpole,
    "cartpole_falling": lambda: cartpole(fall=True),
    "trading": market,
}
