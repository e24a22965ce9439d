"""Whatever names or is an environment -> a source.

Names are gymnax's, or Gymnasium's after "gymnasium:". Environments of Gymnasium and vector
environments of Stable-Baselines3 are stepped on the host; a market that `gymnasium.make` has made
is unwrapped, and stepped on the device like any other.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import jax
import numpy as np

from tradax.envs._market import MarketEnvironment
from tradax.errors import TradaxError
from tradax.gymnax_parts import gymnax
from tradax.host_envs import GymnasiumEnvs, HostEnvs, StableBaselinesEnvs
from tradax.host_source import HostSource, host_source
from tradax.protocols import Source
from tradax.rollout import JaxSource, jax_source

GYMNASIUM = "gymnasium:"

# Wrappers that pass everything on as it is; a Monitor does unless it writes a file.
_TRANSPARENT = ("OrderEnforcing", "PassiveEnvChecker", "Monitor", "VecMonitor")

Vectorization = Literal["sync", "async"]


def source_of(env: Any, *, num_envs: int = 1, make_kwargs: dict[str, Any] | None = None) -> Source:
    """A source of `num_envs` environments.

    Args:
        env: a gymnax name, "gymnasium:ID", a gymnax or Gymnasium environment, (environment,
            parameters), or a source, which may share its environments with what is returned.
        make_kwargs: of `gymnasium.make`, for "gymnasium:ID".

    Raises:
        TradaxError: unknown name, or spaces that are not supported.
    """
    if isinstance(env, Source):
        return env.of(num_envs)
    if isinstance(env, str) and env.startswith(GYMNASIUM):
        name = env.removeprefix(GYMNASIUM)
        if ":" in name:  # Gymnasium would import what stands before it
            raise TradaxError(
                f"{name} names a module; import the package yourself, and give the environment: "
                "tradax.train(env=gymnasium.make(...))"
            )
        return from_gymnasium(name, **(make_kwargs or {})).of(num_envs)
    if market := market_in(env):
        return market.of(num_envs)
    if is_host_env(env):
        return from_gymnasium(env).of(num_envs)
    environment, params = env if isinstance(env, tuple) else (env, None)
    return jax_source(environment, params, num_envs=num_envs)


def is_host_env(env: Any) -> bool:
    """Whether it is an environment, or vector environment, of Gymnasium or Stable-Baselines3."""
    if isinstance(env, HostSource):
        return True
    stepped = hasattr(env, "step") or hasattr(env, "step_async")
    return stepped and hasattr(env, "reset") and not hasattr(env, "step_env")


def market_in(env: Any) -> JaxSource | None:
    """The source of a market that `gymnasium.make` has made, or of several alike side by side.

    None where a wrapper around it may change what it gives: then it has to be stepped as it is.
    """
    while type(env).__name__ in _TRANSPARENT and getattr(env, "results_writer", None) is None:
        env = getattr(env, "venv", None) or env.env
    if type(env).__name__ == "DummyVecEnv":
        markets = [market_in(one) for one in env.envs]
        same = all(_alike(market, markets[0]) for market in markets)
        return replace(markets[0], num_envs=len(markets)) if same and markets[0] else None
    if "tradax_env" not in getattr(env, "__dict__", {}):
        return None
    number = getattr(env, "num_envs", 1)
    return jax_source(env.tradax_env, env.tradax_params, num_envs=number).in_unit_actions()


def _alike(one: JaxSource | None, other: JaxSource | None) -> bool:
    if one is None or other is None or one.env != other.env:
        return False
    ours, theirs = jax.tree.leaves(one.params), jax.tree.leaves(other.params)
    return all(x is y or np.array_equal(x, y) for x, y in zip(ours, theirs, strict=True))


def from_gymnasium(
    env: Any,
    num_envs: int | None = None,
    *,
    vectorization_mode: Vectorization = "sync",
    **make_kwargs: Any,
) -> HostSource:
    """A source from Gymnasium: `tradax.train(env=from_gymnasium("CartPole-v1"))`.

    Args:
        env: an id, an environment (copied as often as needed, itself never stepped), a function
            that makes one, a vector environment, or one of Stable-Baselines3.
        num_envs: environments side by side; by default what the algorithm asks for.
        vectorization_mode: "sync" steps them one after the other, "async" in a process each.
        make_kwargs: of `gymnasium.make`, for an id.

    Raises:
        TradaxError: spaces other than Box and Discrete, an unknown id, or a vector environment
            that does not reset in the step in which an episode ends.
    """
    if isinstance(env, HostSource):
        return env
    if make_kwargs and not isinstance(env, str):
        raise TradaxError(f"{', '.join(make_kwargs)} given, which only an id takes; leave them out")
    if not isinstance(env, str) and hasattr(env, "num_envs"):
        if num_envs not in (None, env.num_envs):
            raise TradaxError(
                f"num_envs is {num_envs}, and the vector environment has {env.num_envs}; leave "
                "num_envs out"
            )
        return _from_vector(env, vectorization_mode)
    make, name = _maker(env, make_kwargs)

    def another(count: int) -> HostEnvs:
        return GymnasiumEnvs(_vector([make] * count, vectorization_mode))

    if num_envs is not None and num_envs < 1:
        raise TradaxError(f"num_envs is {num_envs}; it must be at least 1")
    return host_source(another(num_envs or 1), another, name=name, fixed=num_envs is not None)


def _maker(env: Any, make_kwargs: dict[str, Any]) -> tuple[Callable[[], Any], str]:
    """A function that makes one environment after the other, and what they are called."""
    import gymnasium

    if isinstance(env, str):
        try:
            gymnasium.spec(env)
        except (gymnasium.error.Error, ImportError) as error:
            raise TradaxError(f"{env} is no environment of Gymnasium: {error}") from None
        name = f"{env}-object" if make_kwargs else GYMNASIUM + env  # a run's name for it
        return (lambda: gymnasium.make(env, **make_kwargs)), name
    name = f"{type(getattr(env, 'unwrapped', env)).__name__}-object"
    if not isinstance(env, gymnasium.Env):
        if not callable(env):
            raise TradaxError(
                f"{type(env).__name__} is no environment of Gymnasium; give an id, a "
                "gymnasium.Env, a vector environment, or a function that makes an environment"
            )
        return env, name
    try:
        copy.deepcopy(env)
    except Exception:
        if env.spec is None:
            raise TradaxError(
                f"{env} cannot be copied and has no spec to make it again; give a function that "
                "makes one: from_gymnasium(lambda: ...)"
            ) from None
        return env.spec.make, name
    return (lambda: copy.deepcopy(env)), name


def _from_vector(env: Any, mode: Vectorization) -> HostSource:
    """From environments that are side by side already."""
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

    name = f"{type(env).__name__}-object"
    if hasattr(env, "step_wait") and not hasattr(env, "single_action_space"):
        return host_source(StableBaselinesEnvs(env), name=name, fixed=True)
    if type(env) in (SyncVectorEnv, AsyncVectorEnv):
        makers = list(env.env_fns)

        def another(count: int) -> HostEnvs:
            return GymnasiumEnvs(_vector((makers * count)[:count], mode))

        if not makers:  # made from an iterator, which is used up
            return host_source(GymnasiumEnvs(env), name=name, fixed=True)
        return host_source(another(env.num_envs), another, name=name, fixed=True)
    return host_source(GymnasiumEnvs(env), name=name, fixed=True)


def _vector(makers: list[Callable[[], Any]], mode: Vectorization) -> Any:
    from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

    kinds = {"sync": SyncVectorEnv, "async": AsyncVectorEnv}
    if mode not in kinds:
        raise TradaxError(f"vectorization_mode is {mode}; it must be sync or async")
    return kinds[mode](makers, autoreset_mode=AutoresetMode.SAME_STEP)


def object_name(env: Any) -> str:
    """What an environment object, (environment, parameters) or source is called."""
    if isinstance(env, HostSource):
        return env.name
    environment = env.env if isinstance(env, JaxSource) else env
    environment = environment[0] if isinstance(environment, tuple) else environment
    name = str(getattr(environment, "name", type(environment).__name__))
    taken = name in gymnax.registered_envs and not _is_made_by_name(env, name)
    if isinstance(environment, MarketEnvironment) or taken:
        name = f"{name}-object"  # not one that its name makes again
    return name


def _is_made_by_name(env: Any, name: str) -> bool:
    """Whether gymnax makes the same environment, with the same parameters, of the name alone."""
    made, given = jax_source(name), source_of(env, num_envs=1)
    if not isinstance(given, JaxSource):
        return False
    leaves, others = (jax.tree.leaves(source.params) for source in (made, given))
    return (
        type(given.env) is type(made.env)
        and len(leaves) == len(others)
        and all(np.array_equal(a, b) for a, b in zip(leaves, others, strict=True))
    )
