"""What all market environments share: factored observations, equality by value, cheap draws."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tradax.draws import another_key
from tradax.gymnax_parts import Environment, spaces


class MarketEnvironment(Environment):
    """A gymnax environment whose observation is a row of a table and a small account.

    Subclasses define `default_params`, `row`, `account`, `account_size`, `reset_state`,
    `step_state` and `is_truncated`. Fields that choose the program are plain values set in
    `__init__`; two environments with equal fields are equal, so they share one compilation.
    """

    rows_advance = True
    """Whether no step of an episode goes further than to the next row of the table."""

    account_limit: float = float(np.finfo(np.float32).max)
    """No number of the account is further from 0."""

    @property
    def default_params(self) -> Any:
        """A small example, so that the environment works without data."""
        raise NotImplementedError

    def market_table(self, params: Any) -> jax.Array:
        """Features [T, F], the same whatever the agent does; those in the parameters."""
        return params.table

    def row(self, state: Any) -> jax.Array:
        """The table's row that is observed, int32."""
        raise NotImplementedError

    def account(self, state: Any, params: Any) -> jax.Array:
        """What depends on the agent, float32 [K]."""
        raise NotImplementedError

    def account_size(self, params: Any) -> int:
        """K."""
        raise NotImplementedError

    def reset_state(self, key: jax.Array, params: Any) -> Any:
        """The first state of an episode."""
        raise NotImplementedError

    def step_state(
        self, key: jax.Array, state: Any, action: Any, params: Any
    ) -> tuple[Any, jax.Array, jax.Array, dict]:
        """Returns: state, reward, terminated, info."""
        raise NotImplementedError

    @partial(jax.jit, static_argnames=("self",))
    def step(self, key, state, action, params=None):
        """As in gymnax; what ends an episode is one of `terminated` and `truncated`, never both."""
        params = self.default_params if params is None else params
        stepped, reward, terminated, info = self.step_state(key, state, action, params)
        truncated = self.is_truncated(stepped, params) & ~terminated
        fresh = self.reset_state(another_key(key), params)
        done = terminated | truncated
        state = jax.tree.map(lambda new, old: jax.lax.select(done, new, old), fresh, stepped)
        info = {
            **info,
            "terminated": terminated,
            "truncated": truncated,
            "final_observation": self.get_obs(stepped, params),
        }
        return self.get_obs(state, params), state, reward, terminated, truncated, info

    def reset_env(self, key, params):
        state = self.reset_state(key, params)
        return self.get_obs(state, params), state

    def step_env(self, key, state, action, params):
        state, reward, terminated, info = self.step_state(key, state, action, params)
        return self.get_obs(state, params), state, reward, terminated, info

    def get_obs(self, state, params=None, key=None):
        """The flat observation: concat(table[row], account)."""
        table = self.market_table(params)
        return jnp.concatenate([table[self.row(state)], self.account(state, params)])

    def observation_space(self, params):
        size = self.market_table(params).shape[-1] + self.account_size(params)
        return spaces.Box(-jnp.inf, jnp.inf, (size,), jnp.float32)

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self):
        return hash((type(self), tuple(sorted(vars(self).items()))))
