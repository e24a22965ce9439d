"""Episodes on given bars: anywhere in a span of rows to train, once through it to evaluate."""

import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from tradax.data.pipeline import Market
from tradax.data.splits import Span
from tradax.draws import random_integer
from tradax.errors import DataError


@struct.dataclass
class SpanParams:
    """Which rows episodes visit; the parameters of an environment add to it."""

    first_row: jax.Array
    last_row: jax.Array
    """The span of rows that may be visited, both inclusive."""
    episode_length: jax.Array
    random_start: jax.Array
    """False: every episode starts at `first_row`."""


Params = TypeVar("Params", bound=SpanParams)


def over_span(params: Params, span: Span) -> Params:
    """The same market, walked once from the first to the last row of `span`."""
    return dataclasses.replace(
        params,
        first_row=jnp.int32(span.first),
        last_row=jnp.int32(span.last),
        episode_length=jnp.int32(span.last - span.first + 1),
        random_start=jnp.bool_(False),
    )


def start_row(key: jax.Array, params: SpanParams, stream: int = 0) -> jax.Array:
    """The row where an episode starts, such that all of it lies in the span.

    Args:
        stream: see `random_integer`.
    """
    room = jnp.maximum(params.last_row - params.first_row - params.episode_length, 0)
    return params.first_row + random_integer(key, room + 1, stream) * params.random_start


def shared_rows(markets: tuple[Market, ...]) -> int:
    """The number of rows that each of several symbols has.

    Raises:
        DataError: they are of different length.
    """
    rows = {len(market.close) for market in markets}
    if len(rows) > 1:
        raise DataError("symbols of different length cannot share an environment")
    return rows.pop()
