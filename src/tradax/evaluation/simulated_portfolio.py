"""What a portfolio of simulated assets grows by, over many paths."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax.envs.simulated_portfolio import SimulatedParams, SimulatedPortfolio
from tradax.errors import TradaxError
from tradax.protocols import Actor, Policy
from tradax.rollout import JaxSource, jax_source

_CHUNK = 1_024  # paths that are followed side by side


@dataclass(frozen=True)
class SimulatedPortfolioResult:
    """Figures over paths of one episode each."""

    paths: int
    growth: float
    """Mean log growth of net worth, a year."""
    growth_error: float
    """Standard error of `growth`."""
    volatility: float
    """Standard deviation of log growth, a year."""
    invested: float
    """Mean over time of the sum of target weights, cash not among them."""
    turnover: float
    """Traded value over net worth, a year."""
    ruined: float
    """Share of paths that ended in ruin."""
    weights: np.ndarray
    """[n]: mean target weights."""


def assess(
    policy: Policy,
    env: SimulatedPortfolio,
    params: SimulatedParams,
    *,
    paths: int = 4_096,
    seed: int = 0,
) -> SimulatedPortfolioResult:
    """Let the policy, acting deterministically, invest on `paths` paths.

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
    chunk, n_steps = min(paths, _CHUNK), int(params.episode_length)
    keys = jax.random.split(jax.random.key(seed), (-(-paths // chunk), chunk))
    walked = _invest(source, policy.actor(sample=False), keys, n_steps)
    growth, turnover, weights, ruined = (np.asarray(x, np.float64)[:paths] for x in walked)
    years = n_steps * float(params.dt)
    deviation = float(growth.std(ddof=1))
    return SimulatedPortfolioResult(
        paths=paths,
        growth=float(growth.mean()) / years,
        growth_error=deviation / years / paths**0.5,
        volatility=deviation / years**0.5,
        invested=float(weights.sum(axis=1).mean()),
        turnover=float(turnover.mean()) / years,
        ruined=float(ruined.mean()),
        weights=weights.mean(axis=0),
    )


@eqx.filter_jit
def _invest(source: JaxSource, actor: Actor, keys: jax.Array, n_steps: int):
    """Args: keys [C, B]. Returns, each [C B, ...]: log growth, turnover, mean target, ruin."""
    start = source.params.initial_cash

    def one(key):
        _, info = source.walk(actor, key, n_steps)
        counted = ~info["over"]
        steps = jnp.maximum(counted.sum(), 1)
        last = info["net_worth"][steps - 1]
        before = jnp.concatenate([start[None], info["net_worth"][:-1]])
        turnover = jnp.sum(jnp.where(counted, info["turnover"] / before, 0.0))
        target = jnp.sum(jnp.where(counted[:, None], info["target"], 0.0), axis=0) / steps
        ruined = last <= source.params.ruin_level * start
        return jnp.log(jnp.maximum(last / start, 1e-3)), turnover, target, ruined

    outcome = jax.lax.map(jax.vmap(one), keys)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outcome)
