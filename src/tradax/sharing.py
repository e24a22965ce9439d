"""Rows of a batch that the devices of a mesh share out between them.

Every device runs the same program on the same arrays. Where work can be split, each takes its
share of the rows, and what all of them found is gathered or averaged: then all hold the same again.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree


class Share(eqx.Module):
    """This device's share of rows that divide by the devices; on one device all of them."""

    axis: str | None = eqx.field(static=True, default=None)
    """Mesh axis over which the program is mapped (`parallel.everywhere`)."""

    @property
    def devices(self) -> int:
        return 1 if self.axis is None else jax.lax.axis_size(self.axis)

    def of(self, tree: Any, axis: int = 0) -> Any:
        """This device's rows of arrays that all devices hold."""
        if self.axis is None:
            return tree
        number = jax.lax.axis_index(self.axis)

        def mine(x):
            rows = x.shape[axis] // self.devices
            return jax.lax.dynamic_slice_in_dim(x, number * rows, rows, axis)

        return jax.tree.map(mine, tree)

    def gathered(self, tree: Any, axis: int = 0) -> Any:
        """All rows, of arrays of which every device holds its own: undoes `of`."""
        if self.axis is None:
            return tree
        return jax.lax.all_gather(tree, self.axis, axis=axis, tiled=True)

    def mean(self, tree: Any) -> Any:
        """The mean over devices of equally many rows each, of all arrays in one message."""
        if self.axis is None:
            return tree
        flat, unflatten = ravel_pytree(tree)
        return unflatten(jax.lax.pmean(flat, self.axis))

    def draw(self, sampler: Callable, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """This device's rows [shape] of what one device would draw for all.

        Args:
            sampler: (key, shape, dtype) -> array.
        """
        if self.axis is None:
            return sampler(key, shape, jnp.float32)
        rows, *rest = shape
        return self.of(sampler(key, (rows * self.devices, *rest), jnp.float32))


ALONE = Share()
