"""What a learned seller must beat: sales that are linear in the holdings.

So they sell all, also from holdings that another seller left.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax.almgren_chriss import PortfolioAlmgrenChriss
from tradax.envs._baselines import Rule, spec_of, step_of
from tradax.envs.portfolio_execution import PortfolioExecution, PortfolioExecutionParams, matvec
from tradax.errors import ConfigError


class Feedback(Rule):
    """Sells K_k x of the holdings x, which the account holds."""

    gains: jax.Array
    """K [N, A, A]"""
    params: PortfolioExecutionParams
    env: PortfolioExecution = eqx.field(static=True)

    def choose(self, row, account):
        shares = account[..., : self.gains.shape[-1]] * self.params.unit
        step = jnp.clip(row, 0, self.gains.shape[0] - 1)
        return self.env.actions(matvec(self.gains[step], shares), shares, step, self.params)

    def row_of(self, obs):
        return step_of(obs[..., 0], self.gains.shape[0])


def sell_at_once(env: PortfolioExecution, params: PortfolioExecutionParams) -> Feedback:
    """All in the first step."""
    return feedback(env, params, _of_each(params, np.ones(_steps(params))))


def twap(env: PortfolioExecution, params: PortfolioExecutionParams) -> Feedback:
    """The same number of shares in every step."""
    return feedback(env, params, _of_each(params, 1.0 / np.arange(_steps(params), 0, -1)))


def one_by_one(env: PortfolioExecution, params: PortfolioExecutionParams) -> Feedback:
    """Each asset as would be best if it were the only one."""
    factor, n_steps = np.asarray(params.move_factor, float), _steps(params)
    alone = PortfolioAlmgrenChriss(
        shares=np.ones(len(factor)),
        covariance=np.diag((factor**2).sum(-1)),
        temporary_impact=np.diag(np.diag(params.temporary_impact)),
        permanent_impact=np.diag(np.diag(params.permanent_impact)),
        horizon=float(params.step_days) * n_steps,
        steps=n_steps,
        risk_aversion=float(params.risk_aversion),
    )
    return feedback(env, params, alone.gains())


def almgren_chriss(env: PortfolioExecution, params: PortfolioExecutionParams) -> Feedback:
    """The optimum at any holdings, but for the spread where an asset is both sold and bought."""
    return feedback(env, params, np.asarray(params.optimal_gain, float))


def baselines(env: PortfolioExecution, params: PortfolioExecutionParams) -> dict[str, Feedback]:
    """All of the above that the environment's actions can express, by name."""
    found = {}
    for make in (sell_at_once, twap, one_by_one, almgren_chriss):
        try:
            found[make.__name__] = make(env, params)
        except ConfigError:
            continue
    return found


def feedback(
    env: PortfolioExecution, params: PortfolioExecutionParams, gains: np.ndarray
) -> Feedback:
    """Sell `gains[k]` [A, A] times the holdings in step k + 1.

    Raises:
        ConfigError: the environment's actions cannot express it from the first holdings on.
    """
    left = [np.asarray(params.shares, float)]
    for gain in gains[:-1]:
        left.append(left[-1] - gain @ left[-1])
    shares, step = jnp.asarray(np.array(left), jnp.float32)[:-1], jnp.arange(len(gains) - 1)
    sales = matvec(jnp.asarray(gains, jnp.float32)[:-1], shares)
    able = env.sales(env.actions(sales, shares, step, params), shares, step, params)
    missed = np.abs(np.asarray(able - sales) / np.asarray(params.unit))
    if (missed > 1e-4).any():
        k, asset = np.unravel_index(missed.argmax(), missed.shape)
        raise ConfigError(
            f'portfolio_execution.action "{env.action}" cannot express this plan: in step {k + 1} '
            f"it sells {float(sales[k, asset]):,.0f} shares of asset {asset + 1} and holds "
            f'{float(shares[k, asset]):,.0f}; use "target"'
        )
    return Feedback(
        spec=spec_of(env, params), gains=jnp.asarray(gains, jnp.float32), params=params, env=env
    )


def _of_each(params: PortfolioExecutionParams, fractions: np.ndarray) -> np.ndarray:
    """Gains [N, A, A] that sell `fractions` [N] of every asset."""
    return fractions[:, None, None] * np.eye(params.shares.shape[-1])


def _steps(params: PortfolioExecutionParams) -> int:
    return params.optimal_gain.shape[0]
