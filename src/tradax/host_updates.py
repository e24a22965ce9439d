"""Updates from environments on the host: a Python loop in which only learning is compiled."""

import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from tradax.errors import ConfigError
from tradax.optimise import all_finite
from tradax.protocols import Algorithm, Finished, Metrics, Source, TrainState, checked


class Sums(NamedTuple):
    """Metrics added up since the last logged row."""

    metrics: Metrics
    finished: Finished


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
    algorithm: Algorithm, source: Source, n: int, state: TrainState, sums: Sums
) -> tuple[TrainState, Sums, bool, int]:
    """Up to `n` updates; stops after the first that yields a number that is not finite.

    Learner and sums are overwritten in place.

    Returns: state, sums, whether all is finite, updates done.
    """
    learner, carry, key = state.learner, state.carry, state.key
    finite, done = True, 0
    while finite and done < n:
        collect_key, learn_key, key = jax.random.split(key, 3)
        carry, experience, finished = algorithm.collect(learner, source, carry, collect_key)
        given = (algorithm, experience, finished, learn_key)
        learner, sums, all_good = learn(given, learner, sums)
        finite, done = bool(all_good), done + 1
    return TrainState(learner, carry, key, state.update + done), sums, finite, done


@eqx.filter_jit(donate="all-except-first")
def learn(given: Any, learner: Any, sums: Sums) -> tuple[Any, Sums, jax.Array]:
    """Returns: learner, sums, whether all is finite."""
    algorithm, experience, finished, key = given
    learner, metrics = algorithm.learn(learner, experience, key)
    finished = checked(finished, experience)
    finite = finished.sound & all_finite((metrics, algorithm.policy(learner)))
    return learner, jax.tree.map(jnp.add, sums, Sums(metrics, finished)), finite
