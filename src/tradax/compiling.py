"""How the programs that train are compiled."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx

_Function = TypeVar("_Function", bound=Callable)

OPTIONS = {"xla_cpu_copy_insertion_use_region_analysis": True}
"""Copy what a loop carries only where a closer look says that it is needed. XLA's compiler for CPUs
does not look by default, and copies all weights in every minibatch of PPO.
"""


def overwriting(function: _Function) -> _Function:
    """`function` compiled; all arguments but the first are overwritten by its results."""
    jit: Any = eqx.filter_jit  # its types lack what it hands on to jax.jit
    return jit(function, donate="all-except-first", compiler_options=OPTIONS)
