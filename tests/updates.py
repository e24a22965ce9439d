"""One update at a time, compiled, for tests of algorithms."""

import equinox as eqx
import jax

from tradax import protocols


@eqx.filter_jit
def start(algorithm, source):
    return protocols.init(algorithm, source, jax.random.key(0))


@eqx.filter_jit
def step(algorithm, source, state):
    return protocols.step(algorithm, source, state)
