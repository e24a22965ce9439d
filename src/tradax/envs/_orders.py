"""An account of cash and shares of one asset, and what orders make of it after their costs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct


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
class OrderParams:
    """What orders cost and how far they may go; the parameters of an environment add to it."""

    commission: jax.Array
    commission_min: jax.Array
    half_spread: jax.Array
    impact: jax.Array
    leverage: jax.Array
    stop_loss: jax.Array
    take_profit: jax.Array


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


def possible(
    holdings: Holdings,
    size: jax.Array,
    price: jax.Array,
    quote: Quote,
    params: OrderParams,
    *,
    allow_short: bool,
) -> tuple[jax.Array, jax.Array]:
    """Shares that the fraction `size` of the way to the limits buys, and sells."""
    leverage, minimum = params.leverage, params.commission_min
    net_worth = jnp.maximum(holdings.cash + holdings.shares * price, 0.0)
    position = holdings.shares * price

    room = jnp.maximum(leverage * net_worth - position, 0.0)
    spend = size * room
    # Impact of the largest possible order: the one that is sent costs no more.
    slip = _slip(spend / price, quote, params)
    unit = leverage * ((1.0 + slip) * (1.0 + params.commission) - 1.0)
    buy = jnp.minimum(
        spend / (price * (1.0 + unit)),
        (spend - leverage * minimum) / (price * (1.0 + leverage * slip)),
    )

    sell = size * holdings.shares
    if allow_short:
        limit = leverage * net_worth / price
        slip = _slip(holdings.shares + limit, quote, params)
        unit = leverage * (slip + params.commission)
        longs = jnp.maximum(holdings.shares, 0.0)
        limit = (leverage * (net_worth - minimum) / price - longs * unit) / (1.0 + unit)
        sell = size * (holdings.shares + jnp.maximum(limit, 0.0))
    return jnp.maximum(buy, 0.0), jnp.maximum(sell, 0.0)


def stopped(holdings: Holdings, quote: Quote, params: OrderParams) -> Holdings:
    """Close the position where the next bar reaches its stop-loss or take-profit."""
    side = jnp.sign(holdings.shares)
    stop = holdings.entry_price * (1.0 - side * params.stop_loss)
    target = holdings.entry_price * (1.0 + side * params.take_profit)
    worst = jnp.where(side > 0, quote.next_low, quote.next_high)
    best = jnp.where(side > 0, quote.next_high, quote.next_low)
    lost = (side != 0) & (side * (worst - stop) <= 0)
    taken = (side != 0) & (side * (best - target) >= 0) & ~lost
    # A bar that opens beyond the level is filled at its open.
    stop_price = side * jnp.minimum(side * quote.next_open, side * stop)
    target_price = side * jnp.maximum(side * quote.next_open, side * target)
    price = jnp.where(lost, stop_price, target_price)
    price = jnp.where(lost | taken, price, quote.next_close)
    shares = jnp.where(lost | taken, -holdings.shares, 0.0)
    return filled(holdings, shares, price, quote, params)


def filled(
    holdings: Holdings, shares: jax.Array, price: jax.Array, quote: Quote, params: OrderParams
) -> Holdings:
    """Exchange `shares` (signed) for cash at `price` and its costs."""
    slip = _slip(jnp.abs(shares), quote, params)
    fill_price = price * (1.0 + jnp.sign(shares) * slip)
    value = jnp.abs(shares) * fill_price
    commission = jnp.maximum(value * params.commission, params.commission_min)
    sent = (value > 0) & (commission <= value)
    shares, commission = (jnp.where(sent, x, 0.0) for x in (shares, commission))
    cost = commission + jnp.abs(shares) * price * slip
    return exchanged(holdings, shares, fill_price, commission, cost)


def exchanged(
    holdings: Holdings,
    shares: jax.Array,
    fill_price: jax.Array,
    commission: jax.Array,
    cost: jax.Array,
) -> Holdings:
    """The account after `shares` (signed) have changed hands at `fill_price`, 0 or more of them.

    Args:
        cost: commission and what the price has moved against the order, in currency.
    """
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
        cost=holdings.cost + cost,
        traded=holdings.traded + jnp.abs(shares),
        turnover=holdings.turnover + jnp.abs(shares) * fill_price,
        fill_price=jnp.where(shares != 0, fill_price, holdings.fill_price),
    )


def _slip(shares: jax.Array, quote: Quote, params: OrderParams) -> jax.Array:
    """Half spread plus impact, as a fraction of the price; never more than 90%."""
    # At a volume of 0 nothing is known about depth: as if one share had been traded.
    participation = jnp.maximum(shares, 0.0) / jnp.maximum(quote.volume, 1.0)
    impact = params.impact * quote.volatility * jnp.sqrt(participation)
    return jnp.minimum(params.half_spread + impact, 0.9)
