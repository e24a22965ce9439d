"""What a seller of several assets costs, over many simulated sales."""

import numpy as np

from tradax.envs.portfolio_execution import PortfolioExecution, PortfolioExecutionParams
from tradax.evaluation.execution import ExecutionResult, simulate
from tradax.protocols import Policy


def assess(
    policy: Policy,
    env: PortfolioExecution,
    params: PortfolioExecutionParams,
    *,
    paths: int = 100_000,
    seed: int = 0,
) -> ExecutionResult:
    """Let the policy, acting deterministically, sell `paths` times.

    `bps` is relative to the value of all positions, those to be bought included.

    Raises:
        TradaxError: the policy was made for other observations or actions, or too few paths.
    """
    value = float(np.abs(np.asarray(params.shares)) @ np.asarray(params.initial_price))
    n_steps = params.optimal_gain.shape[0]
    return simulate(policy, env, params, n_steps=n_steps, value=value, paths=paths, seed=seed)
