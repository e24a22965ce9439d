"""Following a policy on many simulated paths, which every assessment on such prices does."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np

from tradax.errors import TradaxError
from tradax.protocols import Actor, Policy
from tradax.rollout import JaxSource, jax_source

Figures = TypeVar("Figures")


def follow(
    policy: Policy,
    env: Any,
    params: Any,
    figures: Callable[[dict, Any], Figures],
    *,
    n_steps: int,
    paths: int,
    seed: int,
    side_by_side: int = 4_096,
) -> Figures:
    """Let the policy, acting deterministically, walk `n_steps` steps on each of `paths` paths.

    Args:
        figures: what counts of one path, a NamedTuple of arrays, from the environment's `info`
            [n_steps, ...] (see `JaxSource.walk`) and `params`. A function of a module, not of a
            call: it is compiled once.
        side_by_side: paths that are followed at a time.

    Returns: the figures, each float64 [paths, ...].

    Raises:
        TradaxError: the policy was made for other observations or actions, or too few paths.
    """
    if paths < 2:
        raise TradaxError(f"paths is {paths}; it must be at least 2")
    source = jax_source(env, params)
    if source.spec != policy.spec:
        raise TradaxError(
            f"the policy was made for {policy.spec}, the environment has {source.spec}"
        )
    chunk = min(paths, side_by_side)
    keys = jax.random.split(jax.random.key(seed), (-(-paths // chunk), chunk))
    walked = _follow(source, policy.actor(sample=False), keys, n_steps, figures)
    return jax.tree.map(lambda x: np.asarray(x, np.float64)[:paths], walked)


@eqx.filter_jit
def _follow(
    source: JaxSource, actor: Actor, keys: jax.Array, n_steps: int, figures: Callable
) -> Any:
    """Args: keys [C, B]. Returns: the figures, each [C B, ...]."""

    def one(key):
        _, info = source.walk(actor, key, n_steps)
        return figures(info, source.params)

    outcome = jax.lax.map(jax.vmap(one), keys)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outcome)
