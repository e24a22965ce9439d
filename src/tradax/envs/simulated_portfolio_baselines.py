"""What a learned portfolio of simulated assets must beat: constant weights, Merton's among them."""

import numpy as np

from tradax.data.synthetic import GeometricBrownianMotion
from tradax.envs import portfolio_baselines
from tradax.envs._baselines import Rule
from tradax.envs.simulated_portfolio import SimulatedParams, SimulatedPortfolio


def baselines(env: SimulatedPortfolio, params: SimulatedParams) -> dict[str, Rule]:
    """Cash, equal weights, buy-and-hold, and where the process is known Merton's weights."""
    known: dict[str, Rule] = {
        "cash": portfolio_baselines.constant(env, params, np.zeros(env.n_assets)),
        "equal_weight": portfolio_baselines.equal_weight(env, params),
        "buy_and_hold": portfolio_baselines.buy_and_hold(env, params),
    }
    if isinstance(params.process, GeometricBrownianMotion):
        known["merton"] = merton(env, params)
    return known


def merton(env: SimulatedPortfolio, params: SimulatedParams) -> portfolio_baselines.Constant:
    """Sigma^-1 (mu - r), or the nearest weights that actions can ask for."""
    process, factor = params.process, np.asarray(params.factor, float)
    assert isinstance(process, GeometricBrownianMotion)
    return portfolio_baselines.merton(
        env,
        params,
        mu=float(process.drift),
        r=float(params.cash_rate / params.dt),
        sigma=float(process.volatility) ** 2 * factor @ factor.T,
    )
