"""Updates from environments on the host: a Python loop in which only learning is compiled."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tradax.compiling import overwriting
from tradax.errors import ConfigError
from tradax.optimise import all_finite
from tradax.protocols import Algorithm, Source, TrainState, checked
from tradax.rows import Sums


def check(members: int | None, mesh: Mesh | None) -> None:
    """Raises ConfigError where environments that are stepped on the host cannot serve."""
    if members is not None:
        raise ConfigError(
            "environments that are stepped on the host train one policy at a time; train the "
            "members one after the other"
        )
    if mesh is not None:
        raise ConfigError(
            "environments that are stepped on the host cannot be split over devices; leave out "
            "devices (--devices)"
        )


def begin(algorithm: Algorithm, source: Source, state: TrainState) -> TrainState:
    """The state with new episodes: what environments on the host hold is no part of it.

    Warns where updates were done before.
    """
    if update := int(state.update):
        warnings.warn(
            f"going on from update {update} with new episodes: environments on the host cannot go "
            "on in the middle of theirs, so the result differs from that of an uninterrupted run",
            stacklevel=3,
        )
    key = jax.random.fold_in(state.key, state.update)
    return state._replace(carry=source.reset(key, algorithm.actor(state.learner)))


def run(
    algorithm: Algorithm, source: Source, n: int, log_every: int, state: TrainState, sums: Sums
) -> tuple[TrainState, Sums, np.ndarray, bool, int]:
    """As `updates.run`."""
    learner, carry, key = state.learner, state.carry, state.key
    first, finite, done = int(state.update), True, 0
    rows: list[Any] = []
    while finite and done < n:
        collect_key, learn_key, key = jax.random.split(key, 3)
        carry, experience, finished = algorithm.collect(learner, source, carry, collect_key)
        given = (algorithm, experience, finished, learn_key)
        learner, sums, all_good = learn(given, learner, sums)
        finite, done = bool(all_good), done + 1
        if (first + done) % log_every == 0:
            rows.append(jax.device_get(sums))
            sums = jax.tree.map(jnp.zeros_like, sums)
    rows.append(jax.device_get(sums))
    packed = np.stack([jax.tree.leaves(row) for row in rows])
    return TrainState(learner, carry, key, state.update + done), sums, packed, finite, done


@overwriting
def learn(given: Any, learner: Any, sums: Sums) -> tuple[Any, Sums, jax.Array]:
    """Returns: learner, sums, whether all is finite."""
    algorithm, experience, finished, key = given
    learner, metrics = algorithm.learn(learner, experience, key)
    finished = checked(finished, experience)
    finite = finished.sound & all_finite((metrics, algorithm.policy(learner)))
    return learner, jax.tree.map(jnp.add, sums, Sums(metrics, finished)), finite
