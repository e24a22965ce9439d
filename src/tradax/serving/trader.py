"""Orders from a run's policy: a bar in, an order out, the account kept between them."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tradax import discovery, run_directory
from tradax.data import features
from tradax.data.bars import Bars
from tradax.data.pipeline import Market, Pipeline
from tradax.data.series import short
from tradax.data.splits import Span
from tradax.errors import ConfigError, DataError
from tradax.model_file import load_policy
from tradax.serving.books import Book, Held, OneAsset, Several, View
from tradax.serving.history import Bar, History, before, check_later, read_bar, warn_of_gap
from tradax.serving.orders import Account, Fill, Leg, Order, Side, plain
from tradax.serving.runs import chosen, open_bars, servable

_ROUNDING = 1e-5  # of net worth: what float32 and a softmax leave of an order for nothing


class Trader:
    """One policy of a run, and its account: a symbol's, or a portfolio's.

    What it does between two bars is the environment's own step, so that a span of bars gives the
    orders and the net worth of the backtest over it.
    """

    def __init__(
        self,
        run: Path | str,
        *,
        symbol: str | None = None,
        history: Any = None,
        cash: float | None = None,
        position: float | Mapping[str, float] = 0.0,
        entry_price: float | None = None,
    ):
        """
        Args:
            run: a run directory of `trading`, `discrete_trading` or `portfolio`.
            symbol: which one, where the run has several (not for a portfolio).
            history: bars before the first one: CSV or Parquet file(s), a frame or `Bars`. The run's
                own data by default. What it has from the first bar on is left out.
            cash: at the start; the environment's `initial_cash` by default.
            position: shares at the start; for a portfolio by symbol.
            entry_price: paid for them on average; the first bar's close by default.

        Raises:
            TradaxError: not such a run, an unknown symbol, an account worth nothing.
            DataError: problems in the history.
        """
        folder = Path(run)
        request, pipeline = servable(folder), Pipeline.load(folder)
        self._portfolio = discovery.flag("envs", request.env, "HOLDS_ALL_SYMBOLS")
        if self._portfolio and symbol is not None:
            raise ConfigError(f"{request.env} trades all its symbols at once; give no symbol")
        self.symbols: tuple[str, ...] = pipeline.symbols
        if not self._portfolio:
            self.symbols = (chosen(symbol, pipeline.symbols, folder),)
            if len(pipeline.symbols) > 1 and not request.shared_policy:
                folder = folder / run_directory.symbol_folder(self.symbols[0])
        self._policy = load_policy(folder)
        self._pipeline = pipeline.only(self.symbols)
        self.bars: Bars = open_bars(Path(run), history).select(self.symbols)
        """The history from which those before the first bar are taken."""
        self._module = discovery.module("envs", request.env)
        self._config = request.options_of(self._module)
        self._start = _Start(cash, _positions(position, self.symbols), entry_price)
        self._history: History | None = None
        self._book: Book | None = None
        self._gathered: dict[str, Bar] = {}
        # Rows of market arrays, for the newest two to be as they are with all of them.
        self._rows = getattr(self._config, "turbulence_window", 0) + 3

    @property
    def account(self) -> Account | None:
        """With the fills reported so far; None before the first bar."""
        if self._book is None:
            return None
        return self._account(*self._book.account)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Symbols of a portfolio whose bar of the time at hand has not come yet."""
        if not self._gathered:
            return ()
        return tuple(name for name in self.symbols if name not in self._gathered)

    def bar(self, bar: Mapping[str, Any]) -> Order | None:
        """The order to give once this bar has closed.

        Args:
            bar: column -> value: timestamp, open, high, low, close, volume and signals, named as
                in a file; a symbol where there are several.

        Returns: None from a portfolio that waits for other symbols' bars of the same time. A later
        bar gives up the wait, with a warning.

        Raises:
            DataError: the bar is not possible, or not later than the last; nothing has changed.
        """
        read = read_bar(bar, self.bars)
        if len(self.symbols) == 1:
            return self._order([read])
        if self._history is not None:
            check_later(read.timestamp, self._history.last)
        gathered = dict(self._gathered)
        if gathered:
            stamp = next(iter(gathered.values())).timestamp
            if read.timestamp < stamp or (read.symbol in gathered and read.timestamp == stamp):
                check_later(read.timestamp, stamp)
            if read.timestamp > stamp:
                warnings.warn(
                    f"{', '.join(self.waiting)} had no bar of {short(stamp)}; all of that time are "
                    "left out",
                    stacklevel=2,
                )
                gathered = {}
        gathered[read.symbol] = read
        if len(gathered) < len(self.symbols):
            self._gathered = gathered
            return None
        order = self._order([gathered[name] for name in self.symbols])
        self._gathered = {}
        return order

    def fill(
        self,
        side: str,
        quantity: float,
        price: float = 0.0,
        *,
        commission: float = 0.0,
        symbol: str | None = None,
    ) -> Account:
        """Report a fill of the last order, or of its stops, before the next bar.

        The fills between two bars replace all that would have been assumed; several add up. Where
        nothing was filled, report a quantity of 0.

        Args:
            side: "buy" or "sell".
            price: a share, without the commission.
            commission: in currency.

        Raises:
            DataError: there was no order yet, or the fill is not possible; nothing has changed.
        """
        if self._book is None:
            raise DataError("fill: no order has been given yet; send a bar first")
        name = chosen(symbol, self.symbols, "fill")
        if side not in ("buy", "sell"):
            raise DataError(f"fill: side is {side!r}; it must be buy or sell")
        numbers = {"quantity": quantity, "price": price, "commission": commission}
        for what, value in numbers.items():
            least = what == "price" and quantity != 0
            good = isinstance(value, int | float) and not isinstance(value, bool)
            if not good or not 0 <= value <= np.finfo(np.float32).max or (least and value == 0):
                raise DataError(
                    f"fill: {what} is {value!r}; it must be a number "
                    f"{'above 0' if least else 'of at least 0'}"
                )
        change = float(quantity) if side == "buy" else -float(quantity)
        self._book.fill(self.symbols.index(name), change, float(price), float(commission))
        return self._account(*self._book.account)

    def _order(self, bars: list[Bar]) -> Order:
        """Take one bar of every symbol."""
        if self._history is None or self._book is None:
            return self._first_order(bars)
        seen = self._history.with_bars(bars)
        arrays, close, _ = self._arrays(seen)
        assumed = not self._book.reported
        view = self._book.step(arrays, close)
        self._check(view, bars)
        fill = Fill(
            change=self._by_symbol(self._rounded(view.change, close[1], view)),
            price=plain(view.fill_price) if view.fill_price else None,
            cost=plain(view.held.cost),
            assumed=assumed,
        )
        self._history.keep()
        self._book.commit()
        return self._described(view, close[1], seen.timestamps[-1], fill)

    def _first_order(self, bars: list[Bar]) -> Order:
        known = before(self.bars, bars[0].timestamp)
        warn_of_gap(known, bars[0].timestamp)
        history = History(known, features.memory(self._pipeline.config) + self._rows)
        seen = history.with_bars(bars)
        # Rates a bar follow from the bars a year, of all the data as in the backtest.
        periods_per_year = (self.bars if len(known) else seen).periods_per_year
        arrays, close, markets = self._arrays(seen)
        markets = tuple(m._replace(periods_per_year=periods_per_year) for m in markets)
        width, taken = arrays["table"].shape[1], self._policy.spec.market
        if width != taken:
            names = ", ".join(markets[0].names)
            raise DataError(
                f"{self.bars.source}: features {names} make {width} numbers a bar; the policy "
                f"takes {taken}"
            )
        env, params = self._module.make(self._config, markets, Span(0, 1))
        held, net_worth = self._start.account(close[1], float(params.initial_cash))
        if not 0 < net_worth < math.inf:
            raise ConfigError(f"the account at the start is worth {net_worth:g}; give it more cash")
        params = dataclasses.replace(params, initial_cash=np.float32(net_worth))
        kind = Several if self._portfolio else OneAsset
        book = Book(kind(env, params, self._policy))
        view = book.begin(held, arrays, close)
        self._check(view, bars)
        history.keep()
        book.commit()
        self._history, self._book = history, book
        return self._described(view, close[1], seen.timestamps[-1], None)

    def _arrays(self, bars: Bars) -> tuple[dict[str, np.ndarray], np.ndarray, tuple[Market, ...]]:
        """The environment's market arrays of the newest two rows, and their closes [2, n]."""
        markets = self._pipeline.transform(bars, newest=2)
        if len(bars) < 2 or markets[0].first_row > len(bars) - 1:
            raise DataError(f"{bars.source}: {len(bars)} rows are too few; give more history")
        newest = tuple(market.newest(self._rows) for market in markets)
        arrays = self._module.market_arrays(self._config, newest)
        return {name: a[-2:] for name, a in arrays.items()}, bars.close[:, -2:].T.copy(), newest

    def _check(self, view: View, bars: list[Bar]) -> None:
        numbers = (view.net_worth, view.held.cash, *view.held.shares, *view.wanted)
        if not all(map(math.isfinite, map(float, numbers))):
            raise DataError(
                f"bar, {short(bars[0].timestamp)}: it leads to an account that is not finite; look "
                "for a wrong price"
            )

    def _described(
        self, view: View, close: np.ndarray, stamp: np.datetime64, fill: Fill | None
    ) -> Order:
        change = self._rounded(view.wanted - view.held.shares, close, view)
        if view.terminated:
            change = np.zeros_like(change)
        return Order(
            timestamp=short(stamp),
            legs=tuple(
                Leg(name, _side(c), plain(abs(c)), float(p))
                for name, c, p in zip(self.symbols, change, close, strict=True)
            ),
            fill=self._config.fill,
            action=[plain(a) for a in view.action] if view.action.ndim else int(view.action),
            **self._stops(view),
            account=self._account(view.held, view.net_worth),
            filled=fill,
            terminated=bool(view.terminated),
        )

    def _rounded(self, change: np.ndarray, close: np.ndarray, view: View) -> np.ndarray:
        """Changes of shares, without what is left of nothing where weights were computed."""
        if not self._portfolio:
            return change
        return np.where(np.abs(change) * close > _ROUNDING * view.net_worth, change, 0.0)

    def _stops(self, view: View) -> dict[str, float | None]:
        """Prices of the stops of the position that the order leads to."""
        found: dict[str, float | None] = {}
        for name, towards in (("stop_loss", -1.0), ("take_profit", 1.0)):
            fraction, side = getattr(self._config, name, None), np.sign(view.wanted[0])
            found[name] = None
            if fraction is not None and side:
                found[name] = plain(view.entry_price * (1.0 + towards * side * fraction))
        return found

    def _account(self, held: Held, net_worth: float) -> Account:
        entry = plain(held.entry_price) if held.entry_price else None
        shares = self._by_symbol(held.shares)
        return Account(plain(held.cash), shares, entry, plain(net_worth))

    def _by_symbol(self, values: np.ndarray) -> dict[str, float]:
        return {name: plain(v) for name, v in zip(self.symbols, values, strict=True)}


class _Start(NamedTuple):
    """The account at the first bar."""

    cash: float | None
    shares: np.ndarray
    entry_price: float | None

    def account(self, close: np.ndarray, cash: float) -> tuple[Held, float]:
        """Held and worth at `close` [n]; `cash` where none was given."""
        cash = cash if self.cash is None else float(self.cash)
        if self.entry_price is not None and not 0 < self.entry_price < math.inf:
            raise ConfigError(f"the entry price is {self.entry_price:g}; it must be above 0")
        entry = 0.0
        if len(self.shares) == 1 and self.shares[0]:
            entry = float(close[0]) if self.entry_price is None else self.entry_price
        number = np.float32
        held = Held(number(cash), self.shares.astype(number), number(entry), number(0))
        return held, cash + float(self.shares @ close)


def _positions(given: float | Mapping[str, float], symbols: tuple[str, ...]) -> np.ndarray:
    """Shares [n] at the start."""
    if not isinstance(given, Mapping):
        if len(symbols) > 1 and given:
            raise ConfigError(f"position is {given:g}; say of which of {', '.join(symbols)}")
        given = dict.fromkeys(symbols, float(given))
    for name in given:
        chosen(name, symbols, "position")
    shares = np.array([float(given.get(name, 0.0)) for name in symbols])
    if not np.isfinite(shares).all():
        raise ConfigError("position is not a finite number; correct it")
    return shares


def _side(change: float) -> Side:
    return "buy" if change > 0 else "sell" if change < 0 else "hold"
