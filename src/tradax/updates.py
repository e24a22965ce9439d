"""Updates inside one compiled program: of one learner, or of several members at once.

Where the source steps its environments on the host they are `host_updates`.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tradax import host_updates, parallel, protocols
from tradax.host_updates import Sums
from tradax.optimise import all_finite
from tradax.protocols import Algorithm, Source, TrainState


def run(
    algorithm: Algorithm,
    source: Source,
    state: TrainState,
    sums: Sums,
    n: int,
    *,
    axes: tuple | None = None,
    mesh: Mesh | None = None,
) -> tuple[TrainState, Sums, Any, Any]:
    """Up to `n` updates; stops after the first that yields a number that is not finite.

    State and sums are overwritten in place.

    Args:
        axes: of members, where there are several: axes of algorithm, source and state.

    Returns: state, sums, whether all is finite, updates done.
    """
    given = (algorithm, source, np.int32(n))
    if not source.jittable:
        return host_updates.run(algorithm, source, n, state, sums)
    if mesh is None:
        return _run_chunk(given, state, sums, axes=axes, mesh=None)
    with parallel.losses():
        given, state, sums = parallel.spread((given, state, sums), mesh)
        done = _run_chunk(given, state, sums, axes=axes, mesh=mesh)
        return parallel.here(jax.block_until_ready(done))


@eqx.filter_jit(donate="all-except-first")
def _run_chunk(given, state: TrainState, sums: Sums, *, axes, mesh):
    """Up to `n` updates; stops after the first that yields a number that is not finite.

    State and sums are overwritten in place, for a replay buffer is large.

    Args:
        given: algorithm, source, n.

    Returns: state, sums, whether all is finite, updates done.
    """
    if mesh is not None:
        return parallel.everywhere(_updates, mesh)(given, state, sums)
    return _updates(given, state, sums, axes)


def _updates(given, state: TrainState, sums: Sums, axes=None):
    algorithm, source, n = given
    if axes is not None and algorithm.in_turn:
        return _updates_in_turn(given, state, sums, axes)

    def one(algorithm, source, state):
        state, metrics, finished = protocols.step(algorithm, source, state)
        finite = finished.sound & all_finite((metrics, algorithm.policy(state.learner)))
        return state, Sums(metrics, finished), finite

    def body(loop):
        state, sums, _, done = loop
        state, new, finite = abreast(one, axes)(algorithm, source, state)
        return state, jax.tree.map(jnp.add, sums, new), jnp.all(finite), done + 1

    loop = (state, sums, jnp.bool_(True), jnp.int32(0))
    return jax.lax.while_loop(lambda loop: loop[2] & (loop[3] < n), body, loop)


def _updates_in_turn(given, state: TrainState, sums: Sums, axes):
    """One member's updates after another's; of `done` the least."""
    algorithm, source, n = given

    def member(i, loop):
        def mine(tree, axis=0):
            return tree if axis is None else jax.tree.map(lambda x: x[i], tree)

        def put(all_, one):
            return jax.tree.map(lambda x, new: x.at[i].set(new), all_, one)

        state, sums, finite, done = loop
        given = (mine(algorithm, axes[0]), mine(source, axes[1]), n)
        *changed, own_finite, own_done = _updates(given, mine(state), mine(sums))
        state, sums = put((state, sums), tuple(changed))
        return state, sums, finite & own_finite, jnp.minimum(done, own_done)

    loop = (state, sums, jnp.bool_(True), jnp.int32(n))
    return jax.lax.fori_loop(0, state.update.shape[0], member, loop)


def abreast(function: Callable, axes: tuple | None) -> Callable:
    """Over members, where there are several."""
    return function if axes is None else jax.vmap(function, in_axes=axes)
