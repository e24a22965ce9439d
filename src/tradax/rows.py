"""What is logged: metrics summed over the updates of a row, on the device until a chunk ends.

A chunk of updates may close several rows, so that how often one logs does not decide how often the
host interrupts the device.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tradax.protocols import Finished, Metrics

Row = dict[str, Any]
MOST = 16
"""Rows that one chunk may close."""


class Sums(NamedTuple):
    """Metrics added up since the last logged row; every number [], or [members]."""

    metrics: Metrics
    finished: Finished

    @property
    def packed(self) -> jax.Array:
        """All numbers as one array [..., M], for each array of a loop is a copy of its own."""
        return jnp.stack([jnp.asarray(x, jnp.float32) for x in jax.tree.leaves(self)], axis=-1)

    def unpacked(self, packed: Any) -> "Sums":
        """The numbers of `packed`, under the names of these."""
        numbers = [packed[..., i] for i in range(packed.shape[-1])]
        return jax.tree.unflatten(jax.tree.structure(self), numbers)


def ends(before: int, update: int, log_every: int, total: int) -> list[int]:
    """The updates at which rows are closed, of those that follow `before`, up to `update`."""
    closed = list(range((before // log_every + 1) * log_every, update + 1, log_every))
    return [*closed, update] if update == total and update % log_every else closed


def row_of(sums: Sums, update: int, log_every: int, steps_per_update: int) -> Row:
    """The row that is closed at an update, from the sums over its updates."""
    sums = jax.tree.map(float, sums)
    finished = sums.finished
    episodes = finished.episodes
    since = update - (update - 1) // log_every * log_every
    return {
        "update": update,
        "timesteps": update * steps_per_update,
        "episodes": int(episodes),
        "return": finished.return_sum / episodes if episodes else None,
        "length": finished.length_sum / episodes if episodes else None,
        **{name: value / since for name, value in sorted(sums.metrics.items())},
    }


def culprit(sums: Sums) -> str:
    """Which quantity was not finite, and the usual cause.

    What the environment gave comes first: it spoils everything after it.
    """
    gave = {"rewards": sums.finished.bad_rewards, "observations": sums.finished.bad_observations}
    if found := [name for name, count in gave.items() if np.any(np.asarray(count))]:
        return (
            f"{' and '.join(found)} of the environment were NaN or infinite. Look for a price "
            "that is 0 or huge, a feature that is missing, or a division by 0 in the environment"
        )
    bad = [name for name, now in sums.metrics.items() if not np.all(np.isfinite(np.asarray(now)))]
    return (
        f"{', '.join(bad) or 'a parameter of the policy'} became NaN or infinite, from finite "
        "rewards and observations. The learning rate is probably too high (lower it by a factor "
        "of 3), or rewards or observations are huge (scale them)"
    )
