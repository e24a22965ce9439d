"""Selling a large position by a deadline (Almgren and Chriss 2000), with what textbooks leave out.

X shares are sold in N steps of tau = T / N days; n_k in step k, x_k = x_{k-1} - n_k left.

    S_k  = S_{k-1} + sigma sqrt(tau) xi_k - gamma n_k              price
    S~_k = S_{k-1} - eps - eta (n_k / (tau w_k))^b                 fill price

w_k is the volume expected in step k relative to the average step; with w_k = 1 and b = 1 this is
the paper's model, whose optimum `tradax.almgren_chriss` computes.

**Observation**: row k of the table, (w_k, share of the volume that is to come), and the account:
x / X, time left / T, (S - S_0) / (sigma sqrt(T)). The deadline ends the task, so the clock is seen.

**Action** a in [-1, 1]; what it means is chosen by `action`, with M the number of steps left:

    pace       sell the fraction ((a + 1) / 2)^(log2 M) of what is left: nothing at -1, the even
               share 1 / M at 0, all at 1
    fraction   sell the fraction (a + 1) / 2 of what is left
    rate       sell a + 1 times what the closed form sells, at most all

Lots round down; a halted step sells nothing; the last step sells the rest, whatever the action.

**Reward**, in units of the utility that an even sale costs, so that -1 is as good as TWAP:

    shortfall  r_k = n_k (S~_k - S_0) - lambda sigma^2 tau x_k^2
    expected   r_k = -n_k (S_{k-1} - S~_k) - gamma n_k x_k - lambda sigma^2 tau x_k^2

Both have the expected sum -(E + lambda V); the second is free of the noise of the price.

**On real bars** (`market` given) an episode is a window of bars, one a step. Prices are rescaled
to `initial_price` at the window's start; an order given after the close of bar t is filled at the
open of t+1, and sigma is measured on the training rows. There the expected reward counts costs and
risk only; the shortfall reward also pays for knowing where the price will go.

**End.** Terminated after step N. One asset; `portfolio_execution` sells several.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from tradax.almgren_chriss import AlmgrenChriss
from tradax.config import config, setting
from tradax.data.pipeline import Market
from tradax.data.splits import Span
from tradax.draws import random_integer
from tradax.envs._market import MarketEnvironment
from tradax.envs._windows import Windows, windows
from tradax.errors import ConfigError, DataError
from tradax.gymnax_parts import spaces


@config
class Config:
    """Selling a large position by a deadline at least cost."""

    shares: float = setting(default=1_000_000.0, above=0)
    """Shares to sell."""
    initial_price: float = setting(default=50.0, above=0)
    """Price a share when the decision to sell is made, in dollars."""
    volatility: float = setting(default=0.95, least=0)
    """Standard deviation of the price's change in a day, in dollars; measured on real bars."""
    horizon: float = setting(default=5.0, above=0)
    """Days until all must be sold."""
    steps: int = setting(default=5, least=1)
    """Steps into which the horizon is divided; on real bars, bars."""
    half_spread: float = setting(default=0.0625, least=0)
    """Half the bid-ask spread and fees, in dollars a share."""
    temporary_impact: float = setting(default=2.5e-6, above=0)
    """Dollars a share by which an order worsens its own price, at a rate of one share a day."""
    impact_exponent: float = setting(default=1.0, above=0, most=2)
    """Power of the rate in temporary impact; 1 is linear, 0.5 the square-root law."""
    permanent_impact: float = setting(default=2.5e-7, least=0)
    """Dollars by which every share sold lowers the price for good."""
    risk_aversion: float = setting(default=1e-6, least=0)
    """Weight of the variance of the shortfall, a dollar."""
    volume_profile: Literal["flat", "u_shaped", "bars"] = "flat"
    """Volume over the horizon: constant, three times as high at both ends as in the middle, or
    that of the bar on which the order is given. Impact counts the rate relative to it."""
    action: Literal["pace", "fraction", "rate"] = "pace"
    """What an action means: a pace relative to an even sale, a fraction of what is left, or a
    multiple of the closed form's rate."""
    reward: Literal["expected", "shortfall"] = "expected"
    """Expected cost given the orders, or realised shortfall; both minus the risk taken."""
    lot_size: float = setting(default=0.0, least=0)
    """Orders are multiples of this, except the last one. 0: any number of shares."""
    tick_size: float = setting(default=0.0, least=0)
    """Fill prices are rounded down to multiples of this, in dollars. 0: any price."""
    halt_probability: float = setting(default=0.0, least=0, below=1)
    """Chance that nothing can be sold in a step; the last step is never halted."""

    def validate(self):
        closed_form(self)


def closed_form(config: Config) -> AlmgrenChriss:
    """The textbook's model of the same sale; it ignores lots, ticks, halts and the profile.

    Impact other than linear is replaced by the linear one that costs an even sale as much.
    """
    even_rate = config.shares / config.horizon
    linear = config.temporary_impact * even_rate ** (config.impact_exponent - 1.0)
    least = config.permanent_impact * config.horizon / config.steps / 2.0
    if linear <= least:
        raise ConfigError(
            f"execution.temporary_impact is {config.temporary_impact}; an even sale costs "
            f"{linear:.4g} dollars a share for each share a day, which must exceed half the "
            f"permanent impact times the days of a step, {least:.4g}: else selling in one go is "
            "always cheapest. Take more steps, or a larger temporary_impact"
        )
    return AlmgrenChriss(
        shares=config.shares,
        volatility=config.volatility,
        horizon=config.horizon,
        steps=config.steps,
        half_spread=config.half_spread,
        temporary_impact=linear,
        permanent_impact=config.permanent_impact,
        risk_aversion=config.risk_aversion,
    )


@struct.dataclass
class ExecutionParams:
    """Market arrays and numbers; every field is a pytree leaf."""

    table: jax.Array
    """Features: [N, 2], or those of the bars [T, F]."""
    relative_volume: jax.Array
    """[N]: w_k, expected volume of a step over that of the average step."""
    optimal_fraction: jax.Array
    """[N]: the closed form for these numbers, as `make` was given them."""
    shares: jax.Array
    initial_price: jax.Array
    volatility: jax.Array
    step_days: jax.Array
    half_spread: jax.Array
    temporary_impact: jax.Array
    impact_exponent: jax.Array
    permanent_impact: jax.Array
    risk_aversion: jax.Array
    reward_unit: jax.Array
    """Dollars that a reward of 1 stands for."""
    lot_size: jax.Array
    tick_size: jax.Array
    halt_probability: jax.Array
    bars: jax.Array
    """[T, 3] of real bars: close, next open, relative volume; [1, 3] without a market."""
    first_row: jax.Array
    last_row: jax.Array
    """The span of bars in which windows lie, both inclusive."""
    n_symbols: jax.Array
    rows_per_symbol: jax.Array


@struct.dataclass
class ExecutionState:
    step: jax.Array
    """Steps taken, 0 to N."""
    start: jax.Array
    """Row of the window's first bar; 0 without a market."""
    shares: jax.Array
    """Left to sell."""
    market_move: jax.Array
    """S - S_0 without the permanent impact of what was sold; unused on real bars."""


class Execution(MarketEnvironment):
    """See the module's docstring. Fields choose the program; numbers are in `ExecutionParams`."""

    account_limit = 10.0

    def __init__(
        self,
        action: str = "pace",
        reward: str = "expected",
        linear: bool = True,
        lots: bool = False,
        ticks: bool = False,
        halts: bool = False,
        real_bars: bool = False,
        bar_volume: bool = False,
    ):
        super().__init__()
        self.action = action
        self.reward = reward
        self.linear = linear
        self.lots = lots
        self.ticks = ticks
        self.halts = halts
        self.real_bars = real_bars
        self.bar_volume = bar_volume

    @property
    def name(self) -> str:
        return "execution"

    @property
    def default_params(self) -> ExecutionParams:
        """The example of the paper."""
        return make(Config())[1]

    @property
    def num_actions(self) -> int:
        return 1

    def action_space(self, params: ExecutionParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,), jnp.float32)

    def row(self, state: ExecutionState) -> jax.Array:
        if self.real_bars:
            return state.start + state.step
        return state.step

    def account_size(self, params: ExecutionParams | None = None) -> int:
        return 3

    def account(self, state: ExecutionState, params: ExecutionParams) -> jax.Array:
        n_steps = params.relative_volume.shape[0]
        deviation = params.volatility * jnp.sqrt(n_steps * params.step_days)
        move = self._price_move(state, params)
        # Without volatility only the seller's own impact moves the price.
        move = jnp.where(deviation > 0, move / jnp.where(deviation > 0, deviation, 1.0), 0.0)
        left = 1.0 - state.step / n_steps
        return jnp.stack([state.shares / params.shares, left, jnp.clip(move, -10.0, 10.0)])

    def reset_state(self, key: jax.Array, params: ExecutionParams) -> ExecutionState:
        start = jnp.int32(0)
        if self.real_bars:
            symbol = random_integer(key, params.n_symbols)
            room = params.last_row - params.first_row - params.relative_volume.shape[0]
            row = random_integer(key, jnp.maximum(room, 0) + 1, stream=1)
            start = (symbol * params.rows_per_symbol + params.first_row + row).astype(jnp.int32)
        return ExecutionState(
            step=jnp.int32(0), start=start, shares=params.shares, market_move=jnp.float32(0)
        )

    def is_truncated(self, state: ExecutionState, params: ExecutionParams) -> jax.Array:
        return jnp.bool_(False)

    def fraction(self, action: jax.Array, step: jax.Array, params: ExecutionParams) -> jax.Array:
        """The fraction of the shares left that `action` [1] asks to sell at `step`."""
        unit = (jnp.clip(action[0], -1.0, 1.0) + 1.0) / 2.0
        if self.action == "fraction":
            return unit
        if self.action == "rate":
            return jnp.minimum(2.0 * unit * params.optimal_fraction[step], 1.0)
        left = jnp.asarray(params.relative_volume.shape[0] - step, jnp.float32)
        return unit ** jnp.log2(left)

    def actions(self, fractions: jax.Array, params: ExecutionParams) -> jax.Array:
        """The actions [N, 1] that ask for `fractions` [N]; the inverse of `fraction`.

        In kind "rate" what is more than twice the closed form's fraction is out of reach.
        """
        if self.action == "fraction":
            unit = fractions
        elif self.action == "rate":
            unit = fractions / (2.0 * params.optimal_fraction)
        else:
            left = jnp.arange(fractions.shape[0], 0, -1)
            unit = fractions ** (1.0 / jnp.log2(jnp.maximum(left, 2)))
        return jnp.clip(2.0 * unit - 1.0, -1.0, 1.0)[:, None]

    def step_state(self, key, state: ExecutionState, action, params: ExecutionParams):
        last = state.step + 1 >= params.relative_volume.shape[0]
        noise_key, halt_key = jax.random.split(key) if self.halts else (key, key)
        sold = self.fraction(action, state.step, params) * state.shares
        if self.lots:
            sold = jnp.floor(sold / params.lot_size) * params.lot_size
        if self.halts:
            halted = jax.random.uniform(halt_key) < params.halt_probability
            sold = jnp.where(halted, 0.0, sold)
        sold = jnp.where(last, state.shares, sold)
        left = state.shares - sold

        move = self._fill_move(state, params)  # S_{k-1} - S_0
        slip = params.half_spread + self._impact(sold, state, params)  # S_{k-1} - S~_k
        if self.ticks:
            slip = slip + self._rounding(params.initial_price + move - slip, params)
        variance = params.volatility**2 * params.step_days
        cost = sold * (slip - move)
        risk = params.risk_aversion * variance * left**2
        if self.reward == "shortfall":
            reward = -(cost + risk)
        else:
            reward = -(sold * (slip + params.permanent_impact * left) + risk)

        market_move = state.market_move
        if not self.real_bars:
            market_move = market_move + jnp.sqrt(variance) * jax.random.normal(noise_key)
        new_state = ExecutionState(
            step=state.step + 1, start=state.start, shares=left, market_move=market_move
        )
        info = {
            "sold": sold,
            "remaining": left,
            "fill_price": jnp.where(sold > 0, params.initial_price + move - slip, 0.0),
            "price": params.initial_price + self._price_move(new_state, params),
            "cost_dollars": cost,
            "risk_dollars": risk,
            "row": self.row(new_state),
        }
        return new_state, reward / params.reward_unit, last, info

    def _impact(self, sold, state: ExecutionState, params: ExecutionParams) -> jax.Array:
        """eta (n / (tau w))^b, in dollars a share."""
        if self.bar_volume:
            volume = params.bars[state.start + state.step, 2]
        else:
            volume = params.relative_volume[state.step]
        rate = sold / (params.step_days * volume)
        return params.temporary_impact * (rate if self.linear else rate**params.impact_exponent)

    def _rounding(self, price, params: ExecutionParams) -> jax.Array:
        """How far `price` lies above its tick."""
        # A hundredth of a tick is forgiven: in float32 prices on a tick may lie just below it.
        tick = jnp.floor(price / params.tick_size + 0.01) * params.tick_size
        return jnp.maximum(price - tick, 0.0)

    def _price_move(self, state: ExecutionState, params: ExecutionParams) -> jax.Array:
        """S - S_0 as it is seen when the order is given."""
        return self._market_move(state, params, 0) - self._permanent(state, params)

    def _fill_move(self, state: ExecutionState, params: ExecutionParams) -> jax.Array:
        """S - S_0 where the order is filled: on real bars, at the next open."""
        return self._market_move(state, params, 1) - self._permanent(state, params)

    def _market_move(self, state: ExecutionState, params: ExecutionParams, column: int):
        if not self.real_bars:
            return state.market_move
        base = params.bars[state.start, 0]
        return params.initial_price * (params.bars[state.start + state.step, column] / base - 1.0)

    def _permanent(self, state: ExecutionState, params: ExecutionParams) -> jax.Array:
        return params.permanent_impact * (params.shares - state.shares)


def make(
    config: Config,
    market: Market | tuple[Market, ...] | None = None,
    train: Span | None = None,
):
    """The environment and its parameters: on simulated prices, or on windows of real bars.

    Args:
        market: bars to take windows from, one bar a step; with several every episode plays on one
            of them, chosen at random.
        train: rows in which the windows lie and on which volatility is measured; None: all.

    Returns: (Execution, ExecutionParams).

    Raises:
        ConfigError: options that need bars, without them.
        DataError: bars that are too few, or lack volumes that an option needs.
    """
    by_bar = config.volume_profile == "bars"
    weights = _volume_profile(config)
    if market is None:
        if by_bar:
            raise ConfigError('execution.volume_profile "bars" needs a market; give bars')
        found = _without_bars(weights)
        model = closed_form(config)
    else:
        markets = (market,) if isinstance(market, Market) else market
        found = windows(markets, train, config.steps, needs_volume=by_bar)
        # Of the rescaled price's change, in dollars and square root of a day.
        step_days = config.horizon / config.steps
        volatility = float(found.volatility * config.initial_price / np.sqrt(step_days))
        model = closed_form(dataclasses.replace(config, volatility=volatility))
    env = Execution(
        action=config.action,
        reward=config.reward,
        linear=config.impact_exponent == 1.0,
        lots=config.lot_size > 0,
        ticks=config.tick_size > 0,
        halts=config.halt_probability > 0,
        real_bars=market is not None,
        bar_volume=by_bar,
    )
    number = jnp.float32
    params = ExecutionParams(
        table=jnp.asarray(found.table, jnp.float32),
        relative_volume=jnp.asarray(weights, jnp.float32),
        optimal_fraction=jnp.asarray(model.fractions(), jnp.float32),
        shares=number(config.shares),
        initial_price=number(config.initial_price),
        volatility=number(model.volatility),
        step_days=number(model.step_days),
        half_spread=number(config.half_spread),
        temporary_impact=number(config.temporary_impact),
        impact_exponent=number(config.impact_exponent),
        permanent_impact=number(config.permanent_impact),
        risk_aversion=number(config.risk_aversion),
        reward_unit=number(_even_sale_utility(config, model, weights)),
        lot_size=number(config.lot_size),
        tick_size=number(config.tick_size),
        halt_probability=number(config.halt_probability),
        bars=jnp.asarray(found.bars, jnp.float32),
        first_row=jnp.int32(found.span.first),
        last_row=jnp.int32(found.span.last),
        n_symbols=jnp.int32(found.n_symbols),
        rows_per_symbol=jnp.int32(found.rows_per_symbol),
    )
    return env, params


def over_span(params: ExecutionParams, span: Span) -> ExecutionParams:
    """The same sale, in windows of real bars that lie in `span`."""
    n_steps = params.relative_volume.shape[0]
    if span.rows <= n_steps:
        raise DataError(f"{span.rows} bars hold no window of {n_steps} steps; take fewer steps")
    return dataclasses.replace(
        params, first_row=jnp.int32(span.first), last_row=jnp.int32(span.last)
    )


def _volume_profile(config: Config) -> np.ndarray:
    """[N], mean 1."""
    weights = np.ones(config.steps)
    if config.volume_profile == "u_shaped":
        middle = 2.0 * (np.arange(config.steps) + 0.5) / config.steps - 1.0
        weights = 1.0 + 2.0 * middle**2
    return weights / weights.mean()


def _without_bars(weights: np.ndarray) -> Windows:
    """The table of a sale on simulated prices; its window is the whole of it."""
    to_come = np.cumsum(weights[::-1])[::-1] / len(weights)
    # A row more, for the state after the last step.
    table = np.stack([np.append(weights, 0.0), np.append(to_come, 0.0)], axis=1)
    return Windows(table, np.ones((1, 3)), Span(0, 0), 1, 1, 0.0)


def _even_sale_utility(config: Config, model: AlmgrenChriss, weights: np.ndarray) -> float:
    """E + lambda V in dollars of TWAP under this impact and profile, without lots, ticks, halts."""
    trades = model.twap()
    left = model.shares - np.cumsum(trades)
    rate = trades / (model.step_days * weights)
    slip = config.half_spread + config.temporary_impact * rate**config.impact_exponent
    expected = (trades * (slip + config.permanent_impact * left)).sum()
    return float(expected + config.risk_aversion * model.variance(trades))
