"""Tools of the update: shuffled minibatch epochs, optimisers, schedules."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from tradax.errors import ConfigError
from tradax.packing import side_by_side


def minibatch_epochs(
    update: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    batch: Any,
    key: jax.Array,
    *,
    epochs: int,
    minibatches: int,
) -> tuple[Any, Any]:
    """Run `update(carry, minibatch) -> (carry, metrics)` over fresh shuffles of the batch.

    Args:
        batch: pytree of arrays [N, ...]; N divides into `minibatches`.

    Returns: carry, metrics stacked as [epochs, minibatches, ...].
    """
    rows = jax.tree.leaves(batch)[0].shape[0]
    # A row is one read, not one from every array.
    packed, unpack = side_by_side(batch)
    unflatten: Any = None

    def one_minibatch(carry, index):
        nonlocal unflatten
        carry, metrics = update(carry, unpack(jax.tree.map(lambda x: x[index], packed)))
        # One vector: each array of a scan is a copy of its own at every step.
        metrics, unflatten = ravel_pytree(metrics)
        return carry, metrics

    def one_epoch(carry, key):
        order = permutation(key, rows).reshape(minibatches, -1)
        return jax.lax.scan(one_minibatch, carry, order)

    carry, metrics = jax.lax.scan(one_epoch, carry, jax.random.split(key, epochs))
    return carry, jax.vmap(jax.vmap(unflatten))(metrics)


def mean_in_parts(compute: Callable[[Any], Any], batch: Any) -> Any:
    """The mean of `compute` over equal parts of a batch, whose arrays [N, ...] stay in the cache.

    On CPU a gradient takes 1.7 times as long where activations of 32,768 rows go through memory.
    """
    rows = jax.tree.leaves(batch)[0].shape[0]
    parts = _parts(rows) if jax.default_backend() == "cpu" else 1
    if parts == 1:
        return compute(batch)

    def one_part(total, part):
        vector, _ = ravel_pytree(compute(part))
        return total + vector, None

    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    like = jax.eval_shape(compute, jax.tree.map(lambda x: x[0], split))
    zeros, unflatten = ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like))
    total, _ = jax.lax.scan(one_part, zeros, split)
    return unflatten(total / parts)


def in_parts(compute: Callable[[Any], jax.Array], batch: Any) -> jax.Array:
    """`compute(batch)` [N, ...], from parts of the batch that stay in the cache."""
    rows = jax.tree.leaves(batch)[0].shape[0]
    parts = _parts(rows) if jax.default_backend() == "cpu" else 1
    if parts == 1:
        return compute(batch)
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    found = jax.lax.map(compute, split)
    return found.reshape(rows, *found.shape[2:])


def where_needed(
    needed: jax.Array,
    compute: Callable[[Any], jax.Array],
    batch: Any,
    otherwise: jax.Array,
    *,
    block: int,
) -> jax.Array:
    """`compute(batch)` [N] where `needed` [N], and `otherwise` [N] elsewhere.

    So many blocks of rows are computed as hold the needed ones.
    """
    rows = needed.shape[0]
    size = -(-rows // block) * block
    # `jnp.nonzero` takes twice as long.
    place = jax.lax.associative_scan(jnp.add, needed.astype(jnp.int32)) - 1
    order = jnp.full(size, rows, jnp.int32)
    order = order.at[jnp.where(needed, place, size)].set(jnp.arange(rows), mode="drop")

    def one_block(state):
        start, found = state
        at = jax.lax.dynamic_slice_in_dim(order, start, block)
        part = jax.tree.map(lambda x: x[at], batch)
        return start + block, found.at[at].set(compute(part), mode="drop")

    state = (jnp.int32(0), otherwise)
    return jax.lax.while_loop(lambda s: s[0] <= place[-1], one_block, state)[1]


def _parts(rows: int) -> int:
    """Into how many equal parts of 2,048 to 4,096 rows they divide; 1 where they do not."""
    fitting = (parts for parts in range(-(-rows // 4096), rows // 2048 + 1) if rows % parts == 0)
    return next(fitting, 1)


def permutation(key: jax.Array, n: int) -> jax.Array:
    """A pseudo-random permutation of 0..n-1 in O(n), without sorting.

    Sorting random numbers takes 45% of a PPO update on CPU.
    """
    return draw_distinct(key, n, n)


def draw_distinct(key: jax.Array, count: int, n: int | jax.Array) -> jax.Array:
    """`count` different numbers of 0..n-1; n may be traced, and must be `count` at least.

    A composition of bijections on the next power of two 2^k >= n: multiply by an odd number,
    add, xor-shift, all modulo 2^k with keys of their own. Where n is not a power of two,
    elements that land at n or above are sent through again until they do not (cycle walking),
    which keeps it a bijection.
    """
    fixed = isinstance(n, int)
    if fixed:
        bits: Any = max((n - 1).bit_length(), 1)
        mask = jnp.uint32(2**bits - 1)
        shift = max(bits // 2, 1)
    else:
        n = n.astype(jnp.uint32)
        bits = jnp.maximum(32 - jax.lax.clz(n - 1), 1)
        mask = (jnp.uint32(1) << bits) - 1
        shift = jnp.maximum(bits // 2, 1)
    rounds = 4
    multiplier, offset = jax.random.bits(key, (2, rounds), jnp.uint32)
    multiplier = multiplier | 1

    def mix(x):
        for i in range(rounds):
            x = (x * multiplier[i] + offset[i]) & mask
            x = x ^ (x >> shift)
        return x

    x = jnp.arange(count, dtype=jnp.uint32)
    # A walk from below n comes back below n; one from elsewhere might not.
    x = mix(x if fixed else x % n)
    if not fixed or n != 2**bits:
        x = jax.lax.while_loop(lambda x: jnp.any(x >= n), lambda x: jnp.where(x >= n, mix(x), x), x)
    return x.astype(jnp.int32)


def check_minibatches(n_steps: int, num_envs: int, minibatches: int, devices: int = 1) -> None:
    """Raises ConfigError unless a rollout divides into equal minibatches, and each by devices."""
    rows = n_steps * num_envs
    if rows % (minibatches * devices):
        fitting = ", ".join(str(m) for m in range(1, 65) if rows % (m * devices) == 0)
        each = f" that divide by {devices} devices" if devices > 1 else ""
        raise ConfigError(
            f"{rows} steps ({n_steps} steps x {num_envs} environments) do not divide into "
            f"{minibatches} minibatches{each}; use one of {fitting}"
        )


def adam(learning_rate: Any, *, max_grad_norm: Any) -> optax.GradientTransformation:
    """Adam with epsilon 1e-5 after clipping by global norm. Both numbers may be traced."""
    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate, eps=1e-5)
    )


def rmsprop(learning_rate: Any, *, max_grad_norm: Any) -> optax.GradientTransformation:
    """RMSprop (decay 0.99, epsilon 1e-5 in the root) after clipping by global norm."""
    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm),
        optax.rmsprop(learning_rate, decay=0.99, eps=1e-5, eps_in_sqrt=True),
    )


def descend(
    optimiser: optax.GradientTransformation, gradient: Any, opt_state: Any, parameters: Any
) -> tuple[Any, Any]:
    """One step of an optimiser. Returns: parameters, state of the optimiser."""
    step, opt_state = optimiser.update(gradient, opt_state, parameters)
    return optax.apply_updates(parameters, step), opt_state


class Vectors(NamedTuple):
    """Parameters and the state of their optimiser, each as one vector.

    For optimisers that treat all numbers alike: a step is then a loop or two, where it would be
    some for every layer.
    """

    parameters: jax.Array
    opt_state: Any
    unflatten: Callable[[jax.Array], Any]
    restore: Callable[[Any], Any]
    """The optimiser's state as it was given."""

    @staticmethod
    def of(parameters: Any, opt_state: Any) -> "Vectors":
        vector, unflatten = ravel_pytree(parameters)
        like = jax.tree.structure(parameters)

        def is_like(x):
            return jax.tree.structure(x) == like

        parts, structure = jax.tree.flatten(opt_state, is_leaf=is_like)
        flat = [ravel_pytree(x)[0] if is_like(x) else x for x in parts]

        def restore(state):
            found = structure.flatten_up_to(state)
            found = [
                unflatten(x) if is_like(was) else x for x, was in zip(found, parts, strict=True)
            ]
            return jax.tree.unflatten(structure, found)

        return Vectors(vector, jax.tree.unflatten(structure, flat), unflatten, restore)


def conjugate_gradient(
    product: Callable[[jax.Array], jax.Array],
    b: jax.Array,
    *,
    iterations: int,
    tolerance: float = 1e-10,
) -> tuple[jax.Array, jax.Array]:
    """Solve A x = b for a positive definite A that is known by its products A v.

    Args:
        tolerance: stop where the squared residual is below.

    Returns: x, squared norm of the residual b - A x.
    """

    def one(state):
        x, residual, direction, square, i = state
        curved = product(direction)
        size = square / jnp.dot(direction, curved)
        x, residual = x + size * direction, residual - size * curved
        new_square = jnp.dot(residual, residual)
        direction = residual + new_square / square * direction
        return x, residual, direction, new_square, i + 1

    state = (jnp.zeros_like(b), b, b, jnp.dot(b, b), 0)
    x, _, _, square, _ = jax.lax.while_loop(
        lambda s: (s[3] > tolerance) & (s[4] < iterations), one, state
    )
    return x, square


def backtrack(
    accepted: Callable[[jax.Array], jax.Array], *, shrink: Any, steps: int
) -> tuple[jax.Array, jax.Array]:
    """The first of 1, shrink, shrink^2, ... that is accepted, or 0 after `steps` that were not.

    Returns: size, number of sizes tried.
    """

    def try_one(state):
        size, tried, _ = state
        size = jnp.where(tried == 0, 1.0, size * shrink)
        return size, tried + 1, accepted(size)

    size, tried, found = jax.lax.while_loop(
        lambda s: ~s[2] & (s[1] < steps), try_one, (jnp.float32(1), jnp.int32(0), jnp.bool_(False))
    )
    return jnp.where(found, size, 0.0), tried


def linear_anneal(
    start: Any, final_fraction: Any, done: jax.Array, horizon: jax.Array
) -> jax.Array:
    """From `start` at 0 updates done to `start * final_fraction` at `horizon` updates."""
    progress = jnp.clip(done / jnp.maximum(horizon, 1.0), 0.0, 1.0)
    return start * (1.0 - progress * (1.0 - final_fraction))


@jax.custom_batching.custom_vmap
def in_step(x: jax.Array) -> jax.Array:
    """`x`, which is the same for all members that train side by side.

    They take equally many steps. Said to `vmap`, a branch stays a branch and a slice a slice, where
    both would become selections over everything.
    """
    return x


@in_step.def_vmap
def _in_step_of_members(size, batched, x):
    return (x[0] if batched[0] else x), False


def all_finite(tree: Any) -> jax.Array:
    """Whether every floating-point number in the tree is finite."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats]).all()
