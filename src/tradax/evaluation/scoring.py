"""Mean return of a policy over fresh episodes of any environment."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from tradax.errors import TradaxError
from tradax.protocols import Policy, Source
from tradax.rollout import jax_source


class Score(NamedTuple):
    """Undiscounted return over episodes."""

    mean: float
    std: float
    returns: np.ndarray
    """[episodes]"""
    lengths: np.ndarray
    """[episodes], steps."""


def evaluate(
    policy: Policy,
    env: Any,
    *,
    episodes: int = 100,
    seed: int = 0,
    deterministic: bool = True,
    max_steps: int = 10_000,
) -> Score:
    """Play `episodes` episodes side by side.

    Args:
        env: a gymnax name, (environment, parameters), or an environment object.
        max_steps: episodes that have not ended by then are cut off.

    Raises:
        TradaxError: the policy was made for other observations or actions.
    """
    environment, params = env if isinstance(env, tuple) else (env, None)
    source = jax_source(environment, params, num_envs=episodes)
    if source.spec != policy.spec:
        raise TradaxError(
            f"the policy was made for {policy.spec}, the environment has {source.spec}"
        )
    actor = policy.actor(sample=not deterministic)
    returns, lengths = episodes_jit(source, actor, jax.random.key(seed), max_steps)
    returns, lengths = np.asarray(returns), np.asarray(lengths)
    return Score(float(returns.mean()), float(returns.std()), returns, lengths)


@eqx.filter_jit
def episodes_jit(source: Source, actor, key: jax.Array, limit: int):
    """`source.episodes`, compiled once for each shape."""
    return source.episodes(actor, key, limit)
