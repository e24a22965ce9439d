"""The processes of `tradax.data.synthetic` inside a compiled program: a fresh path every episode.

Processes are pytrees here, so that `vmap` over their parameters simulates many markets at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tradax.config import register_pytree
from tradax.data.synthetic import PROCESSES, Noises, Process

for _kind in PROCESSES.values():
    register_pytree(_kind)


class PathState(NamedTuple):
    """Where a path stands; each [assets]."""

    log_price: jax.Array
    """Log price over the first one."""
    hidden: jax.Array
    """Variance or regime; zeros where the process has none."""


def start(key: jax.Array, process: Process, *, assets: int = 1) -> PathState:
    """The beginning of a path."""
    normal_key, uniform_key = jax.random.split(key)
    normal = jax.random.normal(normal_key, (assets,))
    uniform = jax.random.uniform(uniform_key, (assets,))
    return PathState(*process.start(normal, uniform, jnp))


def step(
    key: jax.Array,
    process: Process,
    state: PathState,
    dt: jax.Array | float,
    *,
    factor: jax.Array | None = None,
) -> PathState:
    """The state `dt` years later.

    Args:
        factor: [assets, assets], Cholesky factor of the correlation of price moves; None: none.
    """
    return _moved(process, state, _draw(key, state.log_price.shape, factor), dt)


def path(
    key: jax.Array,
    process: Process,
    n_steps: int,
    dt: jax.Array | float,
    *,
    assets: int = 1,
    correlation: jax.Array | float = 0.0,
    substeps: int = 1,
) -> PathState:
    """`n_steps` steps of `dt` years, each made of `substeps` (Heston's scheme needs short ones).

    Returns: PathState, each [n_steps + 1, assets].
    """
    start_key, noise_key = jax.random.split(key)
    first = start(start_key, process, assets=assets)
    factor = correlation_factor(assets, correlation) if assets > 1 else None
    # All noise at once: drawing inside the scan costs a launch of its own every step.
    noise = _draw(noise_key, (n_steps, substeps, assets), factor)

    def one_step(state, noise):
        for i in range(substeps):
            now = jax.tree.map(lambda x, i=i: x[i], noise)
            state = _moved(process, state, now, dt / substeps)
        return state, state

    _, states = jax.lax.scan(one_step, first, noise)
    return jax.tree.map(lambda one, all: jnp.concatenate([one[None], all]), first, states)


def correlation_factor(assets: int, correlation: jax.Array | float) -> jax.Array:
    """[assets, assets]: L with L L^T the matrix with 1 on the diagonal, `correlation` elsewhere."""
    eye = jnp.eye(assets)
    return jnp.linalg.cholesky(eye + (1.0 - eye) * correlation)


def _moved(process: Process, state: PathState, noise: Noises, dt) -> PathState:
    return PathState(*process.step(state.log_price, state.hidden, noise, dt, jnp))


def _draw(key: jax.Array, shape: tuple[int, ...], factor: jax.Array | None) -> Noises:
    normal_key, second_key, uniform_key = jax.random.split(key, 3)
    normal = jax.random.normal(normal_key, shape)
    return Noises(
        normal=normal if factor is None else normal @ factor.T,
        second=jax.random.normal(second_key, shape),
        uniform=jax.random.uniform(uniform_key, shape),
    )
