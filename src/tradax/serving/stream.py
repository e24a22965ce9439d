"""A run's traders together: the orders after the latest bars, and JSON lines answered by lines."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tradax.data.series import SYMBOL
from tradax.data.table import plain_name
from tradax.errors import ConfigError, DataError, TradaxError
from tradax.reading import json_value
from tradax.serving.history import joined, row
from tradax.serving.orders import Order, account_json, order_json
from tradax.serving.runs import chosen, open_bars, symbols
from tradax.serving.trader import Trader

Traders = dict[tuple[str, ...], Trader]
"""Symbols -> who trades them."""


def open_traders(
    run: Path | str,
    *,
    symbol: str | None = None,
    history: Any = None,
    cash: float | None = None,
    position: float | Mapping[str, float] = 0.0,
    entry_price: float | None = None,
) -> Traders:
    """A trader for each policy of a run, or for one symbol; arguments as of `Trader`."""
    names, together = symbols(Path(run))
    if symbol is not None:
        names = (chosen(symbol, names, run),)
    alone = together or len(names) == 1
    if not alone and entry_price is not None:
        raise ConfigError(
            "an entry price belongs to one symbol; name it with --symbol (symbol=...)"
        )
    if not isinstance(position, Mapping) and position and len(names) > 1:
        raise ConfigError(f"position is {position:g}; say of which of {', '.join(names)}")
    if isinstance(position, Mapping):
        for name in position:
            chosen(name, names, "position")
    bars = open_bars(Path(run), history)
    found = {}
    for name in names:
        mine = position
        if isinstance(position, Mapping) and not together:
            mine = position.get(name, 0.0)
        one = symbol if together else name
        trader = Trader(
            run, symbol=one, history=bars, cash=cash, position=mine, entry_price=entry_price
        )
        found[trader.symbols] = trader
    return found


def latest_orders(
    run: Path | str, data: Any, *, history: Any = None, **account: Any
) -> list[Order]:
    """The orders to give after the last bar of `data`, one a policy.

    Args:
        data: file(s), a frame or `Bars`; what lies before its first bar is taken from `history`.
        account: `symbol`, `cash`, `position` and `entry_price` as of `open_traders`.
    """
    latest = open_bars(Path(run), data)
    try:
        earlier = open_bars(Path(run), history)
    except DataError:
        if history is not None:
            raise
        bars = latest  # the run's own are gone; a trader says so if these alone are too few
    else:
        bars = joined(earlier, latest)
    found = []
    for trader in open_traders(run, history=bars, **account).values():
        for bar in row(bars.select(trader.symbols), -1):
            order = trader.bar(bar)
            found += [order] if order is not None else []
    return found


class Stream:
    """Answers lines of JSON: a bar with an order, a fill with the account, else with an error.

    A line `{"fill": {"side": ..., "quantity": ..., "price": ..., "commission": ...}}` reports a
    fill; any other object is a bar.
    """

    def __init__(self, traders: Traders):
        self._traders = {name: trader for names, trader in traders.items() for name in names}
        self._line = 0

    def answer(self, line: str) -> str:
        """One line of JSON. After an error every account is what it was."""
        self._line += 1
        try:
            said = json_value(line, "the line", infinite=True, error=DataError)
            if not isinstance(said, dict):
                raise DataError(f"a {type(said).__name__}; send a bar or a fill as a JSON object")
            if "fill" in said:
                return self._fill(said["fill"])
            return self._bar(said)
        except TradaxError as error:
            return json.dumps({"error": str(error), "line": self._line})

    def pass_over(self) -> None:
        """A blank line: counted, not answered."""
        self._line += 1

    def _bar(self, bar: dict[str, Any]) -> str:
        named = [value for name, value in bar.items() if plain_name(name) in SYMBOL]
        trader = self._trader(str(named[0]) if named else None, "bar")
        order = trader.bar(bar)
        if order is None:
            return json.dumps({"waiting_for": trader.waiting})
        return order_json(order)

    def _fill(self, fill: Any) -> str:
        known = ("symbol", "side", "quantity", "price", "commission")
        if not isinstance(fill, dict) or not {"side", "quantity"} <= fill.keys() <= set(known):
            raise DataError(f"fill: it must be an object of {', '.join(known)}")
        symbol = fill.pop("symbol", None)
        trader = self._trader(symbol, "fill")
        symbol = chosen(symbol, trader.symbols, "fill")
        commission = fill.pop("commission", 0.0)
        account = trader.fill(**fill, commission=commission, symbol=symbol)
        return account_json(account, symbol)

    def _trader(self, symbol: str | None, what: str) -> Trader:
        traders = list(dict.fromkeys(self._traders.values()))
        if len(traders) == 1:
            return traders[0]  # which checks the symbol itself
        return self._traders[chosen(symbol, tuple(self._traders), what)]


def positions(texts: tuple[str, ...]) -> float | dict[str, float]:
    """Shares from text: a number, or SYMBOL=NUMBER for several symbols."""
    found: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise ConfigError(f"position {text}: give shares, or SYMBOL=SHARES") from None
        if not equals and len(texts) == 1:
            return value
        found[name] = value
    return found
