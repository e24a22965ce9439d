"""An environment's account in the world: the environment's own code, one bar at a time.

The market arrays of an environment have a row a bar. Here they have two, the bar before and the
newest: an order given on row 0 is filled as the environment fills it, and the account that
results sees row 1 and gives the next order. Where fills were reported, they take the place of
those that the environment would assume; the rest of its step is the same.
"""

import abc
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tradax.envs._orders import Holdings, exchanged
from tradax.envs.portfolio import Portfolio
from tradax.envs.trading import Trading
from tradax.errors import DataError
from tradax.policies import NetworkPolicy

Arrays = dict[str, np.ndarray]
"""Market arrays, [2, ...]."""


class Held(NamedTuple):
    """Cash and shares of n assets."""

    cash: Any
    shares: Any
    """[n]"""
    entry_price: Any
    """0 without a position, and for a portfolio."""
    cost: Any
    """Paid since the last bar."""


class View(NamedTuple):
    """What a bar leaves of the account, and the order that follows."""

    held: Held
    net_worth: Any
    terminated: Any
    """Ruin, by the environment's rule."""
    change: Any
    """[n], shares that the order before it bought less those that it sold, stops included."""
    fill_price: Any
    """Of its last fill; 0 without one, and for a portfolio."""
    action: Any
    wanted: Any
    """[n], shares after the order, were it filled at this bar's close."""
    entry_price: Any
    """The entry price then; 0 for a portfolio."""


class Desk(abc.ABC):
    """What an environment's states mean in cash and shares; pure functions."""

    def __init__(self, env: Any, params: Any, policy: NetworkPolicy):
        self.env, self.params, self.policy = env, params, policy

    @abc.abstractmethod
    def state(self, held: Held, close: Any) -> Any:
        """The environment's state at row 1 with this account; `close` [n]."""

    @abc.abstractmethod
    def held(self, state: Any, close: Any) -> Held:
        """The account of a state; `close` [n] of its bar."""

    @abc.abstractmethod
    def fill(self, held: Held, asset: int, change: Any, price: Any, commission: Any) -> Held:
        """The account after shares (signed) of an asset have changed hands."""

    @abc.abstractmethod
    def settle(self, state: Any, held: Held, close: Any, market: Any) -> tuple:
        """`step_state` where the account after all fills is known; `close` [n] of row 0."""

    @abc.abstractmethod
    def wanted(self, state: Any, action: Any, close: Any, market: Any) -> tuple[Any, Any]:
        """Shares [n] and entry price, were the order filled at `close` [n] of the state's row."""


class OneAsset(Desk):
    """`trading` and `discrete_trading`."""

    env: Trading

    def state(self, held, close):
        blank = self.env.reset_state(jax.random.key(0), self.params)
        shares = held.shares[0]
        return replace(
            blank,
            row=jnp.int32(1),
            cash=held.cash,
            shares=shares,
            entry_price=held.entry_price,
            net_worth=held.cash + shares * close[0],
        )

    def held(self, state, close):
        return Held(state.cash, state.shares[None], state.entry_price, jnp.float32(0))

    def fill(self, held, asset, change, price, commission):
        zero = jnp.float32(0)
        now = Holdings(held.cash, held.shares[0], held.entry_price, held.cost, zero, zero, zero)
        now = exchanged(now, change, price, commission, commission)
        return Held(now.cash, now.shares[None], now.entry_price, now.cost)

    def settle(self, state, held, close, market):
        zero = jnp.float32(0)
        now = Holdings(held.cash, held.shares[0], held.entry_price, held.cost, zero, zero, zero)
        return self.env.settle(state, now, market)

    def wanted(self, state, action, close, market):
        intended = self.env.intended(state, action, market)
        return intended.shares[None], intended.entry_price


class Several(Desk):
    """`portfolio`: its states hold weights, and 1 less their sum is cash."""

    env: Portfolio

    def state(self, held, close):
        blank = self.env.reset_state(jax.random.key(0), self.params)
        net_worth = held.cash + jnp.sum(held.shares * close)
        weights = held.shares * close / net_worth
        return replace(blank, row=jnp.int32(1), weights=weights, net_worth=net_worth)

    def held(self, state, close):
        cash = state.net_worth * (1.0 - state.weights.sum())
        zero = jnp.float32(0)
        return Held(cash, state.weights * state.net_worth / close, zero, zero)

    def fill(self, held, asset, change, price, commission):
        return Held(
            cash=held.cash - change * price - commission,
            shares=held.shares.at[asset].add(change),
            entry_price=held.entry_price,
            cost=held.cost + commission,
        )

    def settle(self, state, held, close, market):
        # Asking for the weights that are held trades nothing; interest is as in the environment.
        filled = self.state(held, close)
        now = replace(state, weights=filled.weights, net_worth=filled.net_worth)
        to_fill, to_close = market.moves[0]
        moves = to_fill + to_close + to_fill * to_close
        legs = (moves, 0.0 * moves) if self.env.fill == "next_close" else (0.0 * moves, moves)
        state, reward, terminated, info = self.env.rebalance(now, now.weights, *legs, market)
        return state, reward, terminated, {**info, "cost": held.cost}

    def wanted(self, state, action, close, market):
        still = replace(market, moves=jnp.zeros_like(market.moves))
        after, *_ = self.env.step_state(jax.random.key(0), state, action, still)
        return after.weights * after.net_worth / close, jnp.float32(0)


class Book:
    """An account that goes from bar to bar. `begin` and `step` show a bar, `commit` keeps it."""

    def __init__(self, desk: Desk):
        self._desk = desk
        self._state: Any = None
        self._close: Any = None
        self._view: View | None = None
        self._filled: Held | None = None
        """The account after the fills that were reported since the last bar; None: none were."""
        self._shown: tuple[Any, Any, View] | None = None
        # The network is a constant of these programs: less to hand over each time.
        self._begun, self._assumed = jax.jit(self._begin), jax.jit(self._assume)
        self._settled, self._fill = jax.jit(self._settle), jax.jit(desk.fill)

    @property
    def view(self) -> View:
        """What was last committed."""
        assert self._view is not None
        return self._view

    @property
    def account(self) -> tuple[Held, float]:
        """With the fills reported so far, and the net worth at the last close."""
        if self._filled is None:
            return self.view.held, float(self.view.net_worth)
        held = jax.device_get(self._filled)
        return held, float(held.cash + np.sum(held.shares * self._close))

    @property
    def reported(self) -> bool:
        """Whether fills were reported since the last bar."""
        return self._filled is not None

    def begin(self, held: Held, arrays: Arrays, close: np.ndarray) -> View:
        """The first order, on the newest row; `close` [2, n]."""
        return self._show(close, *self._begun(held, arrays, close))

    def step(self, arrays: Arrays, close: np.ndarray) -> View:
        """What the newest bar makes of the last order, and the next order; `close` [2, n]."""
        filled = self._filled
        if filled is None and self.view.terminated:
            filled = self._untouched  # nothing is ordered after ruin
        if filled is None:
            return self._show(close, *self._assumed(self._state, self.view.action, arrays, close))
        return self._show(close, *self._settled(self._state, filled, arrays, close))

    def fill(self, asset: int, change: float, price: float, commission: float) -> None:
        """Shares (signed) that changed hands since the last bar; 0 says that none did.

        Raises:
            DataError: the account would not be finite.
        """
        held = self._untouched if self._filled is None else self._filled
        numbers = (np.float32(x) for x in (change, price, commission))
        filled = self._fill(held, np.int32(asset), *numbers)
        if not all(np.isfinite(x).all() for x in jax.device_get(filled)):
            raise DataError("fill: it leads to an account that is not finite; correct it")
        self._filled = filled

    @property
    def _untouched(self) -> Held:
        return self.view.held._replace(cost=np.float32(0))

    def commit(self) -> None:
        """Keep what `begin` or `step` has shown."""
        assert self._shown is not None
        self._state, self._close, self._view = self._shown
        self._filled = None

    def _show(self, close: np.ndarray, state: Any, view: View) -> View:
        view = jax.device_get(view)
        over = self._view is not None and self._view.terminated
        view = view._replace(terminated=bool(view.terminated or over))
        self._shown = state, close[1], view
        return view

    def _begin(self, held: Held, arrays: Arrays, close: Any) -> tuple[Any, View]:
        state = self._desk.state(held, close[1])
        market = replace(self._desk.params, **arrays)
        nothing = {"cost": jnp.float32(0)}
        return state, self._seen(state, jnp.bool_(False), held.shares, nothing, market, close[1])

    def _assume(self, state: Any, action: Any, arrays: Arrays, close: Any) -> tuple[Any, View]:
        market = replace(self._desk.params, **arrays)
        state = replace(state, row=jnp.int32(0))
        before = self._desk.held(state, close[0]).shares
        state, _, over, info = self._desk.env.step_state(jax.random.key(0), state, action, market)
        return state, self._seen(state, over, before, info, market, close[1])

    def _settle(self, state: Any, held: Held, arrays: Arrays, close: Any) -> tuple[Any, View]:
        market = replace(self._desk.params, **arrays)
        state = replace(state, row=jnp.int32(0))
        before = self._desk.held(state, close[0]).shares
        state, _, over, info = self._desk.settle(state, held, close[0], market)
        return state, self._seen(state, over, before, info, market, close[1])

    def _seen(self, state, terminated, before, info: dict, market, close) -> View:
        """The view of a state at row 1, where there were `before` [n] shares at row 0."""
        desk = self._desk
        action = desk.policy.act(desk.env.get_obs(state, market))
        wanted, entry_price = desk.wanted(state, action, close, market)
        held = desk.held(state, close)
        return View(
            held=held._replace(cost=info["cost"]),
            net_worth=state.net_worth,
            terminated=terminated,
            change=held.shares - before,
            fill_price=info.get("fill_price", jnp.float32(0)),
            action=action,
            wanted=wanted,
            entry_price=entry_price,
        )
