"""Environments with a known answer, for tests."""

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment


@struct.dataclass
class State:
    time: jax.Array
    cue: jax.Array


@struct.dataclass
class Params:
    max_steps_in_episode: int = 1


class Probe(Environment):
    """Base: two actions, observation [cue, time]."""

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        state = State(jnp.int32(0), jax.random.bernoulli(key).astype(jnp.float32))
        return self.get_obs(state), state

    def get_obs(self, state, params=None, key=None):
        return jnp.stack([state.cue, state.time.astype(jnp.float32)])

    def step_env(self, key, state, action, params):
        reward, terminated = self.outcome(state, action)
        state = State(state.time + 1, state.cue)
        return self.get_obs(state), state, reward, terminated, {}

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0.0, 10.0, (2,))


class Bandit(Probe):
    """The action that equals the cue earns 1: a contextual bandit."""

    def outcome(self, state, action):
        return (action == state.cue).astype(jnp.float32), jnp.bool_(True)


class Delayed(Probe):
    """Three steps; the first action decides the reward that comes with the last."""

    @property
    def default_params(self):
        return Params(max_steps_in_episode=3)

    def step_env(self, key, state, action, params):
        cue = jnp.where(state.time == 0, action.astype(jnp.float32), state.cue)
        state = State(state.time + 1, cue)
        over = state.time >= 3
        return self.get_obs(state), state, jnp.where(over, cue, 0.0), over, {}


class Endless(Probe):
    """Reward 1 a step for ever; episodes are cut after 5 steps. V = 1 / (1 - gamma) everywhere."""

    @property
    def default_params(self):
        return Params(max_steps_in_episode=5)

    def outcome(self, state, action):
        return jnp.float32(1.0), jnp.bool_(False)

    def get_obs(self, state, params=None, key=None):
        return jnp.zeros(2)


class Explodes(Probe):
    """The reward becomes infinite at the tenth step of an episode."""

    @property
    def default_params(self):
        return Params(max_steps_in_episode=100)

    def outcome(self, state, action):
        return jnp.where(state.time >= 10, jnp.inf, 0.0), jnp.bool_(False)
