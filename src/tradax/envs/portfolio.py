"""Dividing a fortune among n assets and cash.

**Observation** at row t: the assets' feature tables side by side, with `turbulence` one column
more; and the account: the weights of the assets and of cash, last, as prices have left them.

**Action**, long only: n + 1 logits a in [-logit_limit, logit_limit], cash last; the target is

    w' = softmax(a)

At the default limit of 10 one asset reaches 1 - n e^-20, and equal logits are equal weights. With
`long_short`: n numbers, and no weight for cash, which is what is left, 1 - sum w',

    w'_i = gross tanh(a_i) / max(1, sum_j |tanh(a_j)|)

tanh gives each asset a signed position (Moody and Saffell 2001), dividing by the sum where it is
above 1 keeps the gross exposure sum |w'_i| <= gross (Fan, Zhang and Yu 2012). All that the limit
allows can be reached, no sign is preferred, and action 0 is all cash.

**Fill.** The order given on bar t, after its close was seen, is filled at the open of t+1
(`next_open`), at the close of t+1 (`next_close`), or at the close of t itself (`close`: look-ahead,
and marked so). The target means proportions of shares at the close of t, where the order is
written: held and ordered weights both drift with prices to the fill, what they differ by there is
traded, and the result drifts on to the close of t+1. So asking for the weights that are held
trades nothing, whatever the price does overnight.

**Costs**: c = commission + half spread on what is traded of every asset; cash trades for nothing.
They are paid at the fill, out of the portfolio, so that what is left, 1 - s of net worth, has the
target's weights. With w and w' as they are at the fill,

    s = c sum_i |w'_i (1 - s) - w_i|

(Jiang, Xu and Liang 2017, eq. 14, with equal rates for buying and selling). Given which assets
are bought and which sold, e_i = +-1, the equation is linear,

    s = c sum_i e_i (w'_i - w_i) / (1 + c sum_i e_i w'_i)

which is Newton's step on a piecewise linear, concave function: from s = 0 it rises to the
solution and ends there once the signs are right. Three steps are taken.

**Interest** is earned on cash, and paid on negative cash and on shares sold short, once a bar: for
what is held from the fill on, or with `next_close` up to the fill.

**Turbulence** of bar t (Kritzman and Li 2010) is d = (y - m)' S^-1 (y - m) / n: returns y of
bar t, mean m and covariance S of the `turbulence_window` bars before it, S shrunk towards a
multiple of the identity. It is about 1 in ordinary times, and taken to be 1 where fewer bars have
been; agents see log(1 + d). With `turbulence_threshold`, an order given on a bar above it is
replaced by one for all cash.

**End.** Truncated when the span or the episode's length is over; terminated at ruin.
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from tradax.config import config, setting
from tradax.data.pipeline import Market, Pipeline
from tradax.data.splits import Span
from tradax.envs import _baselines, portfolio_baselines
from tradax.envs._market import MarketEnvironment, random_integer
from tradax.errors import ConfigError, DataError
from tradax.protocols import Actor

HOLDS_ALL_SYMBOLS = True
"""One environment holds all symbols of the data, where others would have one each."""

_FLOOR = 1e-3  # ruin is a loss of 99.9%, not an infinite one
_REACH = 0.99  # weight that one asset must be able to get


@config
class Config:
    """Weights of several assets and cash."""

    initial_cash: float = setting(default=100_000.0, above=0)
    """Cash at the start, in the currency of the prices."""
    episode_length: int = setting(default=252, least=1)
    """Bars in a training episode; evaluation walks its whole span."""
    fill: Literal["next_open", "next_close", "close"] = "next_open"
    """Price at which an order is filled; "close" is look-ahead."""
    commission_bps: float = setting(default=5.0, least=0, most=500)
    """Commission, in basis points of the traded value."""
    half_spread_bps: float = setting(default=1.0, least=0, most=500)
    """Half the bid-ask spread, in basis points of the price."""
    logit_limit: float = setting(default=10.0, above=0, most=20, static=True)
    """Bounds of the actions; a weight differs from another by at most exp(2 x this)."""
    long_short: bool = False
    """Weights may be negative, up to `gross` in all; else they are a softmax."""
    gross: float = setting(default=1.0, above=0, most=10)
    """Largest sum of absolute weights that an order may reach; with long_short only."""
    borrow_rate: float = setting(default=0.03, least=0)
    """Annual rate on borrowed shares and on negative cash."""
    cash_rate: float = setting(default=0.0, above=-1)
    """Annual interest on cash."""
    turbulence: bool = False
    """Add the turbulence of the assets' returns to what is observed."""
    turbulence_window: int = setting(default=60, least=2)
    """Bars before this one that turbulence compares it with."""
    turbulence_shrinkage: float = setting(default=0.1, above=0, most=1)
    """Weight of the identity in the covariance, so that it can be inverted."""
    turbulence_threshold: float | None = setting(default=None, above=0)
    """Turbulence above which all goes to cash; about 1 is ordinary. None: never."""
    ruin_level: float = setting(default=0.1, least=0, below=1)
    """The episode terminates when net worth falls to this fraction of the initial cash."""
    reward: Literal["log_growth", "mean_variance", "differential_sharpe"] = "log_growth"
    """What is summed: log growth of net worth, return minus risk_aversion times its squared
    deviation from the running mean minus cost_aversion times costs, or differential Sharpe."""
    risk_aversion: float = setting(default=1.0, least=0)
    """Weight of the variance in the mean_variance reward."""
    cost_aversion: float = setting(default=0.0, least=0)
    """Weight of costs in the mean_variance reward, beyond having been paid."""
    sharpe_rate: float = setting(default=0.01, above=0, most=1)
    """Adaptation rate of the running moments that two of the rewards use."""

    def validate(self):
        cost = (self.commission_bps + self.half_spread_bps) * 1e-4
        if self.long_short and cost * self.gross > 0.1:
            raise ConfigError(
                f"portfolio: costs of {cost * 1e4:g} bps on {self.gross:g} x net worth are more "
                f"than 10% of it; lower gross to {0.1 / cost:.3g}, or the costs"
            )


@struct.dataclass
class PortfolioParams:
    """Market arrays and numbers; every field is a pytree leaf."""

    table: jax.Array
    """Features [T, n F], with turbulence [T, n F + 1]."""
    moves: jax.Array
    """[T, 2, n]: simple returns from the close of each bar to the fill of its order, and from
    there to the next close."""
    turbulence: jax.Array
    """[T]"""
    first_row: jax.Array
    last_row: jax.Array
    """The span of rows that may be visited, both inclusive."""
    episode_length: jax.Array
    random_start: jax.Array
    """False: every episode starts at `first_row`."""
    initial_cash: jax.Array
    cost: jax.Array
    """Commission and half spread, as a fraction of what is traded."""
    gross: jax.Array
    borrow_rate: jax.Array
    """Per bar."""
    cash_rate: jax.Array
    """Per bar."""
    turbulence_threshold: jax.Array
    ruin_level: jax.Array
    risk_aversion: jax.Array
    cost_aversion: jax.Array
    sharpe_rate: jax.Array


@struct.dataclass
class PortfolioState:
    row: jax.Array
    time: jax.Array
    """Steps since the episode began."""
    weights: jax.Array
    """[n], without cash."""
    net_worth: jax.Array
    mean: jax.Array
    square: jax.Array
    """Running moments of the return a bar, for two of the rewards."""


class Portfolio(MarketEnvironment):
    """See the module's docstring. Fields choose the program; numbers are in `PortfolioParams`."""

    def __init__(
        self,
        n_assets: int = 3,
        fill: str = "next_open",
        logit_limit: float = 10.0,
        long_short: bool = False,
        threshold: bool = False,
        reward: str = "log_growth",
    ):
        super().__init__()
        self.n_assets = n_assets
        self.fill = fill
        self.logit_limit = logit_limit
        self.long_short = long_short
        self.threshold = threshold
        self.reward = reward

    @property
    def name(self) -> str:
        return "portfolio"

    @property
    def default_params(self) -> PortfolioParams:  # type: ignore[override]
        """Seeded random walks, so that the environment works without data."""
        from tradax.data import synthetic
        from tradax.data.features import Config as FeatureConfig

        bars = synthetic.load("gbm", bars=512, assets=self.n_assets)
        markets = Pipeline.fit(bars, FeatureConfig(indicators=False)).transform(bars)
        return make(Config(), markets, Span(markets[0].first_row, 511))[1]

    @property
    def num_actions(self) -> int:
        return self.n_assets if self.long_short else self.n_assets + 1

    def action_space(self, params: PortfolioParams | None = None) -> spaces.Box:
        limit = self.logit_limit
        return spaces.Box(-limit, limit, (self.num_actions,), jnp.float32)

    def market_table(self, params: PortfolioParams) -> jax.Array:
        return params.table

    def row(self, state: PortfolioState) -> jax.Array:
        return state.row

    def account_size(self, params: PortfolioParams | None = None) -> int:
        return self.n_assets + 1

    def account(self, state: PortfolioState, params: PortfolioParams) -> jax.Array:
        weights = jnp.append(state.weights, 1.0 - state.weights.sum())
        # Near ruin they lose their meaning, and a network its footing.
        return jnp.clip(weights, -10.0, 10.0)

    def reset_state(self, key: jax.Array, params: PortfolioParams) -> PortfolioState:
        room = jnp.maximum(params.last_row - params.first_row - params.episode_length, 0)
        start = random_integer(key, room + 1) * params.random_start
        zero = jnp.float32(0)
        return PortfolioState(
            row=(params.first_row + start).astype(jnp.int32),
            time=jnp.int32(0),
            weights=jnp.zeros(self.n_assets, jnp.float32),
            net_worth=params.initial_cash,
            mean=zero,
            square=zero,
        )

    def is_truncated(self, state: PortfolioState, params: PortfolioParams) -> jax.Array:
        return (state.row >= params.last_row) | (state.time >= params.episode_length)

    def weights(self, action: jax.Array, params: PortfolioParams) -> jax.Array:
        """Target weights [..., n], without cash, of actions [..., A]."""
        action = jnp.clip(action, -self.logit_limit, self.logit_limit)
        if not self.long_short:
            return jax.nn.softmax(action)[..., :-1]
        position = jnp.tanh(action)
        total = jnp.abs(position).sum(-1, keepdims=True)
        return params.gross * position / jnp.maximum(total, 1.0)

    def actions(self, weights: jax.Array, params: PortfolioParams) -> jax.Array:
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

    def step_state(self, key, state: PortfolioState, action, params: PortfolioParams):
        to_fill, to_close = params.moves[state.row]
        target = self.weights(action, params)
        if self.threshold:
            calm = params.turbulence[state.row] <= params.turbulence_threshold
            target = jnp.where(calm, target, 0.0)
        return self.rebalance(state, target, to_fill, to_close, params)

    def rebalance(self, state: PortfolioState, target, to_fill, to_close, params):
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
        new_state = state.replace(  # type: ignore[attr-defined]
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

    def _hold(self, weights, moves, params: PortfolioParams, *, interest: bool) -> "Held":
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

    def _cost(self, weights, target, params: PortfolioParams) -> jax.Array:
        """What moving from `weights` to `target` costs, as a fraction of net worth before."""
        spent = jnp.float32(0)
        for _ in range(3):
            side = jnp.sign(target * (1.0 - spent) - weights)
            traded = jnp.sum(side * (target - weights))
            spent = params.cost * traded / (1.0 + params.cost * jnp.sum(side * target))
        return jnp.minimum(spent, 1.0 - _FLOOR)

    def _reward(self, state: PortfolioState, change, spent, params: PortfolioParams):
        """Returns: reward, and the running first and second moment of the return."""
        delta_mean = change - state.mean
        delta_square = change**2 - state.square
        mean = state.mean + params.sharpe_rate * delta_mean
        square = state.square + params.sharpe_rate * delta_square
        if self.reward == "log_growth":
            reward = jnp.log1p(jnp.maximum(change, _FLOOR - 1.0))
        elif self.reward == "differential_sharpe":
            # Moody and Saffell (2001), eq. 14, scaled by the adaptation rate.
            variance = jnp.maximum(state.square - state.mean**2, 1e-6)
            reward = (state.square * delta_mean - 0.5 * state.mean * delta_square) / variance**1.5
            # The moments mean nothing before they have seen 1 / rate bars.
            warm = state.time >= 1.0 / params.sharpe_rate
            reward = params.sharpe_rate * jnp.where(warm, reward, delta_mean / jnp.sqrt(variance))
        else:
            reward = change - params.risk_aversion * delta_mean**2 - params.cost_aversion * spent
        return reward, mean, square


class Held(NamedTuple):
    """What holding did."""

    gain: jax.Array
    """Simple return of net worth, interest included."""
    weights: jax.Array
    """[n] after prices have moved."""
    interest: jax.Array
    """As a fraction of net worth before."""


def make(config: Config, markets: tuple[Market, ...], train: Span):
    """The environment and its parameters on markets that share a calendar.

    Args:
        markets: one asset each; a single market is a portfolio of one asset and cash.
        train: rows for training episodes; see `over_span` for evaluation.

    Returns: (Portfolio, PortfolioParams).

    Raises:
        DataError: the markets' bars are not of the same times.
        ConfigError: actions cannot reach a weight of 0.99 in one of so many assets.
    """
    markets = (markets,) if isinstance(markets, Market) else tuple(markets)
    n = len(markets)
    for market in markets[1:]:
        if not np.array_equal(market.timestamps, markets[0].timestamps):
            raise DataError(
                f"{markets[0].symbol} and {market.symbol} have bars at different times and cannot "
                "be in one portfolio"
            )
    check_reach("portfolio", config.logit_limit, n, long_short=config.long_short)
    env = Portfolio(
        n_assets=n,
        fill=config.fill,
        logit_limit=float(config.logit_limit),
        long_short=config.long_short,
        threshold=config.turbulence_threshold is not None,
        reward=config.reward,
    )
    close = np.stack([m.close for m in markets], axis=1)
    table = np.concatenate([m.table for m in markets], axis=1)
    turbulent = np.ones(len(close))
    if config.turbulence or env.threshold:
        turbulent = turbulence(close, config.turbulence_window, config.turbulence_shrinkage)
    if config.turbulence:
        table = np.column_stack([table, np.log1p(turbulent)])
    per_bar = 1.0 / markets[0].periods_per_year
    number = jnp.float32
    params = PortfolioParams(
        table=jnp.asarray(table, jnp.float32),
        moves=jnp.asarray(_moves(markets, close, config.fill), jnp.float32),
        turbulence=jnp.asarray(turbulent, jnp.float32),
        first_row=jnp.int32(train.first),
        last_row=jnp.int32(train.last),
        episode_length=jnp.int32(config.episode_length),
        random_start=jnp.bool_(True),
        initial_cash=number(config.initial_cash),
        cost=number((config.commission_bps + config.half_spread_bps) * 1e-4),
        gross=number(config.gross),
        borrow_rate=number(config.borrow_rate * per_bar),
        cash_rate=number(config.cash_rate * per_bar),
        turbulence_threshold=number(
            1e9 if config.turbulence_threshold is None else config.turbulence_threshold
        ),
        ruin_level=number(config.ruin_level),
        risk_aversion=number(config.risk_aversion),
        cost_aversion=number(config.cost_aversion),
        sharpe_rate=number(config.sharpe_rate),
    )
    return env, params


def over_span(params: PortfolioParams, span: Span) -> PortfolioParams:
    """The same market, walked once from the first to the last row of `span`."""
    return params.replace(  # type: ignore[attr-defined]
        first_row=jnp.int32(span.first),
        last_row=jnp.int32(span.last),
        episode_length=jnp.int32(span.last - span.first + 1),
        random_start=jnp.bool_(False),
    )


def without_costs(params: PortfolioParams) -> PortfolioParams:
    """The same market at no cost, for gross figures."""
    return params.replace(cost=jnp.float32(0))  # type: ignore[attr-defined]


def rivals(
    env: Portfolio, params: PortfolioParams, n_steps: int, key: jax.Array
) -> dict[str, Actor]:
    """What a policy is compared with over the `n_steps` bars from `params.first_row` on.

    Equal weights bought once or kept, all cash, minimum variance and mean-variance of the last 60
    bars, and actions from all over the box, which put most into one asset after the other.
    """
    rules = portfolio_baselines
    first = int(params.first_row)
    limit = env.logit_limit

    def always(rule: portfolio_baselines.Constant) -> _baselines.Plan:
        return _baselines.Plan(jnp.tile(rule.action, (n_steps, 1)))

    def by_row(rule: portfolio_baselines.Lookup) -> _baselines.Plan:
        return _baselines.Plan(rule.actions[first : first + n_steps])

    return {
        "buy_and_hold": rules.buy_and_hold(env, params).actor(),
        "cash": always(rules.constant(env, params, np.zeros(env.n_assets))),
        "equal_weight": always(rules.equal_weight(env, params)),
        "minimum_variance": by_row(rules.minimum_variance(env, params)),
        "mean_variance": by_row(rules.mean_variance(env, params)),
        "random": _baselines.Plan(
            jax.random.uniform(key, (n_steps, env.num_actions), minval=-limit, maxval=limit)
        ),
    }


def turbulence(close: np.ndarray, window: int, shrinkage: float) -> np.ndarray:
    """Mahalanobis distance of each bar's returns to those of the bars before it, over n.

    Args:
        close: [T, n].
        window: bars before, W; the bar itself is not among them.
        shrinkage: z in S = (1 - z) covariance + z (trace covariance / n) I.

    Returns: [T]; 1 in the first W + 1 rows.
    """
    rows, n = close.shape
    returns = close[1:] / close[:-1] - 1.0  # row t - 1: of bar t
    found = np.ones(rows)
    for first in range(window + 1, rows, _BLOCK):
        bars = np.arange(first, min(first + _BLOCK, rows))
        before = returns[bars[:, None] - 1 - np.arange(window, 0, -1)]  # [B, W, n]
        mean = before.mean(axis=1)
        centred = before - mean[:, None]
        covariance = np.matmul(centred.transpose(0, 2, 1), centred) / (window - 1)
        scale = np.maximum(np.trace(covariance, axis1=1, axis2=2) / n, 1e-12)
        shrunk = (1.0 - shrinkage) * covariance
        shrunk += shrinkage * scale[:, None, None] * np.eye(n)
        deviation = (returns[bars - 1] - mean)[..., None]
        distance = np.sum(deviation * np.linalg.solve(shrunk, deviation), axis=(1, 2))
        found[bars] = np.clip(distance / n, 0.0, 1e6)  # prices that had never moved
    return found


_BLOCK = 2_048


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


def _moves(markets: tuple[Market, ...], close: np.ndarray, fill: str) -> np.ndarray:
    """[T, 2, n]: returns to the fill and from there to the next close; 0 after the last bar."""
    following = np.concatenate([close[1:], close[-1:]])
    if fill == "next_open":
        filled = np.stack([m.open for m in markets], axis=1)
        filled = np.concatenate([filled[1:], close[-1:]])
    else:
        filled = following if fill == "next_close" else close
    return np.stack([filled / close - 1.0, following / filled - 1.0], axis=1)
