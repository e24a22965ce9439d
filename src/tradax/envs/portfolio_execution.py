"""Selling several assets together by a deadline (Almgren and Chriss 2000, portfolios).

x_0 = X shares of A assets (below 0: to be bought) are sold in N steps of tau = T / N days; n_k in
step k, x_k = x_{k-1} - n_k left.

    S_k  = S_{k-1} + sqrt(tau) L xi_k - Gamma n_k              prices; L L' = C, their covariance
    S~_k = S_{k-1} - eps sgn(n_k) - (H / tau) n_k              fill prices

An order in one asset also moves the others, the more the more their prices move together. With rho
the `correlation` and c the `cross_impact`, for i != j

    C_ij = rho sigma_i sigma_j
    Gamma_ij = c rho sqrt(gamma_i gamma_j)
    H_ij = c rho sqrt(eta_i eta_j)

and sigma_i^2, gamma_i and eta_i where i = j. `tradax.almgren_chriss` has the optimum.

**Observation**: row k of the table, (time left / T), and the account: x / u and
(S - S_0) / (sigma sqrt(T)) of every asset. The unit u is |X|; of an asset that is not held at
first, the shares worth as much as the largest position. The deadline ends the task, so the clock
is seen.

**Action** a in [-1, 1]^A, one number an asset; what it means is chosen by `action`, with M the
number of steps left:

    target     hold x_k = X (1 - k / N) + a u after the step: an even sale at 0
    pace       sell the fraction ((a + 1) / 2)^(log2 M) of what is left: nothing at -1, the even
               share 1 / M at 0, all at 1
    fraction   sell the fraction (a + 1) / 2 of what is left
    rate       sell a + 1 times what the optimum sells at these holdings

"pace" and "fraction" only ever take a position nearer to 0; the others may also trade past 0 and
back, to hedge one asset with another. The last step sells the rest, whatever the action.

**Reward**, in units of the utility that an even sale costs, so that -1 is as good as TWAP:

    shortfall  r_k = n_k' (S~_k - S_0) - lambda tau x_k' C x_k
    expected   r_k = -(eps' |n_k| + n_k' H n_k / tau + x_k' Gamma n_k) - lambda tau x_k' C x_k

Both have the expected sum -(E + lambda V); the second is free of the noise of the prices.

**End.** Terminated after step N.
"""

from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from tradax.almgren_chriss import PortfolioAlmgrenChriss, least_effective_impact
from tradax.config import config, setting
from tradax.envs._market import MarketEnvironment
from tradax.errors import ConfigError
from tradax.gymnax_parts import spaces

if TYPE_CHECKING:
    from tradax.data.splits import Span

_EACH = (
    "initial_prices",
    "volatilities",
    "half_spreads",
    "temporary_impacts",
    "permanent_impacts",
)


@config
class Config:
    """Selling several assets together by a deadline at least cost."""

    shares: tuple[float, ...] = (1_000_000.0, 500_000.0, -400_000.0)
    """Shares of each asset to sell; below 0: to buy."""
    initial_prices: tuple[float, ...] = setting(default=(50.0, 100.0, 20.0), above=0)
    """Price a share when the decision to sell is made, in dollars; here and in what follows one
    number for each asset, or one for all."""
    volatilities: tuple[float, ...] = setting(default=(0.95, 1.5, 0.6), least=0)
    """Standard deviation of each price's change in a day, in dollars."""
    correlation: float = setting(default=0.3, above=-1, below=1)
    """Correlation of the price changes of any two assets."""
    horizon: float = setting(default=5.0, above=0)
    """Days until all must be sold."""
    steps: int = setting(default=5, least=1)
    """Steps into which the horizon is divided."""
    half_spreads: tuple[float, ...] = setting(default=(0.0625, 0.05, 0.02), least=0)
    """Half the bid-ask spread and fees, in dollars a share."""
    temporary_impacts: tuple[float, ...] = setting(default=(2.5e-6, 1e-6, 2e-6), above=0)
    """Dollars a share by which an order worsens its own price, at a rate of one share a day."""
    permanent_impacts: tuple[float, ...] = setting(default=(2.5e-7, 1e-7, 2e-7), least=0)
    """Dollars by which every share sold lowers the asset's price for good."""
    cross_impact: float = setting(default=0.5, least=0, most=1)
    """Impact between two assets, as a share of the correlation times the geometric mean of their
    own impacts. 0: orders move the price of their own asset only."""
    risk_aversion: float = setting(default=1e-6, least=0)
    """Weight of the variance of the shortfall, a dollar."""
    action: Literal["target", "pace", "fraction", "rate"] = "target"
    """What an action means: holdings relative to an even sale, a pace relative to one, a fraction
    of what is left, or a multiple of what the optimum sells."""
    reward: Literal["expected", "shortfall"] = "expected"
    """Expected cost given the orders, or realised shortfall; both minus the risk taken."""

    def validate(self):
        closed_form(self)


def closed_form(config: Config) -> PortfolioAlmgrenChriss:
    """The model of the same sale, with its optimum.

    Raises:
        ConfigError: options that do not fit together.
    """
    n = len(config.shares)
    if not any(config.shares):
        raise ConfigError(
            f"portfolio_execution.shares is {config.shares}; at least one number must not be 0"
        )
    if n > 1 and config.correlation <= -1.0 / (n - 1):
        raise ConfigError(
            f"portfolio_execution.correlation is {config.correlation}; {n} assets cannot all be "
            f"correlated like that: it must be above {-1.0 / (n - 1):.4g}"
        )
    each = {name: _each(config, name) for name in _EACH}
    correlations = np.full((n, n), config.correlation)
    np.fill_diagonal(correlations, 1.0)
    spill = config.cross_impact * correlations
    np.fill_diagonal(spill, 1.0)
    temporary = spill * _geometric_means(each["temporary_impacts"])
    permanent = spill * _geometric_means(each["permanent_impacts"])
    least = least_effective_impact(temporary, permanent, config.horizon / config.steps)
    if least <= 0:
        raise ConfigError(
            f"portfolio_execution.temporary_impacts is {config.temporary_impacts}; with cross "
            "impact it must exceed half the permanent impact times the days of a step for every "
            f"mix of assets, and for one mix it lacks {-least:.3g} of the temporary impact: else "
            "selling in one go is always cheapest. Take more steps, larger temporary_impacts or "
            "smaller permanent_impacts"
        )
    return PortfolioAlmgrenChriss(
        shares=config.shares,
        covariance=correlations * np.outer(each["volatilities"], each["volatilities"]),
        temporary_impact=temporary,
        permanent_impact=permanent,
        half_spread=each["half_spreads"],
        horizon=config.horizon,
        steps=config.steps,
        risk_aversion=config.risk_aversion,
    )


def _each(config: Config, name: str) -> np.ndarray:
    """[A]: an option's number for every asset."""
    values, n = getattr(config, name), len(config.shares)
    if len(values) not in (1, n):
        raise ConfigError(
            f"portfolio_execution.{name} has {len(values)} numbers; shares has {n}: give one for "
            "each asset, or one for all"
        )
    return np.broadcast_to(np.array(values, float), n)


def _geometric_means(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.outer(values, values))


@struct.dataclass
class PortfolioExecutionParams:
    """Numbers; every field is a pytree leaf."""

    table: jax.Array
    """[N + 1, 1]: time left over T before every step, and after the last."""
    optimal_gain: jax.Array
    """[N, A, A]: K_k of the optimum for these numbers, as `make` was given them."""
    shares: jax.Array
    """[A]"""
    unit: jax.Array
    """[A]: shares that holdings are observed in, above 0."""
    initial_price: jax.Array
    """[A]"""
    move_factor: jax.Array
    """L [A, A], in dollars and square root of a day."""
    step_days: jax.Array
    half_spread: jax.Array
    """[A]"""
    temporary_impact: jax.Array
    """H [A, A]"""
    permanent_impact: jax.Array
    """Gamma [A, A]"""
    risk_aversion: jax.Array
    reward_unit: jax.Array
    """Dollars that a reward of 1 stands for."""


@struct.dataclass
class PortfolioExecutionState:
    step: jax.Array
    """Steps taken, 0 to N."""
    shares: jax.Array
    """[A], left to sell."""
    market_move: jax.Array
    """[A]: S - S_0 without the permanent impact of what was sold."""


class PortfolioExecution(MarketEnvironment):
    """See the module's docstring. Fields choose the program; the rest is in the parameters."""

    def __init__(self, action: str = "target", reward: str = "expected"):
        super().__init__()
        self.action = action
        self.reward = reward

    @property
    def name(self) -> str:
        return "portfolio_execution"

    @property
    def default_params(self) -> PortfolioExecutionParams:
        return make(Config())[1]

    @property
    def num_actions(self) -> int:
        """Of the default parameters; one an asset."""
        return len(Config().shares)

    def action_space(self, params: PortfolioExecutionParams | None = None) -> spaces.Box:
        assets = self.num_actions if params is None else params.shares.shape[-1]
        return spaces.Box(-1.0, 1.0, (assets,), jnp.float32)

    def row(self, state: PortfolioExecutionState) -> jax.Array:
        return state.step

    def account_size(self, params: PortfolioExecutionParams) -> int:
        return 2 * params.shares.shape[-1]

    def account(self, state: PortfolioExecutionState, params: PortfolioExecutionParams):
        n_steps = params.optimal_gain.shape[0]
        variance = jnp.sum(params.move_factor**2, axis=-1) * n_steps * params.step_days
        # Without volatility only the seller's own impact moves the price.
        seen = jnp.where(variance > 0, jax.lax.rsqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)
        move = jnp.clip(self._price_move(state, params) * seen, -10.0, 10.0)
        return jnp.concatenate([state.shares / params.unit, move])

    def reset_state(self, key: jax.Array, params: PortfolioExecutionParams):
        return PortfolioExecutionState(
            step=jnp.int32(0), shares=params.shares, market_move=jnp.zeros_like(params.shares)
        )

    def is_truncated(self, state, params) -> jax.Array:
        return jnp.bool_(False)

    def sales(
        self,
        action: jax.Array,
        shares: jax.Array,
        step: jax.Array,
        params: PortfolioExecutionParams,
    ) -> jax.Array:
        """Shares that `action` [..., A] asks to sell of the holdings `shares` at `step` [...]."""
        action = jnp.clip(action, -1.0, 1.0)
        if self.action == "target":
            return shares - (self._even_holdings(step, params) + action * params.unit)
        if self.action == "rate":
            return (action + 1.0) * matvec(params.optimal_gain[step], shares)
        unit = (action + 1.0) / 2.0
        if self.action == "pace":
            unit = unit ** self._pace_power(step, params)
        return unit * shares

    def actions(
        self, sales: jax.Array, shares: jax.Array, step: jax.Array, params: PortfolioExecutionParams
    ) -> jax.Array:
        """The actions that ask for `sales`, or for the nearest in reach; the inverse of `sales`."""
        if self.action == "target":
            action = (shares - sales - self._even_holdings(step, params)) / params.unit
        elif self.action == "rate":
            action = _ratio(sales, matvec(params.optimal_gain[step], shares)) - 1.0
        else:
            unit = jnp.clip(_ratio(sales, shares), 0.0, 1.0)
            if self.action == "pace":
                unit = unit ** (1.0 / jnp.maximum(self._pace_power(step, params), 1.0))
            action = 2.0 * unit - 1.0
        return jnp.clip(action, -1.0, 1.0)

    def step_state(self, key, state: PortfolioExecutionState, action, params):
        last = state.step + 1 >= params.optimal_gain.shape[0]
        sold = self.sales(action, state.shares, state.step, params)
        sold = jnp.where(last, state.shares, sold)
        left = state.shares - sold

        move = self._price_move(state, params)  # S_{k-1} - S_0
        slip = params.half_spread * jnp.sign(sold)  # S_{k-1} - S~_k
        slip = slip + matvec(params.temporary_impact, sold) / params.step_days
        cost = jnp.sum(sold * (slip - move))
        exposure = matvec(params.move_factor.T, left)
        risk = params.risk_aversion * params.step_days * jnp.sum(exposure**2)
        if self.reward == "shortfall":
            reward = -(cost + risk)
        else:
            lasting = jnp.sum(left * matvec(params.permanent_impact, sold))
            reward = -(jnp.sum(sold * slip) + lasting + risk)

        noise = matvec(params.move_factor, jax.random.normal(key, left.shape))
        new_state = PortfolioExecutionState(
            step=state.step + 1,
            shares=left,
            market_move=state.market_move + jnp.sqrt(params.step_days) * noise,
        )
        info = {
            "sold": sold,
            "remaining": left,
            "fill_price": jnp.where(sold == 0, 0.0, params.initial_price + move - slip),
            "price": params.initial_price + self._price_move(new_state, params),
            "cost_dollars": cost,
            "risk_dollars": risk,
            "row": new_state.step,
        }
        return new_state, reward / params.reward_unit, last, info

    def _price_move(self, state: PortfolioExecutionState, params) -> jax.Array:
        """S - S_0, [A]."""
        return state.market_move - matvec(params.permanent_impact, params.shares - state.shares)

    def _even_holdings(self, step: jax.Array, params) -> jax.Array:
        """What an even sale holds after the step, [..., A]."""
        done = (step + 1) / params.optimal_gain.shape[0]
        return (1.0 - done)[..., None] * params.shares

    def _pace_power(self, step: jax.Array, params) -> jax.Array:
        """log2 M, [..., 1]."""
        left = jnp.asarray(params.optimal_gain.shape[0] - step, jnp.float32)
        return jnp.log2(jnp.maximum(left, 1.0))[..., None]


def make(config: Config, market: Any = None, train: "Span | None" = None):
    """The environment and its parameters.

    Args:
        market, train: as other environments have them; there is no data to take here.

    Returns: (PortfolioExecution, PortfolioExecutionParams).

    Raises:
        ConfigError: a market was given.
    """
    if market is not None or train is not None:
        raise ConfigError(
            "portfolio_execution simulates its own prices and takes no data; leave it out"
        )
    model = closed_form(config)
    shares, prices = np.array(config.shares, float), _each(config, "initial_prices")
    unit = np.where(shares == 0, np.abs(shares * prices).max() / prices, np.abs(shares))
    correlations = np.full((len(shares), len(shares)), config.correlation)
    np.fill_diagonal(correlations, 1.0)
    factor = _each(config, "volatilities")[:, None] * np.linalg.cholesky(correlations)
    left = 1.0 - np.arange(config.steps + 1) / config.steps

    def numbers(value: Any) -> jax.Array:
        return jnp.asarray(value, jnp.float32)

    params = PortfolioExecutionParams(
        table=numbers(left[:, None]),
        optimal_gain=numbers(model.gains()),
        shares=numbers(shares),
        unit=numbers(unit),
        initial_price=numbers(prices),
        move_factor=numbers(factor),
        step_days=numbers(model.step_days),
        half_spread=numbers(model.half_spread),
        temporary_impact=numbers(model.temporary_impact),
        permanent_impact=numbers(model.permanent_impact),
        risk_aversion=numbers(config.risk_aversion),
        reward_unit=numbers(model.utility(model.twap())),
    )
    return PortfolioExecution(action=config.action, reward=config.reward), params


def matvec(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """`matrix` [..., A, A] times `vector` [..., A], in full float32 on accelerators too."""
    return jnp.sum(matrix * vector[..., None, :], axis=-1)


def _ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """a / b, and 0 where b is."""
    return jnp.where(b == 0, 0.0, a / jnp.where(b == 0, 1.0, b))
