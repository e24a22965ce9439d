"""Several arrays as one, where XLA would start a loop of its own for each of them."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_NARROW = 32  # numbers in a row of an array, up to which copying it costs less than a loop


def side_by_side(tree: Any) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any]]:
    """Arrays [N, ...], the narrow ones as columns of one matrix [N, W] for each type.

    Returns: the matrices and wide arrays, and a function that makes the tree of them again, also
        where they have other leading axes than [N].
    """
    arrays, structure = jax.tree.flatten(tree)
    narrow: dict[Any, list[int]] = {}
    wide = []
    for i, x in enumerate(arrays):
        (narrow.setdefault(x.dtype, []) if x.size <= _NARROW * x.shape[0] else wide).append(i)
    shapes = [x.shape[1:] for x in arrays]

    def unpack(packed: list[jax.Array]) -> Any:
        found = dict(zip(wide, packed[len(narrow) :], strict=True))
        for matrix, members in zip(packed, narrow.values(), strict=False):
            first = 0
            for i in members:
                last = first + math.prod(shapes[i])
                found[i] = matrix[..., first:last].reshape(*matrix.shape[:-1], *shapes[i])
                first = last
        return jax.tree.unflatten(structure, [found[i] for i in range(len(shapes))])

    matrices = [
        jnp.concatenate([arrays[i].reshape(arrays[i].shape[0], -1) for i in members], axis=1)
        for members in narrow.values()
    ]
    return [*matrices, *(arrays[i] for i in wide)], unpack


def apart(tree: Any) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any]]:
    """As `side_by_side`, every array by itself."""
    arrays, structure = jax.tree.flatten(tree)
    return arrays, structure.unflatten
