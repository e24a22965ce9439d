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
    strict: bool = True,
) -> tuple[TrainState, Sums, Any, Any]:
    """Up to `n` updates; stops after the first that yields a number that is not finite.

    State and sums are overwritten in place.

    Args:
        axes: of members, where there are several: axes of algorithm, source and state.
        mesh: share the update, or the members, between these devices; algorithm and source of
            members are then `parallel.share_out` already.
        strict: stop all members where one has such a number; else the others go on.

    Returns: state, sums, whether all is finite (of each member, where there are several), updates
        done (strictly, the fewest of any member).
    """
    if not source.jittable:
        return host_updates.run(algorithm, source, n, state, sums)
    given = (algorithm, source, jax.device_put(np.int32(n)))  # the only number that goes there
    if mesh is None:
        return _run_chunk(given, state, sums, axes=axes, mesh=None, strict=strict)
    with parallel.losses():
        if axes is None:
            given, state, sums = parallel.spread((given, state, sums), mesh)
            done = _run_chunk(given, state, sums, axes=None, mesh=mesh, strict=strict)
            return parallel.here(jax.block_until_ready(done))
        state, sums = parallel.share_out((state, sums), mesh)
        done = _run_chunk(given, state, sums, axes=axes, mesh=mesh, strict=strict)
        return parallel.together(jax.block_until_ready(done))


@eqx.filter_jit(donate="all-except-first")
def _run_chunk(given, state: TrainState, sums: Sums, *, axes, mesh, strict):
    """As `run`.

    State and sums are overwritten in place, for a replay buffer is large.

    Args:
        given: algorithm, source, n.
    """
    if mesh is None:
        return _updates(given, state, sums, axes, strict)
    if axes is None:
        return parallel.everywhere(_updates, mesh)(given, state, sums)

    def part(given, state, sums):
        state, sums, finite, done = _updates(given, state, sums, axes, strict)
        return state, sums, finite, parallel.of_all(jnp.min if strict else jnp.max, done)

    theirs, same = parallel.MEMBERS, parallel.SAME
    its_source = same if axes[1] is None else theirs
    apart = parallel.everywhere(
        part,
        mesh,
        in_specs=((theirs, its_source, same), theirs, theirs),
        out_specs=(theirs, theirs, theirs, same),
    )
    return apart(given, state, sums)


def _updates(given, state: TrainState, sums: Sums, axes=None, strict=True):
    algorithm, source, n = given
    if axes is not None and algorithm.in_turn:
        return _updates_in_turn(given, state, sums, axes, strict)

    def one(algorithm, source, state):
        state, metrics, finished = protocols.step(algorithm, source, state)
        finite = finished.sound & all_finite((metrics, algorithm.policy(state.learner)))
        return state, Sums(metrics, finished), finite

    def body(loop):
        state, sums, before, done = loop
        state, new, finite = abreast(one, axes)(algorithm, source, state)
        return state, jax.tree.map(jnp.add, sums, new), before & finite, done + 1

    def goes_on(loop):
        _, _, finite, done = loop
        return (jnp.all(finite) if strict else jnp.any(finite)) & (done < n)

    loop = (state, sums, jnp.ones(state.update.shape, bool), jnp.int32(0))
    return jax.lax.while_loop(goes_on, body, loop)


def _updates_in_turn(given, state: TrainState, sums: Sums, axes, strict):
    """One member's updates after another's."""
    algorithm, source, n = given

    def member(i, loop):
        def mine(tree, axis=0):
            return tree if axis is None else jax.tree.map(lambda x: x[i], tree)

        def put(all_, one):
            return jax.tree.map(lambda x, new: x.at[i].set(new), all_, one)

        state, sums, finite, fewest, most = loop
        given = (mine(algorithm, axes[0]), mine(source, axes[1]), n)
        *changed, own_finite, done = _updates(given, mine(state), mine(sums))
        state, sums, finite = put((state, sums, finite), (*changed, own_finite))
        return state, sums, finite, jnp.minimum(fewest, done), jnp.maximum(most, done)

    members = state.update.shape
    loop = (state, sums, jnp.ones(members, bool), jnp.int32(n), jnp.int32(0))
    *changed, fewest, most = jax.lax.fori_loop(0, members[0], member, loop)
    return *changed, fewest if strict else most


def abreast(function: Callable, axes: tuple | None) -> Callable:
    """Over members, where there are several."""
    return function if axes is None else jax.vmap(function, in_axes=axes)
