"""What a portfolio's orders ask for, cost and earn, wherever its prices come from.

`portfolio` has the formulas of actions, costs and interest. The cost of an order,

    s = c sum_i |w'_i (1 - s) - w_i|,

is linear in s given which assets are bought and which sold, e_i = +-1,

    s = c sum_i e_i (w'_i - w_i) / (1 + c sum_i e_i w'_i)

which is Newton's step on a piecewise linear, concave function: from s = 0 it rises to the
solution and ends there once the signs are right. Three steps are taken.
"""

import dataclasses
import math
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from tradax.envs._market import MarketEnvironment
from tradax.envs._rewards import ReturnState, differential_sharpe, moments
from tradax.errors import ConfigError
from tradax.gymnax_parts import spaces

_FLOOR = 1e-3  # ruin is a loss of 99.9%, not an infinite one
_REACH = 0.99  # weight that one asset must be able to get


@struct.dataclass
class AllocationParams:
    """Numbers that every portfolio needs; the parameters of an environment add to them."""

    initial_cash: jax.Array
    cost: jax.Array
    """Commission and half spread, as a fraction of what is traded."""
    gross: jax.Array
    borrow_rate: jax.Array
    """Per bar."""
    cash_rate: jax.Array
    """Per bar."""
    ruin_level: jax.Array
    risk_aversion: jax.Array
    cost_aversion: jax.Array
    sharpe_rate: jax.Array


@struct.dataclass
class AllocationState(ReturnState):
    row: jax.Array
    weights: jax.Array
    """[n], without cash."""
    net_worth: jax.Array


State = TypeVar("State", bound=AllocationState)


class Held(NamedTuple):
    """What holding did."""

    gain: jax.Array
    """Simple return of net worth, interest included."""
    weights: jax.Array
    """[n] after prices have moved."""
    interest: jax.Array
    """As a fraction of net worth before."""


class Allocation(MarketEnvironment):
    """A portfolio of `n_assets` assets and cash; subclasses say how prices move."""

    account_limit = 10.0

    def __init__(self, n_assets: int, fill: str, logit_limit: float, long_short: bool, reward: str):
        super().__init__()
        self.n_assets = n_assets
        self.fill = fill
        self.logit_limit = logit_limit
        self.long_short = long_short
        self.reward = reward

    @property
    def num_actions(self) -> int:
        return self.n_assets if self.long_short else self.n_assets + 1

    def action_space(self, params: AllocationParams | None = None) -> spaces.Box:
        limit = self.logit_limit
        return spaces.Box(-limit, limit, (self.num_actions,), jnp.float32)

    def weights(self, action: jax.Array, params: AllocationParams) -> jax.Array:
        """Target weights [..., n], without cash, of actions [..., A]."""
        action = jnp.clip(action, -self.logit_limit, self.logit_limit)
        if not self.long_short:
            return jax.nn.softmax(action)[..., :-1]
        position = jnp.tanh(action)
        total = jnp.abs(position).sum(-1, keepdims=True)
        return params.gross * position / jnp.maximum(total, 1.0)

    def actions(self, weights: jax.Array, params: AllocationParams) -> jax.Array:
        """Actions [..., A] that ask for weights [..., n], or the nearest that can be asked for."""
        limit = self.logit_limit
        if self.long_short:
            position = weights / params.gross
            total = jnp.abs(position).sum(-1, keepdims=True)
            position = position / jnp.maximum(total, 1.0)
            return jnp.clip(jnp.arctanh(jnp.clip(position, -1.0, 1.0)), -limit, limit)
        cash = 1.0 - weights.sum(-1, keepdims=True)
        logits = jnp.log(jnp.maximum(jnp.concatenate([weights, cash], -1), 1e-30))
        # The largest weight at the upper bound, so that small ones have the whole range below.
        return jnp.maximum(logits - logits.max(-1, keepdims=True) + limit, -limit)

    def held(self, state: AllocationState) -> jax.Array:
        """The weights [n + 1] as they are observed, cash last."""
        weights = jnp.append(state.weights, 1.0 - state.weights.sum())
        # Near ruin they lose their meaning, and a network its footing.
        return jnp.clip(weights, -10.0, 10.0)

    def rebalance(
        self,
        state: State,
        target: jax.Array,
        to_fill: jax.Array,
        to_close: jax.Array,
        params: AllocationParams,
    ) -> tuple[State, jax.Array, jax.Array, dict]:
        """Trade to `target` [n] after prices moved by `to_fill` [n], and hold for `to_close` [n].

        Returns: as `step_state`.
        """
        at_end = self.fill == "next_close"
        first = self._hold(state.weights, to_fill, params, interest=at_end)
        wanted = self._hold(target, to_fill, params, interest=at_end).weights
        spent = self._cost(first.weights, wanted, params)
        second = self._hold(wanted, to_close, params, interest=not at_end)

        # The return of the bar from small numbers, not as a quotient near 1: float32 has 7 digits.
        gain = first.gain + second.gain + first.gain * second.gain
        change = gain - spent * (1.0 + gain)
        net_worth = state.net_worth + state.net_worth * change
        broke = jnp.minimum(jnp.minimum(first.gain, second.gain), -spent) <= _FLOOR - 1.0
        terminated = broke | (net_worth <= params.ruin_level * params.initial_cash)
        reward, mean, square = self._reward(state, change, spent, params)
        new_state = dataclasses.replace(
            state,
            row=state.row + 1,
            time=state.time + 1,
            weights=second.weights,
            net_worth=net_worth,
            mean=mean,
            square=square,
        )
        at_fill = state.net_worth * (1.0 + first.gain)
        after_cost = at_fill * (1.0 - spent)
        interest = first.interest * state.net_worth + second.interest * after_cost
        info = {
            "net_worth": net_worth,
            "weights": second.weights,
            "target": target,
            "row": new_state.row,
            "cost": spent * at_fill,
            "turnover": jnp.abs(wanted * (1.0 - spent) - first.weights).sum() * at_fill,
            "interest": interest,
        }
        return new_state, reward, terminated, info

    def _hold(self, weights, moves, params: AllocationParams, *, interest: bool) -> Held:
        """Keep `weights` [n] while prices move by `moves` [n]."""
        gain = jnp.sum(weights * moves)
        earned = jnp.float32(0)
        if interest:
            cash = 1.0 - weights.sum()
            earned = cash * jnp.where(cash > 0, params.cash_rate, params.borrow_rate)
            if self.long_short:
                earned -= jnp.maximum(-weights, 0.0).sum() * params.borrow_rate
            gain += earned
        gain = jnp.maximum(gain, _FLOOR - 1.0)
        return Held(gain, weights * (1.0 + moves) / (1.0 + gain), earned)

    def _cost(self, weights, target, params: AllocationParams) -> jax.Array:
        """What moving from `weights` to `target` costs, as a fraction of net worth before."""
        spent = jnp.float32(0)
        for _ in range(3):
            side = jnp.sign(target * (1.0 - spent) - weights)
            traded = jnp.sum(side * (target - weights))
            spent = params.cost * traded / (1.0 + params.cost * jnp.sum(side * target))
        return jnp.minimum(spent, 1.0 - _FLOOR)

    def _reward(self, state: AllocationState, change, spent, params: AllocationParams):
        """Returns: reward, and the running first and second moment of the return."""
        moved = moments(state, change, params.sharpe_rate)
        if self.reward == "log_growth":
            reward = jnp.log1p(jnp.maximum(change, _FLOOR - 1.0))
        elif self.reward == "differential_sharpe":
            reward = differential_sharpe(state, moved, params.sharpe_rate)
        else:
            risk = params.risk_aversion * moved.delta_mean**2
            reward = change - risk - params.cost_aversion * spent
        return reward, moved.mean, moved.square


def check_reach(name: str, logit_limit: float, n: int, *, long_short: bool) -> None:
    """Raises ConfigError unless one of n assets can get a weight of 0.99."""
    limit = float(logit_limit)
    if long_short:
        reach, needed = math.tanh(limit), math.atanh(_REACH)
    else:
        reach = 1.0 / (1.0 + n * math.exp(-2.0 * limit))
        needed = 0.5 * math.log(n * _REACH / (1.0 - _REACH))
    if reach < _REACH:
        raise ConfigError(
            f"{name}.logit_limit is {limit:g}: of {n} assets one would get a weight of at most "
            f"{reach:.3g}; take at least {math.ceil(10 * needed) / 10:g}"
        )
