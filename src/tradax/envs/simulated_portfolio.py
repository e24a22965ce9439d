"""Dividing a fortune among assets whose prices are simulated: a fresh path in every episode.

What `portfolio` is on given prices, this is on a process of which the truth is known
(`tradax.data.synthetic`), so that what was learned can be held against it.

**Observation**: a constant (the row of a table that holds nothing), and the account: the weights of
the assets and of cash, last; the log price of every asset over its first; and their last `lags` log
returns, newest first, in units of a year's (times the square root of the bars in a year).

**Action**, **costs**, **interest** and **rewards** as in `portfolio`. The order given on bar t is
filled at its close: prices of a continuous process have no gap in which it could be seen first.
`log_growth` may be replaced by its expectation given the weights (`expected_growth`), where the
process is geometric Brownian motion: the same optimum, with the noise of the prices left out.

**End.** Truncated after `episode_length` bars; terminated at ruin.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from tradax.config import config, setting
from tradax.data import synthetic
from tradax.envs import _paths
from tradax.envs._allocation import Allocation, AllocationParams, AllocationState, check_reach
from tradax.errors import ConfigError


@config
class Config:
    """Weights of assets whose prices are simulated, on a fresh path every episode."""

    process: str = "gbm,drift=0.08,volatility=0.2"
    """Process of the prices and its parameters, as after --data synthetic: and without sample."""
    assets: int = setting(default=1, least=1, most=1_000)
    """Assets, all of the same process."""
    correlation: float = setting(default=0.0, above=-1, below=1)
    """Correlation of the moves of any two of them."""
    bars_per_year: int = setting(default=252, least=1)
    """Bars in a year."""
    substeps: int = setting(default=1, least=1, most=100)
    """Steps of the process in a bar; Heston's scheme needs short ones where bars are long."""
    lags: int = setting(default=1, least=1, most=100)
    """Past returns that are observed."""
    initial_cash: float = setting(default=100_000.0, above=0)
    """Cash at the start."""
    episode_length: int = setting(default=252, least=1)
    """Bars in an episode."""
    commission_bps: float = setting(default=0.0, least=0, most=500)
    """Commission, in basis points of the traded value."""
    half_spread_bps: float = setting(default=0.0, least=0, most=500)
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
    ruin_level: float = setting(default=0.1, least=0, below=1)
    """The episode terminates when net worth falls to this fraction of the initial cash."""
    reward: Literal["log_growth", "expected_growth", "mean_variance", "differential_sharpe"] = (
        "log_growth"
    )
    """What is summed, as in `portfolio`; expected_growth is log growth less the noise of prices."""
    risk_aversion: float = setting(default=1.0, least=0)
    """Weight of the variance in the mean_variance reward."""
    cost_aversion: float = setting(default=0.0, least=0)
    """Weight of costs in the mean_variance reward, beyond having been paid."""
    sharpe_rate: float = setting(default=0.01, above=0, most=1)
    """Adaptation rate of the running moments that two of the rewards use."""

    def validate(self):
        process = synthetic.process_from_text(self.process)
        if isinstance(process, synthetic.Jumps):
            expected = process.rate / (self.bars_per_year * self.substeps)
            if expected > 1.0:
                raise ConfigError(
                    f"simulated_portfolio.process has {expected:.3g} jumps a step on average, and "
                    "more than 6 in one do not happen, so that its mean would be wrong above 1; "
                    "take a lower rate, or more substeps"
                )
        known = isinstance(process, synthetic.GeometricBrownianMotion)
        if self.reward == "expected_growth" and not known:
            raise ConfigError(
                "simulated_portfolio.reward expected_growth needs the process gbm, whose "
                "expectation is known; use log_growth"
            )


@struct.dataclass
class SimulatedParams(AllocationParams):
    """Process and numbers; every field is a pytree leaf or made of them."""

    process: synthetic.Process
    factor: jax.Array
    """[n, n]: Cholesky factor of the correlation."""
    dt: jax.Array
    """Years in a bar."""
    episode_length: jax.Array


@struct.dataclass
class SimulatedState(AllocationState):
    path: _paths.PathState
    recent: jax.Array
    """[lags, n]: log returns, newest first."""


class SimulatedPortfolio(Allocation):
    """See the module's docstring. Fields choose the program; numbers are in `SimulatedParams`."""

    def __init__(
        self,
        n_assets: int = 1,
        logit_limit: float = 10.0,
        long_short: bool = False,
        reward: str = "log_growth",
        lags: int = 1,
        substeps: int = 1,
    ):
        expected = reward == "expected_growth"
        super().__init__(
            n_assets=n_assets,
            fill="close",
            logit_limit=logit_limit,
            long_short=long_short,
            reward="log_growth" if expected else reward,
        )
        self.expected = expected
        self.lags = lags
        self.substeps = substeps

    @property
    def name(self) -> str:
        return "simulated_portfolio"

    @property
    def default_params(self) -> SimulatedParams:
        return make(Config(assets=self.n_assets))[1]

    def market_table(self, params: SimulatedParams) -> jax.Array:
        return jnp.ones((1, 1), jnp.float32)

    def row(self, state: SimulatedState) -> jax.Array:
        return jnp.zeros_like(state.row)

    def account_size(self, params=None) -> int:
        return self.n_assets * (2 + self.lags) + 1

    def account(self, state: SimulatedState, params: SimulatedParams) -> jax.Array:
        recent = state.recent / jnp.sqrt(params.dt)
        seen = jnp.concatenate([state.path.log_price, recent.ravel()])
        return jnp.concatenate([self.held(state), jnp.clip(seen, -10.0, 10.0)])

    def reset_state(self, key: jax.Array, params: SimulatedParams) -> SimulatedState:
        zero = jnp.float32(0)
        return SimulatedState(
            row=jnp.int32(0),
            time=jnp.int32(0),
            weights=jnp.zeros(self.n_assets, jnp.float32),
            net_worth=params.initial_cash,
            mean=zero,
            square=zero,
            path=_paths.start(key, params.process, assets=self.n_assets),
            recent=jnp.zeros((self.lags, self.n_assets), jnp.float32),
        )

    def is_truncated(self, state: SimulatedState, params: SimulatedParams) -> jax.Array:
        return state.time >= params.episode_length

    def step_state(self, key, state: SimulatedState, action, params: SimulatedParams):
        path = state.path
        factor = params.factor if self.n_assets > 1 else None
        keys = jax.random.split(key, self.substeps) if self.substeps > 1 else key[None]
        for substep in keys:
            path = _paths.step(
                substep, params.process, path, params.dt / self.substeps, factor=factor
            )
        move = path.log_price - state.path.log_price
        target = self.weights(action, params)
        still = jnp.zeros_like(move)
        new, reward, terminated, info = self.rebalance(
            state, target, still, jnp.expm1(move), params
        )
        if self.expected:
            paid = jnp.log1p(-info["cost"] / state.net_worth)
            reward = growth(target, params) * params.dt + paid
        new = dataclasses.replace(
            new, path=path, recent=jnp.concatenate([move[None], state.recent[:-1]])
        )
        return new, reward, terminated, info


def growth(weights: jax.Array, params: SimulatedParams) -> jax.Array:
    """Expected log growth a year of constant weights [..., n] on geometric Brownian motion.

    r + w' (mu - r) - w' Sigma w / 2 (Merton 1969), with rebalancing all the time; of bars of
    length dt it is what is left without terms in dt^2.
    """
    process = params.process
    assert isinstance(process, synthetic.GeometricBrownianMotion)
    cash = 1.0 - weights.sum(-1)
    rate = jnp.where(cash > 0, params.cash_rate, params.borrow_rate) / params.dt
    exposed = process.volatility * weights @ params.factor
    return cash * rate + weights.sum(-1) * process.drift - 0.5 * jnp.sum(exposed**2, axis=-1)


def make(config: Config):
    """The environment and its parameters.

    Returns: (SimulatedPortfolio, SimulatedParams).

    Raises:
        ConfigError: the correlation cannot be, or one asset cannot get a weight of 0.99.
        DataError: unknown process or parameter.
    """
    n, number = config.assets, jnp.float32
    if config.correlation <= -1.0 / max(n - 1, 1):
        raise ConfigError(
            f"simulated_portfolio.correlation is {config.correlation:g}; {n} assets can have one "
            f"above {-1.0 / (n - 1):.3g}"
        )
    check_reach("simulated_portfolio", config.logit_limit, n, long_short=config.long_short)
    env = SimulatedPortfolio(
        n_assets=n,
        logit_limit=config.logit_limit,
        long_short=config.long_short,
        reward=config.reward,
        lags=config.lags,
        substeps=config.substeps,
    )
    process = jax.tree.map(number, synthetic.process_from_text(config.process))
    dt = 1.0 / config.bars_per_year
    return env, SimulatedParams(
        process=process,
        factor=_paths.correlation_factor(n, config.correlation),
        dt=number(dt),
        episode_length=jnp.int32(config.episode_length),
        initial_cash=number(config.initial_cash),
        cost=number((config.commission_bps + config.half_spread_bps) * 1e-4),
        gross=number(config.gross),
        borrow_rate=number(config.borrow_rate * dt),
        cash_rate=number(config.cash_rate * dt),
        ruin_level=number(config.ruin_level),
        risk_aversion=number(config.risk_aversion),
        cost_aversion=number(config.cost_aversion),
        sharpe_rate=number(config.sharpe_rate),
    )
