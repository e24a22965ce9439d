"""Small environments of which the best return and the values are known, to test algorithms on.

Each isolates one thing that an implementation can get wrong; one that fails `Bandit` has a wrong
sign somewhere, one that passes it and fails `Delayed` assigns credit wrongly, one that fails
`Endless` takes truncation for termination.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from tradax.gymnax_parts import Environment, spaces


@struct.dataclass
class State:
    time: jax.Array
    cue: jax.Array


@struct.dataclass
class Params:
    max_steps_in_episode: int = 1
    """Episodes that have not ended by then are truncated."""


class Probe(Environment):
    """Base: two actions, observation [cue, time], a cue of 0 or 1 that stays.

    Subclasses say what an action earns and whether the episode ends, or have a `step_env`.
    """

    best_return: ClassVar[float]
    """Mean undiscounted return of the best policy."""

    @property
    def default_params(self) -> Any:
        return Params()

    def reset_env(self, key, params):
        state = State(jnp.int32(0), jax.random.bernoulli(key).astype(jnp.float32))
        return self.get_obs(state), state

    def get_obs(self, state, params=None, key=None):
        return jnp.stack([state.cue, state.time.astype(jnp.float32)])

    def outcome(self, state: State, action: Any) -> tuple[jax.Array, jax.Array]:
        """Returns: reward, terminated."""
        raise NotImplementedError

    def step_env(self, key, state, action, params):
        reward, terminated = self.outcome(state, action)
        state = State(state.time + 1, state.cue)
        return self.get_obs(state), state, reward, terminated, {}

    def action_space(self, params=None) -> Any:
        return spaces.Discrete(2)

    def observation_space(self, params=None):
        return spaces.Box(0.0, 10.0, (2,))

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self):
        return hash((type(self), tuple(sorted(vars(self).items()))))


class Bandit(Probe):
    """One step; the action that equals the cue earns 1: a contextual bandit."""

    best_return = 1.0

    def outcome(self, state, action):
        return (action == state.cue).astype(jnp.float32), jnp.bool_(True)


class Target(Probe):
    """One step; a continuous action a earns -(a - cue / 2)^2, with a cue between -1 and 1."""

    best_return = 0.0

    def reset_env(self, key, params):
        state = State(jnp.int32(0), jax.random.uniform(key, minval=-1.0, maxval=1.0))
        return self.get_obs(state), state

    def outcome(self, state, action):
        return -((action[0] - state.cue / 2.0) ** 2), jnp.bool_(True)

    def action_space(self, params=None):
        return spaces.Box(-1.0, 1.0, (1,), jnp.float32)

    def observation_space(self, params=None):
        return spaces.Box(-1.0, 10.0, (2,))


class Memoryless(Probe):
    """Five steps with a fresh cue each; the action that equals it earns 1. Nothing that one does
    matters later, so that the best policy is the same for every discount."""

    best_return = 5.0

    def step_env(self, key, state, action, params):
        reward = (action == state.cue).astype(jnp.float32)
        state = State(state.time + 1, jax.random.bernoulli(key).astype(jnp.float32))
        return self.get_obs(state), state, reward, state.time >= 5, {}

    @property
    def default_params(self):
        return Params(max_steps_in_episode=5)


class Delayed(Probe):
    """Three steps; the first action decides the reward that comes with the last."""

    best_return = 1.0

    @property
    def default_params(self):
        return Params(max_steps_in_episode=3)

    def step_env(self, key, state, action, params):
        cue = jnp.where(state.time == 0, action.astype(jnp.float32), state.cue)
        state = State(state.time + 1, cue)
        over = state.time >= 3
        return self.get_obs(state), state, jnp.where(over, cue, 0.0), over, {}


class ThreeSteps(Probe):
    """Three times, stay (0) earns 1 with chance 1/4 and move (1) with chance 3/4.

    A policy that moves with chance theta has the return J = 3 (1/4 + theta / 2), whose gradient is
    3/2 at every theta; d log P / d theta is 1 / theta for move, -1 / (1 - theta) for stay.
    """

    best_return = 2.25
    chances: ClassVar[tuple[float, float]] = (0.25, 0.75)

    @property
    def default_params(self):
        return Params(max_steps_in_episode=3)

    def get_obs(self, state, params=None, key=None):
        return jnp.zeros(2)

    def step_env(self, key, state, action, params):
        chance = jnp.array(self.chances)[action]
        reward = jax.random.bernoulli(key, chance).astype(jnp.float32)
        state = State(state.time + 1, state.cue)
        return self.get_obs(state), state, reward, state.time >= 3, {}


class Endless(Probe):
    """Reward 1 a step for ever; episodes are cut after 5 steps. V = 1 / (1 - gamma) everywhere."""

    best_return = 5.0

    @property
    def default_params(self):
        return Params(max_steps_in_episode=5)

    def outcome(self, state, action):
        return jnp.float32(1.0), jnp.bool_(False)

    def get_obs(self, state, params=None, key=None):
        return jnp.zeros(2)


class Mortal(Probe):
    """As `Endless`, but it is over after 5 steps, and the clock is seen.

    V = (1 - gamma^n) / (1 - gamma) with n steps left.
    """

    best_return = 5.0

    @property
    def default_params(self):
        return Params(max_steps_in_episode=5)

    def outcome(self, state, action):
        return jnp.float32(1.0), state.time >= 4

    def get_obs(self, state, params=None, key=None):
        return jnp.stack([0.0, state.time.astype(jnp.float32)])
