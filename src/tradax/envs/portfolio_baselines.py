"""What a learned portfolio must beat: rules that know prices up to the bar and nothing more."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax.envs._allocation import Allocation, AllocationParams
from tradax.envs._baselines import Rule, spec_of
from tradax.envs._rolling import blocks, moments_before
from tradax.errors import ConfigError

if TYPE_CHECKING:  # portfolio.py imports this file
    from tradax.envs.portfolio import PortfolioParams

_ITERATIONS = 1_000


class Constant(Rule):
    """The same target weights on every bar, traded back to whenever prices have moved."""

    action: jax.Array
    """[A]"""

    def choose(self, row, account):
        return jnp.broadcast_to(self.action, (*row.shape, *self.action.shape))


class BuyAndHold(Rule):
    """Equal weights from all cash, then whatever prices make of them."""

    params: AllocationParams
    env: Allocation = eqx.field(static=True)

    def choose(self, row, account):
        weights = account[..., : self.env.n_assets]
        equal = jnp.full_like(weights, 1.0 / self.env.n_assets)
        in_cash = jnp.abs(weights).sum(-1, keepdims=True) < 1e-3
        return self.env.actions(jnp.where(in_cash, equal, weights), self.params)


class Lookup(Rule):
    """Target weights that were computed for every row.

    Where an observation is flat its row is found by its features; of rows with equal features
    the first is taken.
    """

    actions: jax.Array
    """[T, A]"""
    table: jax.Array
    """[T, F]"""

    def choose(self, row, account):
        return self.actions[row]

    def row_of(self, obs):
        same = jnp.all(obs[..., None, : self.spec.market] == self.table, axis=-1)
        return jnp.argmax(same, axis=-1).astype(jnp.int32)


def baselines(env: Allocation, params: PortfolioParams, window: int = 60) -> dict[str, Rule]:
    """Equal weight, buy-and-hold, minimum variance and mean-variance, by name."""
    return {
        "equal_weight": equal_weight(env, params),
        "buy_and_hold": buy_and_hold(env, params),
        "minimum_variance": minimum_variance(env, params, window),
        "mean_variance": mean_variance(env, params, window),
    }


def equal_weight(env: Allocation, params: AllocationParams) -> Constant:
    """1/n of every asset on every bar (DeMiguel, Garlappi and Uppal 2009)."""
    return constant(env, params, np.full(env.n_assets, 1.0 / env.n_assets))


def buy_and_hold(env: Allocation, params: AllocationParams) -> BuyAndHold:
    """1/n of every asset once. With `long_short` and drift, gross exposure stays below `gross`."""
    return BuyAndHold(spec=spec_of(env, params), params=params, env=env)


def merton(env: Allocation, params: AllocationParams, *, mu, r, sigma) -> Constant:
    """Merton's (1969) constant weights for logarithmic utility, Sigma^-1 (mu - r).

    Args:
        mu: drift, a number or [n].
        r: interest.
        sigma: volatility, a number or [n] for independent assets, or the covariance [n, n].

    All in one unit of time. Weights that actions cannot ask for become the nearest that they can.
    """
    n = env.n_assets
    sigma = np.asarray(sigma, float)
    covariance = sigma if sigma.ndim == 2 else np.diag(np.broadcast_to(sigma, n) ** 2)
    excess = np.broadcast_to(np.asarray(mu, float) - r, n)
    weights = np.linalg.solve(covariance, excess)
    if not env.long_short:
        weights = project_to_simplex(np.append(weights, 1.0 - weights.sum())[None])[0, :-1]
    return constant(env, params, weights)


def constant(env: Allocation, params: AllocationParams, weights: np.ndarray) -> Constant:
    """The same target weights [n] on every bar."""
    action = _actions(env, jnp.asarray(weights, jnp.float32), params)
    return Constant(spec=spec_of(env, params), action=action)


def minimum_variance(env: Allocation, params: PortfolioParams, window: int = 60) -> Lookup:
    """min w' S w over w >= 0, sum w = 1; S the covariance of the last `window` bars' returns.

    Equal weights until there are so many, and in rows that an episode cannot visit.
    """
    covariance, _ = _moments(params, window)
    weights = _quadratic(covariance, np.zeros(covariance.shape[:2]))
    return _lookup(env, params, weights, window)


def mean_variance(
    env: Allocation, params: PortfolioParams, window: int = 60, risk_aversion: float = 1.0
) -> Lookup:
    """max w' (m - r) - risk_aversion / 2 w' S w over w >= 0, sum w <= 1; the rest is cash.

    m, S: mean and covariance of the last `window` bars' returns (Markowitz 1952). With
    risk_aversion 1 this is, in small steps, the largest log growth. Equal weights where
    `minimum_variance` has them.
    """
    covariance, mean = _moments(params, window)
    n = mean.shape[1]
    # Cash is an asset more, without variance and without excess return.
    quadratic = np.zeros((len(mean), n + 1, n + 1))
    quadratic[:, :n, :n] = risk_aversion * covariance
    linear = np.zeros((len(mean), n + 1))
    linear[:, :n] = mean - float(params.cash_rate)
    return _lookup(env, params, _quadratic(quadratic, linear)[:, :n], window)


def project_to_simplex(points: np.ndarray) -> np.ndarray:
    """The nearest w >= 0, sum w = 1 of every row of [N, n] (Duchi et al. 2008, figure 1)."""
    ordered = -np.sort(-points, axis=1)
    excess = np.cumsum(ordered, axis=1) - 1.0
    count = np.arange(1, points.shape[1] + 1)
    kept = (ordered - excess / count > 0).sum(axis=1)
    shift = np.take_along_axis(excess, kept[:, None] - 1, axis=1) / kept[:, None]
    return np.maximum(points - shift, 0.0)


def _quadratic(quadratic: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """max linear' w - w' Q w / 2 on the simplex, for [N, n, n] and [N, n] at once.

    Accelerated projected gradient ascent (Beck and Teboulle 2009), started anew where a step
    turned back (O'Donoghue and Candes 2015).
    """
    largest = np.linalg.eigvalsh(quadratic)[:, -1:]
    step = 1.0 / np.maximum(largest, 1e-12)
    weights = np.full(linear.shape, 1.0 / linear.shape[1])
    ahead, pace = weights, np.ones_like(step)
    for _ in range(_ITERATIONS):
        gradient = linear - np.matmul(quadratic, ahead[..., None])[..., 0]
        moved = project_to_simplex(ahead + step * gradient)
        turned = np.sum((ahead - moved) * (moved - weights), axis=1, keepdims=True) > 0
        faster = np.where(turned, 1.0, (1.0 + np.sqrt(1.0 + 4.0 * pace**2)) / 2.0)
        push = np.where(turned, 0.0, (pace - 1.0) / faster)
        ahead = moved + push * (moved - weights)
        still = np.abs(moved - weights).max() < 1e-9 and np.abs(ahead - moved).max() < 1e-9
        weights, pace = moved, faster
        if still:
            break
    return weights


def _moments(params: PortfolioParams, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Covariance [N, n, n] and mean [N, n] of the returns of bars t - window + 1 to t, for t from
    `_first`, the first row that may be visited and has so many before it, to `params.last_row`."""
    if window < 2:
        raise ConfigError(f"the window is {window} bars; a covariance needs at least 2")
    moves = np.asarray(params.moves, float)
    returns = (1.0 + moves[:, 0]) * (1.0 + moves[:, 1]) - 1.0  # row t: of bar t + 1
    rows, n = returns.shape
    if rows <= window:
        raise ConfigError(f"a window of {window} bars needs more than {rows} of them; take less")
    begin, end = _first(params, window), int(params.last_row) + 1
    covariance = np.empty((max(end - begin, 0), n, n))
    mean = np.empty((max(end - begin, 0), n))
    for bars in blocks(begin, end):
        mean[bars - begin], covariance[bars - begin] = moments_before(returns, bars, window)
    return covariance, mean


def _first(params: PortfolioParams, window: int) -> int:
    return max(int(params.first_row), window)


def _lookup(env: Allocation, params: PortfolioParams, weights: np.ndarray, window: int) -> Lookup:
    every_row = np.full((len(params.table), env.n_assets), 1.0 / env.n_assets, np.float32)
    first = _first(params, window)
    every_row[first : first + len(weights)] = weights
    return Lookup(
        spec=spec_of(env, params),
        actions=_actions(env, jnp.asarray(every_row), params),
        table=params.table,
    )


@functools.partial(jax.jit, static_argnums=0)
def _actions(env: Allocation, weights: jax.Array, params: AllocationParams) -> jax.Array:
    return env.actions(weights, params)
