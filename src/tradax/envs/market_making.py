"""Quoting both sides of a market (Avellaneda and Stoikov 2008).

In each of N steps of dt = T / N the agent quotes a bid at S - delta_b and an ask at S + delta_a,
one share each. Then, independently,

    bid filled with probability  A exp(-k delta_b) dt         q += 1, cash -= S - delta_b
    ask filled with probability  A exp(-k delta_a) dt         q -= 1, cash += S + delta_a
    S += sigma sqrt(dt) xi                                     arithmetic Brownian motion

A exp(-k delta) dt, at most 1, is what the paper simulates (`fill_probability="linear"`); a Poisson
process gives 1 - exp(-A exp(-k delta) dt) (`"exact"`), about a tenth less at the default step.

**Observation**: row n of the table, (time left / T), and the account: inventory over its unit,
(S - S_0) / (sigma sqrt(T)). The unit is the deviation of the final inventory of somebody who
always quotes at 1 / k, sqrt(2 A T / e), or the inventory limit where that is less.

**Action** in [-1, 1]^2: distances (delta_b, delta_a), linearly from `min_distance` to
`max_distance`. A side that would take the inventory beyond its limit is not quoted.

**Reward** in dollars: change of wealth W = cash + q S, minus gamma / 2 sigma^2 dt q^2, with q the
inventory that is carried through the move of S: what exponential utility -exp(-gamma W) makes of
a small step, E dW - gamma / 2 Var dW, except for the small variance of the fills themselves.
`reward="expected"` puts the expected earnings of the quotes for those of the fills and 0 for the
price's noise; the expected sum is the same. Its optimum is known (`market_making_baselines`), and
the closed form is an approximation to it: 3.5% below at the default options.

**End.** Terminated at T, inventory marked to the mid price at no cost.
"""

from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from tradax.config import config, setting
from tradax.envs._market import MarketEnvironment
from tradax.errors import ConfigError
from tradax.gymnax_parts import spaces

if TYPE_CHECKING:
    from tradax.data.splits import Span


@config
class Config:
    """Quoting both sides of a market."""

    initial_price: float = setting(default=100.0, above=0)
    """Mid price at the start, in dollars."""
    horizon: float = setting(default=1.0, above=0)
    """Time until the end, T."""
    steps: int = setting(default=200, least=1)
    """Steps into which the horizon is divided, N."""
    volatility: float = setting(default=2.0, above=0)
    """Standard deviation of the mid price after one unit of time, sigma, in dollars."""
    intensity: float = setting(default=140.0, above=0)
    """Orders that would meet a quote at the mid price in one unit of time, A."""
    decay: float = setting(default=1.5, above=0)
    """How fast orders become fewer with the distance of the quote, k, a dollar."""
    risk_aversion: float = setting(default=0.1, above=0)
    """Weight of the variance, gamma, a dollar."""
    min_distance: float = 0.0
    """Least distance of a quote from the mid price, in dollars; below 0 it may lie beyond it."""
    max_distance: float = 3.0
    """Largest distance of a quote from the mid price, in dollars."""
    inventory_limit: int = setting(default=50, least=1)
    """Largest number of shares held or owed."""
    fill_probability: Literal["linear", "exact"] = "linear"
    """Chance of a fill in a step: intensity x dt as in the paper, or 1 - exp(-intensity x dt)."""
    reward: Literal["wealth", "expected"] = "wealth"
    """Change of wealth, or its expectation given the quotes; both minus the inventory penalty."""

    def validate(self):
        if self.min_distance >= self.max_distance:
            raise ConfigError(
                f"market_making.min_distance is {self.min_distance}; it must be below "
                f"max_distance, {self.max_distance}"
            )
        most = self.intensity * self.horizon / self.steps
        if self.fill_probability == "linear" and most > 1:
            needed = int(np.ceil(self.intensity * self.horizon))
            raise ConfigError(
                f"market_making: a quote at the mid price would be filled with probability "
                f"{most:.3g} in a step; take at least {needed} steps, or fill_probability exact"
            )


@struct.dataclass
class MarketMakingParams:
    """Numbers; every field is a pytree leaf."""

    table: jax.Array
    """[N + 1, 1]: time left over T before every step, and after the last."""
    initial_price: jax.Array
    step_time: jax.Array
    """dt"""
    volatility: jax.Array
    intensity: jax.Array
    decay: jax.Array
    risk_aversion: jax.Array
    min_distance: jax.Array
    max_distance: jax.Array
    inventory_limit: jax.Array
    inventory_unit: jax.Array
    """Shares that the observation shows as 1."""


@struct.dataclass
class MarketMakingState:
    step: jax.Array
    """Steps taken, 0 to N."""
    move: jax.Array
    """Mid price minus the initial one."""
    inventory: jax.Array
    cash: jax.Array


class MarketMaking(MarketEnvironment):
    """See the module's docstring. Fields choose the program; numbers are the parameters."""

    def __init__(self, fill_probability: str = "linear", reward: str = "wealth"):
        super().__init__()
        self.fill_probability = fill_probability
        self.reward = reward

    @property
    def name(self) -> str:
        return "market_making"

    @property
    def default_params(self) -> MarketMakingParams:
        """The example of the paper."""
        return make(Config())[1]

    @property
    def num_actions(self) -> int:
        return 2

    def action_space(self, params: MarketMakingParams | None = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def row(self, state: MarketMakingState) -> jax.Array:
        return state.step

    def account_size(self, params: MarketMakingParams | None = None) -> int:
        return 2

    def account(self, state: MarketMakingState, params: MarketMakingParams) -> jax.Array:
        n_steps = params.table.shape[0] - 1
        deviation = params.volatility * jnp.sqrt(n_steps * params.step_time)
        return jnp.stack([state.inventory / params.inventory_unit, state.move / deviation])

    def reset_state(self, key: jax.Array, params: MarketMakingParams) -> MarketMakingState:
        zero = jnp.float32(0)
        return MarketMakingState(step=jnp.int32(0), move=zero, inventory=zero, cash=zero)

    def is_truncated(self, state: MarketMakingState, params: MarketMakingParams) -> jax.Array:
        return jnp.bool_(False)

    def distances(self, action: jax.Array, params: MarketMakingParams) -> jax.Array:
        """Distances (bid, ask) [..., 2] from the mid price that `action` [..., 2] asks for."""
        unit = (jnp.clip(action, -1.0, 1.0) + 1.0) / 2.0
        return params.min_distance + unit * (params.max_distance - params.min_distance)

    def actions(self, distances: jax.Array, params: MarketMakingParams) -> jax.Array:
        """The nearest actions that ask for `distances`; the inverse of `distances`."""
        unit = (distances - params.min_distance) / (params.max_distance - params.min_distance)
        return jnp.clip(2.0 * unit - 1.0, -1.0, 1.0)

    def fill_chance(self, distance: jax.Array, params: MarketMakingParams) -> jax.Array:
        """Probability that a quote is filled within a step."""
        expected = params.intensity * jnp.exp(-params.decay * distance) * params.step_time
        if self.fill_probability == "exact":
            return -jnp.expm1(-expected)
        return jnp.minimum(expected, 1.0)

    def step_state(self, key, state: MarketMakingState, action, params: MarketMakingParams):
        fill_key, price_key = jax.random.split(key)
        distance = self.distances(action, params)
        side = jnp.array([1.0, -1.0])  # a filled bid adds a share
        quoted = jnp.abs(state.inventory + side) <= params.inventory_limit
        chance = jnp.where(quoted, self.fill_chance(distance, params), 0.0)
        filled = (jax.random.uniform(fill_key, (2,)) < chance).astype(jnp.float32)
        price = params.initial_price + state.move
        inventory = state.inventory + jnp.sum(filled * side)
        cash = state.cash + jnp.sum(filled * (distance - side * price))

        variance = params.volatility**2 * params.step_time
        change = jnp.sqrt(variance) * jax.random.normal(price_key)
        penalty = 0.5 * params.risk_aversion * variance * inventory**2
        if self.reward == "expected":
            reward = jnp.sum(chance * distance) - penalty
        else:
            reward = jnp.sum(filled * distance) + inventory * change - penalty
        new_state = MarketMakingState(
            step=state.step + 1, move=state.move + change, inventory=inventory, cash=cash
        )
        new_price = params.initial_price + new_state.move
        info = {
            "distance": distance,
            "quoted": quoted,
            "filled": filled,
            "inventory": inventory,
            "cash": cash,
            "price": new_price,
            "wealth": cash + inventory * new_price,
            "penalty": penalty,
            "row": new_state.step,
        }
        terminated = new_state.step >= params.table.shape[0] - 1
        return new_state, reward, terminated, info


def make(config: Config, market: Any = None, train: "Span | None" = None):
    """The environment and its parameters.

    Args:
        market, train: as other environments have them; there is no data to take here.

    Returns: (MarketMaking, MarketMakingParams).

    Raises:
        ConfigError: a market was given.
    """
    if market is not None or train is not None:
        raise ConfigError("market_making simulates its own prices and takes no data; leave it out")
    env = MarketMaking(fill_probability=config.fill_probability, reward=config.reward)
    left = 1.0 - np.arange(config.steps + 1) / config.steps
    # Fills of both sides at distance 1 / k are a Poisson number with this mean.
    fills = 2.0 * config.intensity * config.horizon / np.e
    number = jnp.float32
    params = MarketMakingParams(
        table=jnp.asarray(left[:, None], jnp.float32),
        initial_price=number(config.initial_price),
        step_time=number(config.horizon / config.steps),
        volatility=number(config.volatility),
        intensity=number(config.intensity),
        decay=number(config.decay),
        risk_aversion=number(config.risk_aversion),
        min_distance=number(config.min_distance),
        max_distance=number(config.max_distance),
        inventory_limit=number(config.inventory_limit),
        inventory_unit=number(min(config.inventory_limit, max(fills, 1.0) ** 0.5)),
    )
    return env, params
