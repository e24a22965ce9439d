"""What a seller costs, over many simulated sales."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax.envs.execution import Execution, ExecutionParams
from tradax.errors import TradaxError
from tradax.protocols import Actor, Policy
from tradax.rollout import JaxSource, jax_source

_CHUNK = 4_096  # sales that are followed side by side


@dataclass(frozen=True)
class ExecutionResult:
    """Costs of a seller in dollars; E and V as in `tradax.almgren_chriss`."""

    paths: int
    shortfall: float
    """Mean implementation shortfall, E: initial value minus proceeds."""
    standard_error: float
    """Of `shortfall`."""
    sd: float
    """Standard deviation of the shortfall over sales."""
    utility: float
    """shortfall + lambda sd^2; less is better."""
    objective: float
    """Mean of minus the summed rewards, in dollars. Its expectation is E + lambda V for sellers
    that ignore the price; with the expected reward it is nearly free of noise."""
    objective_error: float
    """Standard error of `objective`."""
    bps: float
    """`shortfall` in basis points of the initial value."""
    trajectory: np.ndarray
    """[N + 1], or [N + 1, A] with several assets: mean shares left before and after every step."""
    shortfalls: np.ndarray
    """[paths]"""


def assess(
    policy: Policy,
    env: Execution,
    params: ExecutionParams,
    *,
    paths: int = 100_000,
    seed: int = 0,
) -> ExecutionResult:
    """Let the policy, acting deterministically, sell `paths` times.

    Raises:
        TradaxError: the policy was made for other observations or actions, or too few paths.
    """
    value = float(params.shares) * float(params.initial_price)
    n_steps = params.relative_volume.shape[0]
    return simulate(policy, env, params, n_steps=n_steps, value=value, paths=paths, seed=seed)


def simulate(
    policy: Policy, env: Any, params: Any, *, n_steps: int, value: float, paths: int, seed: int
) -> ExecutionResult:
    """`assess` for any market that sells `params.shares` in `n_steps` steps.

    Args:
        value: dollars that `bps` is relative to.
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
    walked = _sell(source, policy.actor(sample=False), keys, n_steps)
    cost, reward, left = (np.asarray(x, np.float64)[:paths] for x in walked)
    objective = -reward * float(params.reward_unit)
    sd = float(cost.std(ddof=1))
    before = np.asarray(params.shares, np.float64)[None]
    return ExecutionResult(
        paths=paths,
        shortfall=float(cost.mean()),
        standard_error=sd / paths**0.5,
        sd=sd,
        utility=float(cost.mean()) + float(params.risk_aversion) * sd**2,
        objective=float(objective.mean()),
        objective_error=float(objective.std(ddof=1)) / paths**0.5,
        bps=1e4 * float(cost.mean()) / value,
        trajectory=np.concatenate([before, left.mean(0)]),
        shortfalls=cost,
    )


@eqx.filter_jit
def _sell(source: JaxSource, actor: Actor, keys: jax.Array, n_steps: int):
    """Args: keys [C, B]. Returns: shortfall [C B], summed rewards [C B], shares left [C B, N], or
    [C B, N, A]."""

    def one(key):
        _, info = source.walk(actor, key, n_steps)
        return jnp.sum(info["cost_dollars"]), jnp.sum(info["reward"]), info["remaining"]

    outcome = jax.lax.map(jax.vmap(one), keys)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outcome)
