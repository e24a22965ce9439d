"""What a seller costs, over many simulated sales."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from tradax.envs.execution import Execution, ExecutionParams
from tradax.evaluation.paths import follow
from tradax.protocols import Policy


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
    sale = follow(policy, env, params, _figures, n_steps=n_steps, paths=paths, seed=seed)
    cost, objective = sale.cost, -sale.reward * float(params.reward_unit)
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
        trajectory=np.concatenate([before, sale.remaining.mean(0)]),
        shortfalls=cost,
    )


class _Figures(NamedTuple):
    """Of a sale; then each [paths, ...]."""

    cost: Any
    """Shortfall, in dollars."""
    reward: Any
    """Sum."""
    remaining: Any
    """Shares left after every step, [N], or [N, A]."""


def _figures(info: dict, params: Any) -> _Figures:
    return _Figures(jnp.sum(info["cost_dollars"]), jnp.sum(info["reward"]), info["remaining"])
