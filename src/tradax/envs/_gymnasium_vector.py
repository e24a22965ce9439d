"""A market as a Gymnasium vector environment: one compiled call steps all of them.

An episode that ends begins anew in the same step; `final_obs` and `final_info` then hold the last
one's, as `gymnasium.vector.SyncVectorEnv` gives them in its mode SAME_STEP.
"""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from tradax.envs._gymnasium import Packed, random_words, to_market
from tradax.envs._made import Made, made
from tradax.envs._market import MarketEnvironment
from tradax.spaces import ActionSpec


class TradaxVectorEnv(gymnasium.vector.VectorEnv):
    """`num_envs` copies of a market, side by side on the device."""

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, made: Made, num_envs: int):
        self.num_envs = num_envs
        self.tradax_env, self.tradax_params = made.env, made.params
        self.single_observation_space = made.observation_space
        self.single_action_space = made.action_space
        self.observation_space = batch_space(made.observation_space, num_envs)
        self.action_space = batch_space(made.action_space, num_envs)
        self._reset, self._step = _compiled(made.env, made.action, num_envs)
        self._key: Any = None
        self._state: Any = None

    def reset(self, *, seed: int | list[int] | None = None, options: dict | None = None):
        """Args: seed: one number, or one for each environment, of which all count."""
        if isinstance(seed, list | tuple):
            # One stream of chances serves all environments.
            seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        super().reset(seed=seed)
        if seed is not None or self._key is None:
            self._key = random_words(self.np_random)
        self._key, self._state, obs = self._reset(self.tradax_params, self._key)
        return np.array(obs), {}

    def step(self, actions: Any):
        self._key, self._state, packed = self._step(
            self.tradax_params, self._key, self._state, np.asarray(actions)
        )
        info = packed.unpack()
        obs, reward = info.pop("obs"), info.pop("reward").astype(np.float64)
        terminated, truncated = info.pop("terminated"), info.pop("truncated")
        final_obs, done = info.pop("final_observation"), terminated | truncated
        infos = _masked(info, ~done)
        if done.any():
            final = np.full(self.num_envs, None, dtype=object)
            for i in np.flatnonzero(done):
                final[i] = final_obs[i]
            infos |= {"final_obs": final, "_final_obs": done}
            infos |= {"final_info": _masked(info, done), "_final_info": done}
        return obs, reward, terminated, truncated, infos


def make(market: str, num_envs: int = 1, **options: Any) -> TradaxVectorEnv:
    """What `gymnasium.make_vec("tradax/...")` calls; the options are those of `made`."""
    return TradaxVectorEnv(made(market, **options), num_envs)


def _masked(info: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
    """Each value [B, ...] with, under its name after an underscore, whose it is."""
    return {**info, **{f"_{name}": mask for name in info}}


@functools.cache
def _compiled(env: MarketEnvironment, spec: ActionSpec, num_envs: int) -> tuple[Callable, Callable]:
    """`reset` and `step` of so many environments; equal ones share them."""

    @jax.jit
    def reset(params, words):
        reset_key, key = jax.random.split(jax.random.wrap_key_data(words))
        keys = jax.random.split(reset_key, num_envs)
        obs, state = jax.vmap(env.reset_env, in_axes=(0, None))(keys, params)
        return jax.random.key_data(key), state, obs

    @jax.jit
    def step(params, words, state, action):
        step_key, key = jax.random.split(jax.random.wrap_key_data(words))
        obs, state, reward, terminated, truncated, info = jax.vmap(
            env.step, in_axes=(0, 0, 0, None)
        )(jax.random.split(step_key, num_envs), state, to_market(action, spec), params)
        outcome = {"obs": obs, "reward": reward, "terminated": terminated, "truncated": truncated}
        return jax.random.key_data(key), state, Packed.of({**info, **outcome}, axes=1)

    return reset, step
