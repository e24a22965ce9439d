"""What a model may be given as `env`: a source of experience, and the spaces that belong to it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from tradax.errors import ConfigError
from tradax.host_envs import Actions, GymnasiumEnvs, Observations, StableBaselinesEnvs
from tradax.host_source import host_source
from tradax.protocols import Source
from tradax.rollout import jax_source
from tradax.sources import is_host_env, market_in


class Environment(NamedTuple):
    """Where a model learns."""

    source: Source
    observation_space: Any
    action_space: Any
    vec_env: Callable[[], Any]
    """Makes what `get_env` returns."""
    vec_normalize: Any = None
    """The VecNormalize around it, if there is one."""


class Seen(NamedTuple):
    """How observations and actions pass between a space and a policy."""

    see: Observations
    act: Actions
    shape: tuple[int, ...]
    """Of one observation."""

    @staticmethod
    def of(observation_space: Any, action_space: Any) -> "Seen":
        shape = tuple(observation_space.shape or ())
        return Seen(Observations(observation_space), Actions(action_space), shape)


def environment(env: Any) -> Environment:
    """Whatever a user gives as `env`.

    Markets, and names that gymnax has, are stepped on the device; other environments of Gymnasium
    and vector environments as they are, on the host.

    Raises:
        TradaxError: not an environment, or its spaces are not supported.
    """
    if isinstance(env, str):
        return _named(env)
    if (market := market_in(env)) is not None:
        return Environment(market, *_spaces(env), lambda: _vec_env(env))
    if isinstance(env, gymnasium.Env):
        # As it is, not a copy: its user may look into it.
        vector = gymnasium.vector.SyncVectorEnv(
            [lambda: env], autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP
        )
        source = host_source(GymnasiumEnvs(vector), name=_name(env))
        return Environment(source, *_spaces(env), lambda: _vec_env(env))
    if isinstance(env, gymnasium.vector.VectorEnv):
        source = host_source(GymnasiumEnvs(env), name=_name(env))
        return Environment(source, *_spaces(env), lambda: _vec_env(env))
    if is_host_env(env):
        source = host_source(StableBaselinesEnvs(env), name=_name(env))
        return Environment(source, *_spaces(env), lambda: env, _vec_normalize(env))
    source = jax_source(*env) if isinstance(env, tuple) else jax_source(env)
    return Environment(source, *_spaces_of(source), functools.partial(_no_vec_env, _name(env)))


def same_spaces(a: Any, b: Any) -> bool:
    """Whether two spaces take the same values; bounds to float tolerance."""
    if type(a).__name__ != type(b).__name__:
        return False
    if type(a).__name__ == "Discrete":
        return int(a.n) == int(b.n) and int(a.start) == int(b.start)
    return a.shape == b.shape and np.allclose(a.low, b.low) and np.allclose(a.high, b.high)


def _named(name: str) -> Environment:
    from tradax.gymnax_parts import gymnax

    if name in gymnax.registered_envs:
        source = jax_source(name)
        try:
            with_spaces = gymnasium.make(name)
        except gymnasium.error.Error:  # one that only gymnax has
            return Environment(source, *_spaces_of(source), functools.partial(_no_vec_env, name))
        return Environment(source, *_spaces(with_spaces), lambda: _vec_env(with_spaces))
    try:
        return environment(gymnasium.make(name))
    except gymnasium.error.Error as error:
        raise ConfigError(
            f"env {name!r} is known neither to Gymnasium nor to gymnax: {error}"
        ) from None


def _spaces(env: Any) -> tuple[Any, Any]:
    """Of one environment, where there are several."""
    if hasattr(env, "single_observation_space"):
        return env.single_observation_space, env.single_action_space
    return env.observation_space, env.action_space


def _spaces_of(source: Any) -> tuple[Any, Any]:
    """Gymnasium's spaces of a gymnax environment."""
    action = source.spec.action
    box = gymnasium.spaces.Box(-np.inf, np.inf, (source.spec.size,), np.float32)
    if action.discrete:
        return box, gymnasium.spaces.Discrete(action.n)
    low, high = (np.asarray(bound, np.float32) for bound in (action.low, action.high))
    return box, gymnasium.spaces.Box(low, high, dtype=np.float32)


def _name(env: Any) -> str:
    return type(env[0] if isinstance(env, tuple) else getattr(env, "unwrapped", env)).__name__


def _vec_env(env: Any) -> Any:
    """As Stable-Baselines3's callbacks know it."""
    if hasattr(env, "step_wait") and hasattr(env, "env_is_wrapped"):
        return env
    try:
        from stable_baselines3.common.monitor import Monitor
        from stable_baselines3.common.vec_env import DummyVecEnv
    except ImportError:
        raise ConfigError(
            "a VecEnv is Stable-Baselines3's; install stable-baselines3 for get_env() and for its "
            "callbacks"
        ) from None
    if isinstance(env, gymnasium.vector.VectorEnv):
        raise ConfigError(
            "a vector environment of Gymnasium is no VecEnv; give the model a VecEnv "
            "(stable_baselines3.common.env_util.make_vec_env) where get_env() is needed"
        )
    return DummyVecEnv([lambda: env if isinstance(env, Monitor) else Monitor(env)])


def _no_vec_env(name: str) -> Any:
    raise ConfigError(
        f"{name} is an environment of gymnax and has no VecEnv; give the model an environment of "
        "Gymnasium where get_env() is needed"
    )


def _vec_normalize(env: Any) -> Any:
    """The VecNormalize among the wrappers of a VecEnv."""
    while env is not None:
        if type(env).__name__ == "VecNormalize":
            return env
        env = getattr(env, "venv", None)
    return None
