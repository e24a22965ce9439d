"""How tests compile what must be exact to the last bit."""

from collections.abc import Callable

import equinox as eqx
import jax


def as_deployed(function: Callable) -> Callable:
    """Its loops are fused as users' programs have them, not as `conftest` has for speed.

    Equal expressions in different loops round alike then.
    """

    def call(*arguments):
        arrays, rest = eqx.partition(arguments, eqx.is_array)
        compiled = jax.jit(
            lambda arrays: function(*eqx.combine(arrays, rest)),
            compiler_options={"xla_cpu_use_fusion_emitters": True},
        )
        return compiled(arrays)

    return call
