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

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from tradax.config import config, setting
from tradax.data.pipeline import Market, Pipeline
from tradax.data.splits import Span
from tradax.envs import _baselines
from tradax.envs._market import MarketEnvironment, random_integer
from tradax.errors import DataError


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


class Quote(NamedTuple):
    """What an order given on a bar can meet; a row of `TradingParams.quotes`."""

    close: jax.Array
    next_open: jax.Array
    next_high: jax.Array
    next_low: jax.Array
    next_close: jax.Array
    volume: jax.Array
    volatility: jax.Array


@struct.dataclass
class TradingParams:
    """Market arrays and numbers; every field is a pytree leaf."""

    table: jax.Array
    """Features [T, F]; with several symbols their tables one after the other."""
    quotes: jax.Array
    """[T, 7], see `Quote`."""
    first_row: jax.Array
    last_row: jax.Array
    """The span of rows that may be visited, both inclusive."""
    n_symbols: jax.Array
    rows_per_symbol: jax.Array
    episode_length: jax.Array
    random_start: jax.Array
    """False: every episode starts at `first_row`."""
    initial_cash: jax.Array
    commission: jax.Array
    commission_min: jax.Array
    half_spread: jax.Array
    impact: jax.Array
    leverage: jax.Array
    borrow_rate: jax.Array
    """Per bar."""
    cash_rate: jax.Array
    """Per bar."""
    stop_loss: jax.Array
    take_profit: jax.Array
    ruin_level: jax.Array
    risk_aversion: jax.Array
    sharpe_rate: jax.Array


@struct.dataclass
class TradingState:
    row: jax.Array
    last_row: jax.Array
    time: jax.Array
    """Steps since the episode began."""
    cash: jax.Array
    shares: jax.Array
    entry_price: jax.Array
    """Average price paid for the open position, 0 without one."""
    net_worth: jax.Array
    mean: jax.Array
    square: jax.Array
    """Running moments of the return a bar, for two of the rewards."""


class Holdings(NamedTuple):
    """An account in the middle of a step."""

    cash: jax.Array
    shares: jax.Array
    entry_price: jax.Array
    cost: jax.Array
    """Commission, spread and impact paid in this step."""
    traded: jax.Array
    """Shares bought plus shares sold in this step."""
    turnover: jax.Array
    """Their value, in currency."""
    fill_price: jax.Array
    """Of the last fill in this step; 0 without one."""


class Trading(MarketEnvironment):
    """See the module's docstring. Fields choose the program; numbers are in `TradingParams`."""

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
    def default_params(self) -> TradingParams:  # type: ignore[override]
        """A small seeded random walk, so that the environment works without data."""
        from tradax.data.features import Config as FeatureConfig
        from tradax.data.synthetic import geometric_brownian_motion

        bars = geometric_brownian_motion(512)
        (market,) = Pipeline.fit(bars, FeatureConfig(indicators=False)).transform(bars)
        return make(Config(), market, Span(market.first_row, len(market.close) - 1))[1]

    @property
    def num_actions(self) -> int:
        return 2

    def action_space(self, params: TradingParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def market_table(self, params: TradingParams) -> jax.Array:
        return params.table

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
        room = jnp.maximum(params.last_row - params.first_row - params.episode_length, 0)
        start = random_integer(key, room + 1, stream=1) * params.random_start
        offset = symbol * params.rows_per_symbol
        zero = jnp.float32(0)
        return TradingState(
            row=(offset + params.first_row + start).astype(jnp.int32),
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
        zero = jnp.float32(0)
        holdings = Holdings(state.cash, state.shares, state.entry_price, zero, zero, zero, zero)

        if self.fill == "next_close":
            holdings = self._apply_stops(holdings, quote, params)
            holdings = self._trade(holdings, side, size, quote.next_close, quote, params)
        else:
            price = quote.next_open if self.fill == "next_open" else quote.close
            holdings = self._trade(holdings, side, size, price, quote, params)
            holdings = self._apply_stops(holdings, quote, params)

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
        buy, sell = self._possible(holdings, size, price, quote, params)
        return self._send(holdings, side, jnp.where(side > 0, buy, sell), price, quote, params)

    def _possible(self, holdings, size, price, quote: Quote, params: TradingParams):
        """Shares that the fraction `size` of the way to the limits buys, and sells."""
        leverage, minimum = params.leverage, params.commission_min
        net_worth = jnp.maximum(holdings.cash + holdings.shares * price, 0.0)
        position = holdings.shares * price

        room = jnp.maximum(leverage * net_worth - position, 0.0)
        spend = size * room
        # Impact of the largest possible order: the one that is sent costs no more.
        slip = self._slip(spend / price, quote, params)
        unit = leverage * ((1.0 + slip) * (1.0 + params.commission) - 1.0)
        buy = jnp.minimum(
            spend / (price * (1.0 + unit)),
            (spend - leverage * minimum) / (price * (1.0 + leverage * slip)),
        )

        sell = size * holdings.shares
        if self.allow_short:
            limit = leverage * net_worth / price
            slip = self._slip(holdings.shares + limit, quote, params)
            unit = leverage * (slip + params.commission)
            longs = jnp.maximum(holdings.shares, 0.0)
            limit = (leverage * (net_worth - minimum) / price - longs * unit) / (1.0 + unit)
            sell = size * (holdings.shares + jnp.maximum(limit, 0.0))
        return jnp.maximum(buy, 0.0), jnp.maximum(sell, 0.0)

    def _send(self, holdings, side, shares, price, quote: Quote, params: TradingParams) -> Holdings:
        """Fill an order for whole lots of `shares`."""
        if self.lot_size is not None:
            shares = jnp.floor(shares / self.lot_size) * self.lot_size
        return self._fill(holdings, side * shares, price, quote, params)

    def _apply_stops(self, holdings: Holdings, quote: Quote, params: TradingParams) -> Holdings:
        """Close the position where the next bar reaches its stop-loss or take-profit."""
        if not self.stops:
            return holdings
        side = jnp.sign(holdings.shares)
        stop = holdings.entry_price * (1.0 - side * params.stop_loss)
        target = holdings.entry_price * (1.0 + side * params.take_profit)
        worst = jnp.where(side > 0, quote.next_low, quote.next_high)
        best = jnp.where(side > 0, quote.next_high, quote.next_low)
        stopped = (side != 0) & (side * (worst - stop) <= 0)
        taken = (side != 0) & (side * (best - target) >= 0) & ~stopped
        # A bar that opens beyond the level is filled at its open.
        stop_price = side * jnp.minimum(side * quote.next_open, side * stop)
        target_price = side * jnp.maximum(side * quote.next_open, side * target)
        price = jnp.where(stopped, stop_price, target_price)
        price = jnp.where(stopped | taken, price, quote.next_close)
        shares = jnp.where(stopped | taken, -holdings.shares, 0.0)
        return self._fill(holdings, shares, price, quote, params)

    def _fill(self, holdings, shares, price, quote: Quote, params: TradingParams) -> Holdings:
        """Exchange `shares` (signed) for cash at `price` and its costs."""
        slip = self._slip(jnp.abs(shares), quote, params)
        fill_price = price * (1.0 + jnp.sign(shares) * slip)
        value = jnp.abs(shares) * fill_price
        commission = jnp.maximum(value * params.commission, params.commission_min)
        sent = (value > 0) & (commission <= value)
        shares, value, commission = (jnp.where(sent, x, 0.0) for x in (shares, value, commission))

        after = holdings.shares + shares
        grows = jnp.abs(after) > jnp.abs(holdings.shares)
        turned = holdings.shares * after < 0
        average = (
            jnp.abs(holdings.shares) * holdings.entry_price + jnp.abs(shares) * fill_price
        ) / jnp.where(grows, jnp.abs(after), 1.0)
        entry = jnp.where(grows, average, holdings.entry_price)
        entry = jnp.where(turned, fill_price, entry)
        return Holdings(
            cash=holdings.cash - shares * fill_price - commission,
            shares=after,
            entry_price=jnp.where(after == 0, 0.0, entry),
            cost=holdings.cost + commission + jnp.abs(shares) * price * slip,
            traded=holdings.traded + jnp.abs(shares),
            turnover=holdings.turnover + value,
            fill_price=jnp.where(sent, fill_price, holdings.fill_price),
        )

    def _slip(self, shares, quote: Quote, params: TradingParams) -> jax.Array:
        """Half spread plus impact, as a fraction of the price; never more than 90%."""
        # At a volume of 0 nothing is known about depth: as if one share had been traded.
        participation = jnp.maximum(shares, 0.0) / jnp.maximum(quote.volume, 1.0)
        impact = params.impact * quote.volatility * jnp.sqrt(participation)
        return jnp.minimum(params.half_spread + impact, 0.9)

    def _reward(self, state: TradingState, net_worth, params: TradingParams):
        """Returns: reward, and the running first and second moment of the return."""
        change = net_worth / state.net_worth - 1.0
        delta_mean = change - state.mean
        delta_square = change**2 - state.square
        mean = state.mean + params.sharpe_rate * delta_mean
        square = state.square + params.sharpe_rate * delta_square
        if self.reward == "log_return":
            floor = 1e-3 * state.net_worth  # ruin is a loss of 99.9%, not an infinite one
            reward = jnp.log(jnp.maximum(net_worth, floor) / state.net_worth)
        elif self.reward == "profit":
            reward = (net_worth - state.net_worth) / params.initial_cash
        elif self.reward == "differential_sharpe":
            # Moody and Saffell (2001), eq. 14, scaled by the adaptation rate.
            variance = jnp.maximum(state.square - state.mean**2, 1e-6)
            reward = (state.square * delta_mean - 0.5 * state.mean * delta_square) / variance**1.5
            # The moments mean nothing before they have seen 1 / rate bars.
            warm = state.time >= 1.0 / params.sharpe_rate
            reward = params.sharpe_rate * jnp.where(warm, reward, delta_mean / jnp.sqrt(variance))
        else:
            reward = change - params.risk_aversion * delta_mean**2
        return reward, mean, square


def make(config: Config, market: Market | tuple[Market, ...], train: Span):
    """The environment and its parameters on one market, or on several that share a calendar.

    Args:
        market: with several, every episode plays on one of them, chosen at random.
        train: rows for training episodes; see `over_span` for evaluation.

    Returns: (Trading, TradingParams).
    """
    markets: tuple[Market, ...] = (market,) if isinstance(market, Market) else market
    rows = {len(m.close) for m in markets}
    if len(rows) > 1:
        raise DataError("symbols of different length cannot share an environment")
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
        table=jnp.asarray(np.concatenate([m.table for m in markets]), jnp.float32),
        quotes=jnp.asarray(np.concatenate([_quotes(m) for m in markets]), jnp.float32),
        first_row=jnp.int32(train.first),
        last_row=jnp.int32(train.last),
        n_symbols=jnp.int32(len(markets)),
        rows_per_symbol=jnp.int32(rows.pop()),
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


def over_span(params: TradingParams, span: Span) -> TradingParams:
    """The same market, walked once from the first to the last row of `span`."""
    return params.replace(  # type: ignore[attr-defined]
        first_row=jnp.int32(span.first),
        last_row=jnp.int32(span.last),
        episode_length=jnp.int32(span.last - span.first + 1),
        random_start=jnp.bool_(False),
    )


def without_costs(params: TradingParams) -> TradingParams:
    """The same market at no cost, for gross figures."""
    zero = jnp.float32(0)
    return params.replace(  # type: ignore[attr-defined]
        commission=zero, commission_min=zero, half_spread=zero, impact=zero
    )


def rivals(
    env: Trading, params: TradingParams, n_steps: int, key: jax.Array
) -> dict[str, _baselines.Plan]:
    """What a policy is compared with over `n_steps` bars: buy-and-hold, cash, random actions."""
    # Size is a fraction of the way to `leverage` x net worth; buy-and-hold goes to 1 x.
    size = 2.0 / float(params.leverage) - 1.0
    hold = jnp.tile(jnp.array([[0.0, -1.0]]), (n_steps, 1))
    plans = {
        "buy_and_hold": hold.at[0].set(jnp.array([1.0, min(size, 1.0)])),
        "cash": hold,
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
