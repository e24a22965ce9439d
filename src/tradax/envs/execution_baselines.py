"""What a learned seller must beat: schedules that are known before the first step.

A schedule is the fraction of what is left to sell at every step, so that it also sells all where
lots, halts or another seller left more than it had planned for.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax.envs.execution import Execution, ExecutionParams
from tradax.errors import ConfigError
from tradax.protocols import Actor, Policy
from tradax.spaces import Factored, Observation, Spec, action_spec


class Schedule(Policy):
    """Gives the action that belongs to the time left, which the observation holds."""

    actions: jax.Array
    """[N, 1]"""
    spec: Spec = eqx.field(static=True)

    def act(self, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Args: obs [..., D]. Returns: [..., 1]; the key is not used."""
        return self._at(obs[..., self.spec.market :])

    def actor(self, *, sample: bool = False) -> "ScheduleActor":
        return ScheduleActor(self)

    def _at(self, account: jax.Array) -> jax.Array:
        """Args: account [..., 3]; its second number is the time left."""
        n_steps = self.actions.shape[0]
        step = jnp.round((1.0 - account[..., 1]) * n_steps).astype(jnp.int32)
        return self.actions[jnp.clip(step, 0, n_steps - 1)]


class ScheduleActor(Actor):
    policy: Schedule

    def __call__(self, obs: Observation, memory, key: jax.Array):
        account = obs.account if isinstance(obs, Factored) else obs[..., self.policy.spec.market :]
        return self.policy._at(account), memory, ()


def sell_at_once(env: Execution, params: ExecutionParams) -> Schedule:
    """All in the first step."""
    return schedule(env, params, np.ones(_steps(params)))


def twap(env: Execution, params: ExecutionParams) -> Schedule:
    """The same number of shares in every step."""
    return schedule(env, params, 1.0 / np.arange(_steps(params), 0, -1))


def vwap(env: Execution, params: ExecutionParams) -> Schedule:
    """In proportion to the volume that is expected in every step."""
    volume = np.asarray(params.relative_volume, float)
    return schedule(env, params, volume / np.cumsum(volume[::-1])[::-1])


def almgren_chriss(env: Execution, params: ExecutionParams) -> Schedule:
    """The closed form, optimal in any state of the textbook's model."""
    return schedule(env, params, np.asarray(params.optimal_fraction))


def baselines(env: Execution, params: ExecutionParams) -> dict[str, Schedule]:
    """All of the above that the environment's actions can express, by name."""
    found = {}
    for make in (sell_at_once, twap, vwap, almgren_chriss):
        try:
            found[make.__name__] = make(env, params)
        except ConfigError:
            continue
    return found


def schedule(env: Execution, params: ExecutionParams, fractions: np.ndarray) -> Schedule:
    """Sell `fractions` [N] of what is left.

    Raises:
        ConfigError: actions of kind "rate" cannot express it.
    """
    fractions = np.asarray(fractions, float)
    if env.action == "rate":
        limit = np.minimum(2.0 * np.asarray(params.optimal_fraction, float), 1.0)
        if (fractions[:-1] > limit[:-1] * (1 + 1e-6)).any():
            raise ConfigError(
                'execution.action "rate" sells at most twice what the closed form sells, and this '
                'schedule sells more; use "pace" or "fraction"'
            )
    spec = Spec(
        params.table.shape[-1], env.account_size(params), action_spec(env.action_space(params))
    )
    actions = env.actions(jnp.asarray(fractions, jnp.float32), params)
    return Schedule(actions=actions, spec=spec)


def _steps(params: ExecutionParams) -> int:
    return params.relative_volume.shape[0]
