"""A market as a Gymnasium environment: one compiled call a step, numpy in and out.

Observations are the flat ones, in finite bounds. Actions of a Box are in [-1, 1] in every
dimension, and scaled to the market's own bounds. `info` holds what the market says of the step.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from tradax.envs._made import Made, made
from tradax.envs._market import MarketEnvironment
from tradax.spaces import ActionSpec


class TradaxEnv(gymnasium.Env):
    """One market; `tradax_env` and `tradax_params` are what JAX sees of it."""

    metadata = {"render_modes": []}  # noqa: RUF012 as in the base class

    def __init__(self, made: Made):
        self.tradax_env, self.tradax_params = made.env, made.params
        self.observation_space, self.action_space = made.observation_space, made.action_space
        self._reset, self._step = _compiled(made.env, made.action)
        self._key: Any = None
        self._state: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if seed is not None or self._key is None:
            self._key = random_words(self.np_random)
        self._key, self._state, obs = self._reset(self.tradax_params, self._key)
        return np.array(obs), {}

    def step(self, action: Any):
        self._key, self._state, packed = self._step(
            self.tradax_params, self._key, self._state, np.asarray(action)
        )
        info = packed.unpack()
        obs, reward = info.pop("obs"), float(info.pop("reward"))
        return obs, reward, bool(info.pop("terminated")), bool(info.pop("truncated")), info


def make(market: str, render_mode: str | None = None, **options: Any) -> TradaxEnv:
    """What `gymnasium.make("tradax/...")` calls; the options are those of `made`.

    Raises:
        TypeError: a render mode, for there are no pictures; callers that try one go on without.
    """
    if render_mode is not None:
        raise TypeError(f"{market} has no pictures; leave out render_mode")
    return TradaxEnv(made(market, **options))


def random_words(generator: np.random.Generator) -> np.ndarray:
    """The words of a key, uint32 [2]."""
    return generator.integers(2**32, size=2, dtype=np.uint32)


def to_market(action: jax.Array, spec: ActionSpec) -> jax.Array:
    """An action of the Gymnasium space in the market's own units."""
    if spec.discrete:
        return action.astype(jnp.int32)
    return spec.from_unit(jnp.clip(action, -1.0, 1.0))


@jax.tree_util.register_pytree_node_class
class Packed:
    """Named values side by side in one float32 array, which is one transfer to the host."""

    def __init__(self, numbers: Any, layout: tuple):
        self.numbers, self.layout = numbers, layout

    @classmethod
    def of(cls, values: dict[str, jax.Array], axes: int = 0) -> "Packed":
        """Args: axes: number of leading axes, the same of all values. Integers below 2^24."""
        layout = tuple((name, x.shape[axes:], str(x.dtype)) for name, x in values.items())
        flat = [x.astype(jnp.float32).reshape(*x.shape[:axes], -1) for x in values.values()]
        return cls(jnp.concatenate(flat, axis=-1), layout)

    def unpack(self) -> dict[str, np.ndarray]:
        numbers, first, values = np.array(self.numbers), 0, {}
        for name, shape, kind in self.layout:
            size = math.prod(shape)
            shaped = numbers[..., first : first + size].reshape((*numbers.shape[:-1], *shape))
            values[name] = shaped.astype(kind, copy=False)[()]  # numbers, where there is one
            first += size
        return values

    def tree_flatten(self):
        return (self.numbers,), self.layout

    @classmethod
    def tree_unflatten(cls, layout, children):
        return cls(children[0], layout)


@functools.cache
def _compiled(env: MarketEnvironment, spec: ActionSpec) -> tuple[Callable, Callable]:
    """`reset` and `step` of one environment; equal environments share them."""

    @jax.jit
    def reset(params, words):
        reset_key, key = jax.random.split(jax.random.wrap_key_data(words))
        state = env.reset_state(reset_key, params)
        return jax.random.key_data(key), state, env.get_obs(state, params)

    @jax.jit
    def step(params, words, state, action):
        step_key, key = jax.random.split(jax.random.wrap_key_data(words))
        state, reward, terminated, info = env.step_state(
            step_key, state, to_market(action, spec), params
        )
        outcome = {
            "obs": env.get_obs(state, params),
            "reward": reward,
            "terminated": terminated,
            "truncated": env.is_truncated(state, params) & ~terminated,
        }
        return jax.random.key_data(key), state, Packed.of({**info, **outcome})

    return reset, step
