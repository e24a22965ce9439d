"""Rewards that weigh a bar's return against its risk, by running moments of the return."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class ReturnState:
    """What such rewards remember; the state of an environment adds to it."""

    time: jax.Array
    """Steps since the episode began."""
    mean: jax.Array
    square: jax.Array
    """Running moments of the return a bar."""


class Moments(NamedTuple):
    """First and second moment of the return a bar, and by what the last bar surprised them."""

    mean: jax.Array
    square: jax.Array
    delta_mean: jax.Array
    delta_square: jax.Array


def moments(state: ReturnState, change: jax.Array, rate: jax.Array) -> Moments:
    """The moments of `state`, moved on by a bar of return `change`.

    Args:
        rate: of adaptation.
    """
    delta_mean = change - state.mean
    delta_square = change**2 - state.square
    mean = state.mean + rate * delta_mean
    square = state.square + rate * delta_square
    return Moments(mean, square, delta_mean, delta_square)


def differential_sharpe(state: ReturnState, moved: Moments, rate: jax.Array) -> jax.Array:
    """Moody and Saffell (2001), eq. 14, scaled by the adaptation rate.

    Args:
        state: before the bar.
        moved: `moments` of the bar.
    """
    variance = jnp.maximum(state.square - state.mean**2, 1e-12)
    ratio = state.square * moved.delta_mean - 0.5 * state.mean * moved.delta_square
    # The moments mean nothing before they have seen 1 / rate bars.
    warm = state.time >= 1.0 / rate
    return rate * jnp.where(warm, ratio / variance**1.5, moved.delta_mean / jnp.sqrt(variance))
