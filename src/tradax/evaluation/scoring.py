"""Mean return of a policy over fresh episodes of any environment."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from tradax.data.splits import Span
from tradax.errors import ConfigError, TradaxError
from tradax.protocols import Actor, Policy, Source
from tradax.rollout import JaxSource
from tradax.sources import source_of

HOST_ENVS = 20  # side by side, where they are stepped on the host
LONGEST = 10_000
"""Steps after which an episode of validation is cut off."""


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
        env: a gymnax name, "gymnasium:ID", (environment, parameters), an environment object, or a
            source. On the host, 20 environments play one episode after the other.
        max_steps: episodes that have not ended by then are cut off.

    Raises:
        TradaxError: the policy was made for other observations or actions, or there would be
            nothing to play.
    """
    for name, number in (("episodes", episodes), ("max_steps", max_steps)):
        if not isinstance(number, int | np.integer) or number < 1:
            raise ConfigError(f"{name} is {number}; it must be a whole number of at least 1")
    source = source_of(env, num_envs=min(episodes, HOST_ENVS))
    if source.jittable:
        source = source.of(episodes)
    if source.spec != policy.spec:
        raise TradaxError(
            f"the policy was made for {policy.spec}, the environment has {source.spec}"
        )
    actor = policy.actor(sample=not deterministic)
    key = jax.random.key(seed)
    rounds = -(-episodes // source.num_envs)
    keys = [key] if rounds == 1 else list(jax.random.split(key, rounds))
    played = [play(source, actor, key, max_steps) for key in keys]
    returns, lengths = (np.concatenate(x)[:episodes] for x in zip(*played, strict=True))
    return Score(float(returns.mean()), float(returns.std()), returns, lengths)


def play(source: Source, actor: Actor, key: jax.Array, limit: int) -> tuple[jax.Array, jax.Array]:
    """One episode in every environment, compiled where that is possible; see `Source.episodes`."""
    if source.jittable:
        return episodes_jit(source, actor, key, limit)
    return source.episodes(actor, key, limit)


def span_return(source: JaxSource, over_span: Callable, span: Span, policy: Policy) -> jax.Array:
    """What a policy makes of one walk over a span, deterministically.

    Args:
        source: a market on given bars. over_span: its module's.
    """
    return whole_return(replace(source, params=over_span(source.params, span)), span.rows, policy)


def whole_return(source: JaxSource, rows: int, policy: Policy) -> jax.Array:
    """`span_return` where the parameters are over the span, which has so many rows, already."""
    walked = source.of(1)
    return walked.episodes(policy.actor(sample=False), jax.random.key(0), rows)[0][0]


@eqx.filter_jit
def episodes_jit(source: Source, actor, key: jax.Array, limit: int):
    """`source.episodes`, compiled once for each shape."""
    return source.episodes(actor, key, limit)
