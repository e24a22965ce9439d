"""Trading one asset with discrete actions. Observation, fills, costs, stops, rewards and ends are
those of `trading`.

**Action**: without `targets`, 0 holds, 1 buys and 2 sells `order_size` of what is possible. With
`targets`, such as -1 0 1, action i moves the position to targets[i] x net worth at the fill, as far
as cash after costs and the limits of `trading` allow.
"""

import jax
import jax.numpy as jnp

from tradax.config import config, setting
from tradax.data.pipeline import Market
from tradax.data.splits import Span
from tradax.envs import _baselines, trading
from tradax.envs._orders import Holdings, Quote, possible
from tradax.envs._span import over_span
from tradax.envs.trading import (
    Trading,
    TradingParams,
    at_cost,
    benchmark,
    market_arrays,
    without_costs,
)
from tradax.errors import ConfigError
from tradax.gymnax_parts import spaces

__all__ = [
    "Config",
    "DiscreteTrading",
    "at_cost",
    "benchmark",
    "idle",
    "make",
    "market_arrays",
    "over_span",
    "rivals",
    "without_costs",
]

HOLD, BUY, SELL = 0, 1, 2


@config
class Config(trading.Config):
    """Trading one asset: hold, buy, sell, or a list of target positions."""

    order_size: float = setting(default=1.0, above=0, most=1, static=True)
    """Fraction of what is possible that an order buys or sells; not with targets."""
    targets: tuple[float, ...] = setting(default=(), least=-10, most=10)
    """Positions to choose from, as multiples of net worth. Empty: hold, buy, sell."""

    def validate(self):
        if len(self.targets) == 1:
            raise ConfigError("discrete_trading.targets has one position; give two or more")
        low, high = min(self.targets, default=0.0), max(self.targets, default=0.0)
        if low < 0 and not self.allow_short:
            raise ConfigError(
                f"discrete_trading.targets goes down to {low}; allow_short is needed below 0"
            )
        if max(-low, high) > self.leverage:
            raise ConfigError(
                f"discrete_trading.targets reaches {max(-low, high)} x net worth, leverage allows "
                f"{self.leverage}"
            )


class DiscreteTrading(Trading):
    """See the module's docstring."""

    def __init__(self, order_size: float = 1.0, targets: tuple[float, ...] = (), **choices):
        super().__init__(**choices)
        self.order_size = order_size
        self.targets = targets

    @property
    def name(self) -> str:
        return "discrete_trading"

    @property
    def num_actions(self) -> int:
        return len(self.targets) or 3

    def action_space(self, params: TradingParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(self.num_actions)

    def order(self, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns: side and size as in `trading`; with targets, the target and 1."""
        if self.targets:
            return jnp.array(self.targets)[action], jnp.float32(1.0)
        side = jnp.where(action == BUY, 1.0, jnp.where(action == SELL, -1.0, 0.0))
        return side, jnp.float32(self.order_size)

    def _trade(self, holdings, side, size, price, quote: Quote, params: TradingParams) -> Holdings:
        if not self.targets:
            return super()._trade(holdings, side, size, price, quote, params)
        net_worth = jnp.maximum(holdings.cash + holdings.shares * price, 0.0)
        missing = side * net_worth / price - holdings.shares
        buy, sell = possible(holdings, size, price, quote, params, allow_short=self.allow_short)
        shares = jnp.minimum(jnp.abs(missing), jnp.where(missing > 0, buy, sell))
        return self._send(holdings, jnp.sign(missing), shares, price, quote, params)


def make(config: Config, market: Market | tuple[Market, ...], train: Span):
    """The environment and its parameters on one market, or on several that share a calendar.

    Args, Returns: as `trading.make`.
    """
    continuous, params = trading.make(config, market, train)
    choices = {
        name: getattr(continuous, name)
        for name in ("fill", "lot_size", "allow_short", "stops", "reward")
    }
    env = DiscreteTrading(order_size=config.order_size, targets=config.targets, **choices)
    return env, params


def rivals(
    env: DiscreteTrading, params: TradingParams, n_steps: int, key: jax.Array
) -> dict[str, _baselines.Plan]:
    """What a policy is compared with: buy-and-hold, cash, random actions of its own.

    The first two are those of `trading`, in `benchmark`: an order of half of what is possible, or
    targets without 0 or 1, could neither buy and hold nor keep cash.
    """
    random = jax.random.randint(key, (n_steps,), 0, env.num_actions)
    return trading.rivals(env, params, n_steps, key) | {"random": _baselines.Plan(random)}


def idle(env: DiscreteTrading) -> jax.Array:
    """The action that leaves cash alone; of targets the one nearest to 0."""
    return jnp.int32(jnp.argmin(jnp.abs(jnp.array(env.targets))) if env.targets else HOLD)
