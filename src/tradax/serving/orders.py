"""What a trader says: orders, accounts and fills, and how they are written as JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from tradax.errors import TradaxError

Side = Literal["buy", "sell", "hold"]


@dataclass(frozen=True)
class Account:
    """Cash and shares, and what they are worth at the last close."""

    cash: float
    shares: dict[str, float]
    """By symbol."""
    entry_price: float | None
    """Average price paid for the open position; None without one, and for a portfolio."""
    net_worth: float


@dataclass(frozen=True)
class Fill:
    """What became of the order before."""

    change: dict[str, float]
    """Symbol -> shares bought less shares sold since the bar before, stops included."""
    price: float | None
    """Of the last fill; None without one, where fills were reported, and for a portfolio."""
    cost: float
    """Commission, spread and impact; of reported fills the commission."""
    assumed: bool
    """Filled as the environment does; False: fills were reported."""


@dataclass(frozen=True)
class Leg:
    """What to buy or sell of one symbol."""

    symbol: str
    side: Side
    quantity: float
    """Shares, 0 or more, such that the account can pay for them at `price`."""
    price: float
    """The close of the bar on which the order is given."""


@dataclass(frozen=True)
class Order:
    """What a policy wants once a bar has closed."""

    timestamp: str
    """Of the bar on which it is given."""
    legs: tuple[Leg, ...]
    """One a symbol."""
    fill: str
    """Where the environment fills it: next_open, next_close or close."""
    action: float | list[float]
    """As the environment takes it."""
    stop_loss: float | None
    """Price at which the environment closes the position; None: never, or no position."""
    take_profit: float | None
    account: Account
    """That the order assumes, at this bar's close."""
    filled: Fill | None
    """What became of the order before; None for the first."""
    terminated: bool
    """Net worth has fallen to the environment's ruin_level: nothing more is ordered."""

    @property
    def side(self) -> Side:
        """Of the only symbol."""
        return self._only.side

    @property
    def quantity(self) -> float:
        """Of the only symbol."""
        return self._only.quantity

    @property
    def _only(self) -> Leg:
        if len(self.legs) != 1:
            raise TradaxError(f"an order for {len(self.legs)} symbols has a leg each; see `legs`")
        return self.legs[0]


def order_json(order: Order) -> str:
    """One line of strict JSON: flat for one symbol, with a list `orders` for a portfolio."""
    said = {"price_basis": "close", **asdict(order)}
    legs = said.pop("legs")
    said["account"] = _account(order.account)
    if len(legs) > 1:
        return json.dumps({"orders": legs, **said}, allow_nan=False)
    if order.filled is not None:
        said["filled"]["change"] = next(iter(order.filled.change.values()))
    return json.dumps({**legs[0], **said}, allow_nan=False)


def account_json(account: Account, symbol: str) -> str:
    """The answer to a fill."""
    return json.dumps({"symbol": symbol, "account": _account(account)}, allow_nan=False)


def plain(number: Any) -> float:
    """A float32 with no more digits than it has."""
    return float(str(np.float32(number)))


def _account(account: Account) -> dict[str, Any]:
    shares: Any = account.shares
    if len(shares) == 1:
        (shares,) = shares.values()
    return {**asdict(account), "shares": shares}
