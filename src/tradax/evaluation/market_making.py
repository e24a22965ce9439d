"""What a market maker earns and risks, over many simulated paths."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax.envs.market_making import MarketMaking, MarketMakingParams
from tradax.errors import TradaxError
from tradax.protocols import Actor, Policy
from tradax.rollout import JaxSource, jax_source

_CHUNK = 4_096  # paths that are followed side by side


@dataclass(frozen=True)
class MarketMakingResult:
    """Figures over paths; profits in dollars, the final inventory marked to the mid price."""

    paths: int
    profit: float
    """Mean profit."""
    standard_error: float
    """Of `profit`."""
    sd: float
    """Standard deviation of the profit over paths."""
    inventory_sd: float
    """Standard deviation of the final inventory, in shares."""
    spread: float
    """Mean distance between bid and ask, where both are quoted."""
    utility: float
    """profit - gamma / 2 sd^2; more is better."""
    objective: float
    """Mean of the summed rewards."""
    objective_error: float
    """Standard error of `objective`."""
    profits: np.ndarray
    """[paths]"""
    inventories: np.ndarray
    """[paths], at the end."""


def assess(
    policy: Policy,
    env: MarketMaking,
    params: MarketMakingParams,
    *,
    paths: int = 4_000,
    seed: int = 0,
) -> MarketMakingResult:
    """Let the policy, acting deterministically, quote on `paths` paths.

    Raises:
        TradaxError: the policy was made for other observations or actions, or too few paths.
    """
    if paths < 2:
        raise TradaxError(f"paths is {paths}; it must be at least 2")
    source = jax_source(env, params)
    if source.spec != policy.spec:
        raise TradaxError(
            f"the policy was made for {policy.spec}, the environment has {source.spec}"
        )
    chunk = min(paths, _CHUNK)
    keys = jax.random.split(jax.random.key(seed), (-(-paths // chunk), chunk))
    walked = _quote(source, policy.actor(sample=False), keys)
    profit, inventory, spread, quotes, reward = (np.asarray(x, np.float64)[:paths] for x in walked)
    sd = float(profit.std(ddof=1))
    return MarketMakingResult(
        paths=paths,
        profit=float(profit.mean()),
        standard_error=sd / paths**0.5,
        sd=sd,
        inventory_sd=float(inventory.std(ddof=1)),
        spread=float(spread.sum() / max(quotes.sum(), 1.0)),
        utility=float(profit.mean()) - float(params.risk_aversion) / 2.0 * sd**2,
        objective=float(reward.mean()),
        objective_error=float(reward.std(ddof=1)) / paths**0.5,
        profits=profit,
        inventories=inventory,
    )


@eqx.filter_jit
def _quote(source: JaxSource, actor: Actor, keys: jax.Array):
    """Args: keys [C, B]. Returns, each [C B]: profit, final inventory, sum of the spreads of the
    steps with both quotes, number of those steps, sum of rewards."""
    n_steps = source.params.table.shape[0] - 1

    def one(key):
        _, info = source.walk(actor, key, n_steps)
        both = jnp.all(info["quoted"], axis=-1)
        spread = jnp.sum(info["distance"], axis=-1)
        return (
            info["wealth"][-1],
            info["inventory"][-1],
            jnp.sum(jnp.where(both, spread, 0.0)),
            jnp.sum(both),
            jnp.sum(info["reward"]),
        )

    outcome = jax.lax.map(jax.vmap(one), keys)
    return jax.tree.map(lambda x: x.reshape(-1), outcome)
