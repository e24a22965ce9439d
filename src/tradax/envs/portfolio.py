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

(Jiang, Xu and Liang 2017, eq. 14, with equal rates for buying and selling);
`tradax.envs._allocation` solves it.

**Interest** is earned on cash, and paid on negative cash and on shares sold short, once a bar: for
what is held from the fill on, or with `next_close` up to the fill.

**Turbulence** of bar t (Kritzman and Li 2010) is d = (y - m)' S^-1 (y - m) / n: returns y of
bar t, mean m and covariance S of the `turbulence_window` bars before it, S shrunk towards a
multiple of the identity. It is about 1 in ordinary times, and taken to be 1 where fewer bars have
been; agents see log(1 + d). With `turbulence_threshold`, an order given on a bar above it is
replaced by one for all cash.

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
from tradax.envs import _baselines, portfolio_baselines
from tradax.envs._allocation import Allocation, AllocationParams, AllocationState, check_reach
from tradax.envs._rolling import turbulence
from tradax.envs._span import SpanParams, start_row
from tradax.envs._span import over_span as over_span
from tradax.errors import ConfigError, DataError
from tradax.protocols import Actor

HOLDS_ALL_SYMBOLS = True
"""One environment holds all symbols of the data, where others would have one each."""


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
class PortfolioParams(SpanParams, AllocationParams):
    """Market arrays and numbers; every field is a pytree leaf."""

    table: jax.Array
    """Features [T, n F], with turbulence [T, n F + 1]."""
    moves: jax.Array
    """[T, 2, n]: simple returns from the close of each bar to the fill of its order, and from
    there to the next close."""
    turbulence: jax.Array
    """[T]"""
    turbulence_threshold: jax.Array


class Portfolio(Allocation):
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
        super().__init__(n_assets, fill, logit_limit, long_short, reward)
        self.threshold = threshold

    @property
    def name(self) -> str:
        return "portfolio"

    @property
    def default_params(self) -> PortfolioParams:
        """Seeded random walks, so that the environment works without data."""
        from tradax.data import synthetic
        from tradax.data.features import Config as FeatureConfig

        bars = synthetic.load("gbm", bars=512, assets=self.n_assets)
        markets = Pipeline.fit(bars, FeatureConfig(indicators=False)).transform(bars)
        return make(Config(), markets, Span(markets[0].first_row, 511))[1]

    def row(self, state: AllocationState) -> jax.Array:
        return state.row

    def account_size(self, params: PortfolioParams | None = None) -> int:
        return self.n_assets + 1

    def account(self, state: AllocationState, params: PortfolioParams) -> jax.Array:
        return self.held(state)

    def reset_state(self, key: jax.Array, params: PortfolioParams) -> AllocationState:
        zero = jnp.float32(0)
        return AllocationState(
            row=start_row(key, params).astype(jnp.int32),
            time=jnp.int32(0),
            weights=jnp.zeros(self.n_assets, jnp.float32),
            net_worth=params.initial_cash,
            mean=zero,
            square=zero,
        )

    def is_truncated(self, state: AllocationState, params: PortfolioParams) -> jax.Array:
        return (state.row >= params.last_row) | (state.time >= params.episode_length)

    def step_state(self, key, state: AllocationState, action, params: PortfolioParams):
        to_fill, to_close = params.moves[state.row]
        target = self.weights(action, params)
        if self.threshold:
            calm = params.turbulence[state.row] <= params.turbulence_threshold
            target = jnp.where(calm, target, 0.0)
        return self.rebalance(state, target, to_fill, to_close, params)


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
    per_bar = 1.0 / markets[0].periods_per_year
    number = jnp.float32
    params = PortfolioParams(
        **{name: jnp.asarray(a) for name, a in market_arrays(config, markets).items()},
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


def market_arrays(config: Config, markets: tuple[Market, ...]) -> dict[str, np.ndarray]:
    """The fields of the parameters that hold what was on each bar, float32 [T, ...].

    Turbulence needs `turbulence_window` + 1 bars before the first that counts.
    """
    close = np.stack([m.close for m in markets], axis=1)
    table = np.concatenate([m.table for m in markets], axis=1)
    turbulent = np.ones(len(close))
    if config.turbulence or config.turbulence_threshold is not None:
        turbulent = turbulence(close, config.turbulence_window, config.turbulence_shrinkage)
    if config.turbulence:
        table = np.column_stack([table, np.log1p(turbulent)])
    arrays = {
        "table": table,
        "moves": _moves(markets, close, config.fill),
        "turbulence": turbulent,
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def without_costs(params: PortfolioParams) -> PortfolioParams:
    """The same market at no cost, for gross figures."""
    return dataclasses.replace(params, cost=jnp.float32(0))


def at_cost(params: PortfolioParams, cost: float) -> PortfolioParams:
    """The same market where an order costs this fraction of its value."""
    return dataclasses.replace(params, cost=jnp.float32(cost))


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


def _moves(markets: tuple[Market, ...], close: np.ndarray, fill: str) -> np.ndarray:
    """[T, 2, n]: returns to the fill and from there to the next close; 0 after the last bar."""
    following = np.concatenate([close[1:], close[-1:]])
    if fill == "next_open":
        filled = np.stack([m.open for m in markets], axis=1)
        filled = np.concatenate([filled[1:], close[-1:]])
    else:
        filled = following if fill == "next_close" else close
    return np.stack([filled / close - 1.0, following / filled - 1.0], axis=1)
