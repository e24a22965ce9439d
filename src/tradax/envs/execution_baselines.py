"""What a learned seller must beat: schedules that are known before the first step.

A schedule is the fraction of what is left to sell at every step, so that it also sells all where
lots, halts or another seller left more than it had planned for.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tradax.envs._baselines import Rule, spec_of, step_of
from tradax.envs.execution import Execution, ExecutionParams
from tradax.errors import ConfigError


class Schedule(Rule):
    """Gives the action that belongs to the time left, which the account holds."""

    actions: jax.Array
    """[N, 1]"""

    def choose(self, row, account):
        n_steps = self.actions.shape[0]
        return self.actions[jnp.clip(step_of(account[..., 1], n_steps), 0, n_steps - 1)]


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
    actions = env.actions(jnp.asarray(fractions, jnp.float32), params)
    return Schedule(actions=actions, spec=spec_of(env, params))


def _steps(params: ExecutionParams) -> int:
    return params.relative_volume.shape[0]
