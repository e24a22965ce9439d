"""Trading one asset with a continuous two-part action.

**Observation** at row t: row t of the feature table, and the account: position and cash as
fractions of net worth, unrealised return of the open position.

**Action** in [-1, 1]^2: direction and size. Direction above 1/3 buys, below -1/3 sells, else
holds. Size (a + 1)/2 is the fraction of what can be bought with the cash at hand, or of what can
be sold. With `leverage` L and `allow_short` the same fraction is taken of the way to the limits
L x net worth and -L x net worth.

**Fill.** An order given on bar t, after its close was seen, is filled at the open of t+1
(`next_open`), at the close of t+1 (`next_close`), or at the close of t itself (`close`: that is
look-ahead, and results are marked so). The price moves against the order by half the spread and
by square-root impact, volatility_t sqrt(shares / volume_t) (Almgren et al. 2005), both known on
bar t. The commission is a rate with a minimum; an order worth less than its commission is not sent.

**Stops.** A stop-loss or take-profit is looked for within bar t+1, and filled at its level, or at
the open where the bar opens beyond it. Where both lie within one bar the stop-loss is taken.

**Accounting.** cash + shares x close = net worth, after costs, interest and borrow fees, at every
step. Proceeds of short sales are cash.

**End.** Truncated when the span or the episode's length is over; terminated at ruin.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from tradax.config import config, setting
from tradax.data.pipeline import Market, Pipeline
from tradax.data.splits import Span
from tradax.draws import random_integer
from tradax.envs import _baselines
from tradax.envs._market import MarketEnvironment
from tradax.envs._orders import Holdings, OrderParams, Quote, filled, possible, stopped
from tradax.envs._rewards import ReturnState, differential_sharpe, moments
from tradax.envs._span import SpanParams, shared_rows, start_row
from tradax.envs._span import over_span as over_span
from tradax.errors import DataError
from tradax.gymnax_parts import spaces


@config
class Config:
    """Trading one asset: direction and size."""

    initial_cash: float = setting(default=100_000.0, above=0)
    """Cash at the start, in the currency of the prices."""
    episode_length: int = setting(default=252, least=1)
    """Bars in a training episode; evaluation walks its whole span."""
    fill: Literal["next_open", "next_close", "close"] = "next_open"
    """Price at which an order is filled; "close" is look-ahead."""
    commission_bps: float = setting(default=5.0, least=0, below=10_000)
    """Commission, in basis points of the traded value."""
    commission_min: float = setting(default=0.0, least=0)
    """Least commission of an order, in currency."""
    half_spread_bps: float = setting(default=1.0, least=0, below=10_000)
    """Half the bid-ask spread, in basis points of the price."""
    impact: float = setting(default=0.0, least=0)
    """Coefficient of square-root volume impact, in units of the bar's volatility."""
    lot_size: float | None = setting(default=None, above=0, static=True)
    """Shares are bought and sold in multiples of this. None: fractions of shares."""
    allow_short: bool = False
    """Selling may go below zero shares."""
    leverage: float = setting(default=1.0, above=0, most=10)
    """Largest position that an order may reach, as a multiple of net worth."""
    borrow_rate: float = setting(default=0.03, least=0)
    """Annual rate on borrowed shares and on negative cash."""
    cash_rate: float = setting(default=0.0, above=-1)
    """Annual interest on cash."""
    stop_loss: float | None = setting(default=None, above=0, below=1)
    """Close a position that has lost this fraction of its entry price. None: never."""
    take_profit: float | None = setting(default=None, above=0)
    """Close a position that has gained this fraction of its entry price. None: never."""
    ruin_level: float = setting(default=0.1, least=0, below=1)
    """The episode terminates when net worth falls to this fraction of the initial cash."""
    reward: Literal["log_return", "profit", "differential_sharpe", "mean_variance"] = "log_return"
    """What is summed: log return of net worth, profit over initial cash, differential Sharpe
    ratio, or return minus risk_aversion times its squared deviation from the running mean."""
    risk_aversion: float = setting(default=1.0, least=0)
    """Weight of the variance in the mean_variance reward."""
    sharpe_rate: float = setting(default=0.01, above=0, most=1)
    """Adaptation rate of the running moments that two of the rewards use."""


@struct.dataclass
class TradingParams(SpanParams, OrderParams):
    """Market arrays and numbers; every field is a pytree leaf."""

    table: jax.Array
    """Features [T, F]; with several symbols their tables one after the other."""
    quotes: jax.Array
    """[T, 7], see `Quote`."""
    n_symbols: jax.Array
    rows_per_symbol: jax.Array
    initial_cash: jax.Array
    borrow_rate: jax.Array
    """Per bar."""
    cash_rate: jax.Array
    """Per bar."""
    ruin_level: jax.Array
    risk_aversion: jax.Array
    sharpe_rate: jax.Array


@struct.dataclass
class TradingState(ReturnState):
    row: jax.Array
    last_row: jax.Array
    cash: jax.Array
    shares: jax.Array
    entry_price: jax.Array
    """Average price paid for the open position, 0 without one."""
    net_worth: jax.Array


class Trading(MarketEnvironment):
    """See the module's docstring. Fields choose the program; numbers are in `TradingParams`."""

    account_limit = 10.0

    def __init__(
        self,
        fill: str = "next_open",
        lot_size: float | None = None,
        allow_short: bool = False,
        stops: bool = False,
        reward: str = "log_return",
    ):
        super().__init__()
        self.fill = fill
        self.lot_size = lot_size
        self.allow_short = allow_short
        self.stops = stops
        self.reward = reward

    @property
    def name(self) -> str:
        return "trading"

    @property
    def default_params(self) -> TradingParams:
        """A small seeded random walk, so that the environment works without data."""
        from tradax.data.features import Config as FeatureConfig
        from tradax.data.synthetic import geometric_brownian_motion

        bars = geometric_brownian_motion(512)
        (market,) = Pipeline.fit(bars, FeatureConfig(indicators=False)).transform(bars)
        return make(Config(), market, Span(market.first_row, len(market.close) - 1))[1]

    @property
    def num_actions(self) -> int:
        return 2

    def action_space(self, params: TradingParams | None = None) -> spaces.Space:
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def row(self, state: TradingState) -> jax.Array:
        return state.row

    def account_size(self, params: TradingParams | None = None) -> int:
        return 3

    def account(self, state: TradingState, params: TradingParams) -> jax.Array:
        close = Quote(*params.quotes[state.row]).close
        entry = jnp.where(state.shares != 0, state.entry_price, close)
        gain = jnp.sign(state.shares) * (close / entry - 1.0)
        # Near ruin the fractions lose their meaning, and a network its footing.
        fractions = jnp.stack([state.shares * close, state.cash]) / state.net_worth
        return jnp.clip(jnp.append(fractions, gain), -10.0, 10.0)

    def reset_state(self, key: jax.Array, params: TradingParams) -> TradingState:
        symbol = random_integer(key, params.n_symbols)
        offset = symbol * params.rows_per_symbol
        zero = jnp.float32(0)
        return TradingState(
            row=(offset + start_row(key, params, stream=1)).astype(jnp.int32),
            last_row=(offset + params.last_row).astype(jnp.int32),
            time=jnp.int32(0),
            cash=params.initial_cash,
            shares=zero,
            entry_price=zero,
            net_worth=params.initial_cash,
            mean=zero,
            square=zero,
        )

    def is_truncated(self, state: TradingState, params: TradingParams) -> jax.Array:
        return (state.row >= state.last_row) | (state.time >= params.episode_length)

    def order(self, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns: side (1 buys, -1 sells, 0 holds) and size, the fraction of what is possible."""
        direction, size = action[0], (jnp.clip(action[1], -1.0, 1.0) + 1.0) / 2.0
        return jnp.sign(direction) * (jnp.abs(direction) > 1.0 / 3.0), size

    def step_state(self, key, state: TradingState, action, params: TradingParams):
        quote = Quote(*params.quotes[state.row])
        side, size = self.order(action)
        holdings = self.holdings(state)

        if self.fill == "next_close":
            holdings = stopped(holdings, quote, params) if self.stops else holdings
            holdings = self._trade(holdings, side, size, quote.next_close, quote, params)
        else:
            price = quote.next_open if self.fill == "next_open" else quote.close
            holdings = self._trade(holdings, side, size, price, quote, params)
            holdings = stopped(holdings, quote, params) if self.stops else holdings
        return self.settle(state, holdings, params)

    def holdings(self, state: TradingState) -> Holdings:
        """The account before anything has been filled in this step."""
        zero = jnp.float32(0)
        return Holdings(state.cash, state.shares, state.entry_price, zero, zero, zero, zero)

    def intended(self, state: TradingState, action, params: TradingParams) -> Holdings:
        """The account, were the order filled at the close of the bar on which it is given."""
        quote = Quote(*params.quotes[state.row])
        return self._trade(self.holdings(state), *self.order(action), quote.close, quote, params)

    def settle(self, state: TradingState, holdings: Holdings, params: TradingParams):
        """What the next bar makes of `holdings`, in which all fills are: interest, worth, reward.

        Returns: as `step_state`.
        """
        quote = Quote(*params.quotes[state.row])
        rate = jnp.where(holdings.cash > 0, params.cash_rate, params.borrow_rate)
        borrowed = jnp.maximum(-holdings.shares, 0.0) * quote.close
        cash = holdings.cash * (1.0 + rate) - borrowed * params.borrow_rate
        net_worth = cash + holdings.shares * quote.next_close
        terminated = net_worth <= params.ruin_level * params.initial_cash
        reward, mean, square = self._reward(state, net_worth, params)
        new_state = TradingState(
            row=state.row + 1,
            last_row=state.last_row,
            time=state.time + 1,
            cash=cash,
            shares=holdings.shares,
            entry_price=holdings.entry_price,
            net_worth=net_worth,
            mean=mean,
            square=square,
        )
        info = {
            "net_worth": net_worth,
            "cash": cash,
            "shares": holdings.shares,
            "price": quote.next_close,
            "row": new_state.row,
            "cost": holdings.cost,
            "traded": holdings.traded,
            "turnover": holdings.turnover,
            "fill_price": holdings.fill_price,
            "interest": cash - holdings.cash,
        }
        return new_state, reward, terminated, info

    def _trade(self, holdings, side, size, price, quote: Quote, params: TradingParams) -> Holdings:
        """Send an order for the fraction `size` of what can be bought or sold at `price`."""
        buy, sell = possible(holdings, size, price, quote, params, allow_short=self.allow_short)
        return self._send(holdings, side, jnp.where(side > 0, buy, sell), price, quote, params)

    def _send(self, holdings, side, shares, price, quote: Quote, params: TradingParams) -> Holdings:
        """Fill an order for whole lots of `shares`."""
        if self.lot_size is not None:
            # Rounding must not leave a lot behind where an order closes the position.
            closes = jnp.abs(holdings.shares + side * shares) < 1e-3 * self.lot_size
            closes &= jnp.abs(holdings.shares) > 0.5 * self.lot_size
            whole = jnp.floor(shares / self.lot_size) * self.lot_size
            shares = jnp.where(closes, shares, whole)
        return filled(holdings, side * shares, price, quote, params)

    def _reward(self, state: TradingState, net_worth, params: TradingParams):
        """Returns: reward, and the running first and second moment of the return."""
        change = net_worth / state.net_worth - 1.0
        moved = moments(state, change, params.sharpe_rate)
        if self.reward == "log_return":
            floor = 1e-3 * state.net_worth  # ruin is a loss of 99.9%, not an infinite one
            reward = jnp.log(jnp.maximum(net_worth, floor) / state.net_worth)
        elif self.reward == "profit":
            reward = (net_worth - state.net_worth) / params.initial_cash
        elif self.reward == "differential_sharpe":
            reward = differential_sharpe(state, moved, params.sharpe_rate)
        else:
            reward = change - params.risk_aversion * moved.delta_mean**2
        return reward, moved.mean, moved.square


def make(config: Config, market: Market | tuple[Market, ...], train: Span):
    """The environment and its parameters on one market, or on several that share a calendar.

    Args:
        market: with several, every episode plays on one of them, chosen at random.
        train: rows for training episodes; see `over_span` for evaluation.

    Returns: (Trading, TradingParams).
    """
    markets: tuple[Market, ...] = (market,) if isinstance(market, Market) else market
    rows = shared_rows(markets)
    if config.impact > 0 and not all(m.has_volume for m in markets):
        raise DataError("trading.impact needs volumes, and the data has none; set it to 0")
    stops = config.stop_loss is not None or config.take_profit is not None
    if stops and not all(m.has_range for m in markets):
        raise DataError("stop_loss and take_profit need highs and lows; the data has only closes")
    env = Trading(
        fill=config.fill,
        lot_size=config.lot_size,
        allow_short=config.allow_short,
        stops=stops,
        reward=config.reward,
    )
    per_bar = 1.0 / markets[0].periods_per_year
    number = jnp.float32
    params = TradingParams(
        **{name: jnp.asarray(a) for name, a in market_arrays(config, markets).items()},
        first_row=jnp.int32(train.first),
        last_row=jnp.int32(train.last),
        n_symbols=jnp.int32(len(markets)),
        rows_per_symbol=jnp.int32(rows),
        episode_length=jnp.int32(config.episode_length),
        random_start=jnp.bool_(True),
        initial_cash=number(config.initial_cash),
        commission=number(config.commission_bps * 1e-4),
        commission_min=number(config.commission_min),
        half_spread=number(config.half_spread_bps * 1e-4),
        impact=number(config.impact),
        leverage=number(config.leverage),
        borrow_rate=number(config.borrow_rate * per_bar),
        cash_rate=number(config.cash_rate * per_bar),
        stop_loss=number(1e9 if config.stop_loss is None else config.stop_loss),
        take_profit=number(1e9 if config.take_profit is None else config.take_profit),
        ruin_level=number(config.ruin_level),
        risk_aversion=number(config.risk_aversion),
        sharpe_rate=number(config.sharpe_rate),
    )
    return env, params


def market_arrays(config: Config, markets: tuple[Market, ...]) -> dict[str, np.ndarray]:
    """The fields of the parameters that hold what was on each bar, float32 [T, ...]."""
    return {
        "table": np.concatenate([m.table for m in markets]).astype(np.float32),
        "quotes": np.concatenate([_quotes(m) for m in markets]).astype(np.float32),
    }


def without_costs(params: TradingParams) -> TradingParams:
    """The same market at no cost, for gross figures."""
    zero = jnp.float32(0)
    return dataclasses.replace(
        params, commission=zero, commission_min=zero, half_spread=zero, impact=zero
    )


def at_cost(params: TradingParams, cost: float) -> TradingParams:
    """The same market where an order costs this fraction of its value and nothing else."""
    return dataclasses.replace(without_costs(params), commission=jnp.float32(cost))


def benchmark(env: Trading) -> Trading:
    """Where buy-and-hold and cash are walked: without stops, which would sell what is to be held.

    Its actions are continuous, so that they also reach 1 x net worth beside policies that cannot.
    """
    return Trading(
        fill=env.fill,
        lot_size=env.lot_size,
        allow_short=env.allow_short,
        stops=False,
        reward=env.reward,
    )


def rivals(
    env: Trading, params: TradingParams, n_steps: int, key: jax.Array
) -> dict[str, _baselines.Plan]:
    """What a policy is compared with over `n_steps` bars: buy-and-hold, cash, random actions."""
    # Size is a fraction of the way to `leverage` x net worth; buy-and-hold goes to 1 x.
    size = 2.0 / float(params.leverage) - 1.0
    cash = np.tile(np.array([[0.0, -1.0]], np.float32), (n_steps, 1))
    hold = cash.copy()
    hold[0] = 1.0, min(size, 1.0)
    plans = {
        "buy_and_hold": jnp.asarray(hold),
        "cash": jnp.asarray(cash),
        "random": jax.random.uniform(key, (n_steps, 2), minval=-1.0, maxval=1.0),
    }
    return {name: _baselines.Plan(actions) for name, actions in plans.items()}


def _quotes(market: Market) -> np.ndarray:
    """[T, 7]: what an order given on each bar can meet. The last bar has no next one."""
    following = [
        np.append(series[1:], series[-1:])
        for series in (market.open, market.high, market.low, market.close)
    ]
    return np.stack([market.close, *following, market.volume, market.volatility], axis=1)
