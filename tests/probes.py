"""Environments with a known answer, for tests; most of them are the library's own."""

import jax.numpy as jnp

from tradax.envs.probes import Bandit as Bandit
from tradax.envs.probes import Delayed as Delayed
from tradax.envs.probes import Endless as Endless
from tradax.envs.probes import Params as Params
from tradax.envs.probes import Probe as Probe
from tradax.envs.probes import State as State


class BlindedFor1Step(Probe):
    """The observation is NaN at the tenth step of an episode, and there alone."""

    @property
    def default_params(self):
        return Params(max_steps_in_episode=100)

    def outcome(self, state, action):
        return jnp.float32(1), jnp.bool_(False)

    def get_obs(self, state, params=None, key=None):
        return jnp.where(state.time == 10, jnp.nan, super().get_obs(state, params, key))


class Explodes(Probe):
    """The reward becomes infinite at the tenth step of an episode."""

    @property
    def default_params(self):
        return Params(max_steps_in_episode=100)

    def outcome(self, state, action):
        return jnp.where(state.time >= 10, jnp.inf, 0.0), jnp.bool_(False)
