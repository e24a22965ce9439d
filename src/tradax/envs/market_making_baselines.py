"""What a learned market maker must beat: quotes that follow from inventory and time left."""

import jax
import jax.numpy as jnp
import numpy as np

from tradax.envs._baselines import Rule, spec_of, step_of
from tradax.envs.market_making import MarketMaking, MarketMakingParams


class Quotes(Rule):
    """Looks its action up by the step and the inventory, which the observation holds."""

    table: jax.Array
    """[N + 1, 2 L + 1, 2]: actions at inventories -L to L."""
    inventory_unit: jax.Array

    def choose(self, row, account):
        limit = self.table.shape[1] // 2
        inventory = jnp.round(account[..., 0] * self.inventory_unit).astype(jnp.int32)
        step = jnp.clip(row, 0, self.table.shape[0] - 1)
        return self.table[step, jnp.clip(inventory, -limit, limit) + limit]

    def row_of(self, obs):
        return step_of(obs[..., 0], self.table.shape[0] - 1)


def avellaneda_stoikov(env: MarketMaking, params: MarketMakingParams) -> Quotes:
    """The paper's closed form: around the reservation price r, and as wide as

    r = s - q gamma sigma^2 (T - t)
    delta_a + delta_b = gamma sigma^2 (T - t) + (2 / gamma) ln(1 + gamma / k)
    """
    half, risk = _closed_form(params)
    shift = -_inventories(params) * risk[:, None]
    return quotes(env, params, np.stack([half[:, None] - shift, half[:, None] + shift], axis=-1))


def symmetric(env: MarketMaking, params: MarketMakingParams) -> Quotes:
    """Around the mid price whatever the inventory, as wide as the closed form on average."""
    half, _ = _closed_form(params)
    shape = (len(half), len(_inventories(params)), 2)
    return quotes(env, params, np.full(shape, half[:-1].mean()))


def optimal(env: MarketMaking, params: MarketMakingParams) -> Quotes:
    """The largest expected sum of rewards, by dynamic programming over step and inventory.

    With V the value after a step, minus its penalty, and p(delta) the chance of a fill, the bid
    maximises p(delta) (delta + g), with g the expected gain of V from one share more: delta = 1 / k
    - g for linear chances, (e^x - 1) / (k x) - g with x = A exp(-k delta) dt for exact ones.
    """
    return quotes(env, params, _solve(env, params)[0])


def optimal_objective(env: MarketMaking, params: MarketMakingParams) -> float:
    """The expected sum of rewards of the optimal quotes."""
    return _solve(env, params)[1]


def baselines(env: MarketMaking, params: MarketMakingParams) -> dict[str, Quotes]:
    """The closed form, symmetric quotes and the optimum, by name."""
    return {
        "avellaneda_stoikov": avellaneda_stoikov(env, params),
        "symmetric": symmetric(env, params),
        "optimal": optimal(env, params),
    }


def quotes(env: MarketMaking, params: MarketMakingParams, distances: np.ndarray) -> Quotes:
    """A policy from distances (bid, ask) [N + 1, 2 L + 1, 2], clipped to what actions can ask."""
    actions = env.actions(jnp.asarray(distances, jnp.float32), params)
    return Quotes(table=actions, inventory_unit=params.inventory_unit, spec=spec_of(env, params))


def _inventories(params: MarketMakingParams) -> np.ndarray:
    limit = int(params.inventory_limit)
    return np.arange(-limit, limit + 1, dtype=float)


def _closed_form(params: MarketMakingParams) -> tuple[np.ndarray, np.ndarray]:
    """Each [N + 1]: half the spread, and gamma sigma^2 (T - t)."""
    gamma = float(params.risk_aversion)
    n_steps = params.table.shape[0] - 1
    left = np.arange(n_steps, -1, -1) * float(params.step_time)
    risk = gamma * float(params.volatility) ** 2 * left
    return risk / 2.0 + np.log1p(gamma / float(params.decay)) / gamma, risk


def _solve(env: MarketMaking, params: MarketMakingParams) -> tuple[np.ndarray, float]:
    """Optimal distances [N + 1, 2 L + 1, 2], and the value at the start."""
    inventory = _inventories(params)
    limit, n_steps = len(inventory) // 2, params.table.shape[0] - 1
    step_time, decay = float(params.step_time), float(params.decay)
    most = float(params.intensity) * step_time
    lowest, highest = float(params.min_distance), float(params.max_distance)
    if env.fill_probability == "linear":
        lowest = max(lowest, np.log(most) / decay)  # nearer quotes are not filled more often
    lowest = min(lowest, highest)
    variance = float(params.volatility) ** 2 * step_time
    penalty = 0.5 * float(params.risk_aversion) * variance * inventory**2
    quoted = np.stack([inventory < limit, inventory > -limit])

    def fill_chance(distance):
        expected = most * np.exp(-decay * distance)
        return quoted * (expected if env.fill_probability == "linear" else -np.expm1(-expected))

    distance = np.full((2, 2 * limit + 1), np.clip(1.0 / decay, lowest, highest))
    found = np.empty((n_steps + 1, 2 * limit + 1, 2))
    value = np.zeros(2 * limit + 1)
    for step in range(n_steps, -1, -1):
        after = np.pad(value - penalty, 1, mode="edge")
        below, same, above = after[:-2], after[1:-1], after[2:]
        for _ in range(30):  # each side's best quote depends on the other's chance
            bid_chance, ask_chance = fill_chance(distance)
            gain = np.stack(
                [
                    (1 - ask_chance) * (above - same) + ask_chance * (same - below),
                    (1 - bid_chance) * (below - same) + bid_chance * (same - above),
                ]
            )
            margin = 1.0 / decay
            if env.fill_probability == "exact":
                x = most * np.exp(-decay * distance)
                margin = np.expm1(x) / (decay * x)
            distance = np.clip(0.5 * distance + 0.5 * (margin - gain), lowest, highest)
        found[step] = distance.T
        if step < n_steps:
            bid_chance, ask_chance = fill_chance(distance)
            value = (
                (fill_chance(distance) * distance).sum(0)
                + bid_chance * (1 - ask_chance) * above
                + ask_chance * (1 - bid_chance) * below
                + (1 - bid_chance - ask_chance + 2 * bid_chance * ask_chance) * same
            )
    return found, float(value[limit])
