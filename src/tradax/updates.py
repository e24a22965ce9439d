"""Updates inside one compiled program: of one learner, or of several members at once.

Where the source steps its environments on the host they are `host_updates`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tradax import host_updates, parallel, protocols
from tradax.compiling import overwriting
from tradax.optimise import all_finite
from tradax.protocols import Algorithm, Source, TrainState
from tradax.rows import MOST, Sums

NEVER = np.iinfo(np.int32).max
"""`log_every` of what is not logged."""


def run(
    algorithm: Algorithm,
    source: Source,
    state: TrainState,
    sums: Sums,
    n: int,
    *,
    log_every: int = NEVER,
    axes: tuple | None = None,
    mesh: Mesh | None = None,
    strict: bool = True,
) -> tuple[TrainState, Sums, Any, Any, Any]:
    """Up to `n` updates; stops after the first that yields a number that is not finite.

    State and sums are overwritten in place.

    Args:
        log_every: updates of a logged row; so many updates may close `rows.MOST` rows at most.
        axes: of members, where there are several: axes of algorithm, source and state.
        mesh: share the update, or the members, between these devices; algorithm and source of
            members are then `parallel.share_out` already.
        strict: stop all members where one has such a number; else the others go on.

    Returns: state, sums of the open row, sums of all rows since the one that was open at first
        ([R, M], of each member [members, R, M]; see `Sums.unpacked`), whether all is finite (of
        each member, where there are several), updates done (strictly, the fewest of any member).
    """
    if not source.jittable:
        return host_updates.run(algorithm, source, n, log_every, state, sums)
    # The only numbers that go there.
    given = (algorithm, source, jax.device_put(np.array([n, log_every], np.int32)))
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


@overwriting
def _run_chunk(given, state: TrainState, sums: Sums, *, axes, mesh, strict):
    """As `run`.

    State and sums are overwritten in place, for a replay buffer is large.

    Args:
        given: algorithm, source, [n, log_every].
    """
    if mesh is None:
        return _updates(given, state, sums, axes, strict)
    if axes is None:
        return parallel.everywhere(_updates, mesh)(given, state, sums)

    def part(given, state, sums):
        *changed, done = _updates(given, state, sums, axes, strict)
        return *changed, parallel.of_all(jnp.min if strict else jnp.max, done)

    theirs, same = parallel.MEMBERS, parallel.SAME
    its_source = same if axes[1] is None else theirs
    apart = parallel.everywhere(
        part,
        mesh,
        in_specs=((theirs, its_source, same), theirs, theirs),
        out_specs=(theirs, theirs, theirs, theirs, same),
    )
    return apart(given, state, sums)


def _updates(given, state: TrainState, sums: Sums, axes=None, strict=True):
    algorithm, source, (n, log_every) = given
    if axes is not None and algorithm.in_turn:
        return _updates_in_turn(given, state, sums, axes, strict)
    first = jnp.max(state.update)  # the same of all members

    def place(done):
        """Of the row to which the next update belongs."""
        return (first + done) // log_every - first // log_every

    def one(algorithm, source, state):
        state, metrics, finished = protocols.step(algorithm, source, state)
        finite = finished.sound & all_finite((metrics, algorithm.policy(state.learner)))
        return state, Sums(metrics, finished).packed, finite

    def body(loop):
        state, rows, before, done = loop
        state, new, finite = abreast(one, axes)(algorithm, source, state)
        return state, rows.at[place(done)].add(new), before & finite, done + 1

    def goes_on(loop):
        _, _, finite, done = loop
        return (jnp.all(finite) if strict else jnp.any(finite)) & (done < n)

    opened = sums.packed
    rows = jnp.zeros((MOST + 1, *opened.shape)).at[0].set(opened)
    loop = (state, rows, jnp.ones(state.update.shape, bool), jnp.int32(0))
    state, rows, finite, done = jax.lax.while_loop(goes_on, body, loop)
    return state, sums.unpacked(rows[place(done)]), jnp.moveaxis(rows, 0, -2), finite, done


def _updates_in_turn(given, state: TrainState, sums: Sums, axes, strict):
    """One member's updates after another's."""
    algorithm, source, numbers = given

    def member(i, loop):
        def mine(tree, axis=0):
            return tree if axis is None else jax.tree.map(lambda x: x[i], tree)

        def put(all_, one):
            return jax.tree.map(lambda x, new: x.at[i].set(new), all_, one)

        *kept, fewest, most = loop
        given = (mine(algorithm, axes[0]), mine(source, axes[1]), numbers)
        state, sums, _, _ = kept
        *changed, done = _updates(given, mine(state), mine(sums))
        return *put(kept, changed), jnp.minimum(fewest, done), jnp.maximum(most, done)

    members = state.update.shape[0]
    rows = jnp.zeros((members, MOST + 1, len(jax.tree.leaves(sums))))
    loop = (state, sums, rows, jnp.ones(members, bool), numbers[0], jnp.int32(0))
    *changed, fewest, most = jax.lax.fori_loop(0, members, member, loop)
    return *changed, fewest if strict else most


def abreast(function: Callable, axes: tuple | None) -> Callable:
    """Over members, where there are several."""
    return function if axes is None else jax.vmap(function, in_axes=axes)
