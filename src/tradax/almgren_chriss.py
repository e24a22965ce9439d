"""Optimal execution in closed form (Almgren and Chriss 2000, "Optimal execution of portfolio
transactions", discrete time).

Sell X shares in N steps of tau = T / N days: n_k in step k, x_k = x_{k-1} - n_k left, x_0 = X,
x_N = 0.

    S_k  = S_{k-1} + sigma sqrt(tau) xi_k - gamma n_k       price, with permanent impact
    S~_k = S_{k-1} - eps - (eta / tau) n_k                  fill price, with temporary impact

The shortfall X S_0 - sum n_k S~_k has

    E = gamma X^2 / 2 + eps sum |n_k| + (eta~ / tau) sum n_k^2,   eta~ = eta - gamma tau / 2
    V = sigma^2 tau sum_{k=1..N} x_k^2

and E + lambda V is least for

    x_j = X sinh(kappa (T - t_j)) / sinh(kappa T)
    (2 / tau^2) (cosh(kappa tau) - 1) = kappa~^2 = lambda sigma^2 / eta~

`PortfolioAlmgrenChriss` is the same for several assets, with matrices in place of numbers.

This module needs NumPy only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tradax.errors import ConfigError


class Frontier(NamedTuple):
    """Optimal plans, one for each of L risk aversions."""

    risk_aversion: np.ndarray
    """[L]"""
    expected_shortfall: np.ndarray
    """[L], dollars."""
    standard_deviation: np.ndarray
    """[L], dollars."""
    trajectories: np.ndarray
    """[L, N + 1], shares left."""


@dataclass(frozen=True)
class AlmgrenChriss:
    """A sale, and the plan that minimises expected shortfall plus lambda times its variance.

    The defaults are the example of the paper's section 4.

    Raises:
        ConfigError: numbers outside the model.
    """

    shares: float = 1e6
    """X."""
    volatility: float = 0.95
    """sigma, in dollars a share and square root of a day; not a volatility of returns."""
    horizon: float = 5.0
    """T, in days."""
    steps: int = 5
    """N."""
    half_spread: float = 0.0625
    """eps, in dollars a share: half the bid-ask spread and fees."""
    temporary_impact: float = 2.5e-6
    """eta, in dollars a share for each share a day that is being sold."""
    permanent_impact: float = 2.5e-7
    """gamma, in dollars a share for each share that was sold."""
    risk_aversion: float = 1e-6
    """lambda, a dollar."""

    def __post_init__(self):
        for name in ("shares", "horizon", "temporary_impact"):
            _require(self, name, above=True)
        for name in ("volatility", "half_spread", "permanent_impact", "risk_aversion"):
            _require(self, name, above=False)
        _require_steps(self.steps)
        if self.effective_impact <= 0:
            raise ConfigError(
                f"temporary_impact is {self.temporary_impact}, but it must exceed half of "
                f"permanent_impact times the days of a step, "
                f"{self.permanent_impact * self.step_days / 2:.6g}: else selling in one go is "
                "always cheapest; take more steps, or a larger temporary_impact"
            )

    @property
    def step_days(self) -> float:
        """tau."""
        return self.horizon / self.steps

    @property
    def effective_impact(self) -> float:
        """eta~ = eta - gamma tau / 2."""
        return self.temporary_impact - self.permanent_impact * self.step_days / 2

    @property
    def kappa(self) -> float:
        """Urgency of the optimal plan, a day; 0 where risk does not matter."""
        # cosh(z) - 1 = 2 sinh^2(z / 2), which loses no digits for small z.
        tilde = math.sqrt(self.risk_aversion / self.effective_impact) * self.volatility
        return 2.0 / self.step_days * math.asinh(tilde * self.step_days / 2)

    def trajectory(self) -> np.ndarray:
        """Shares left before and after every step under the optimal plan, [N + 1]."""
        left = np.arange(self.steps, -1, -1)
        return self.shares * self._sinh_ratio(left, np.full_like(left, self.steps))

    def trades(self) -> np.ndarray:
        """Shares that the optimal plan sells in every step, [N]."""
        # Not a difference of `trajectory`, which would cancel: x_{k-1} times the fraction.
        return self.trajectory()[:-1] * self.fractions()

    def fractions(self) -> np.ndarray:
        """The optimal action in any state: the fraction of the shares left to sell, [N].

        n_j / x_{j-1} = 1 - sinh(kappa (T - t_j)) / sinh(kappa (T - t_{j-1})) depends neither on
        how many shares are left nor on the price.
        """
        left = np.arange(self.steps, 0, -1)  # T - t_{j-1}, in steps
        if self.kappa == 0:
            return 1.0 / left
        # sinh b - sinh a = 2 cosh((b + a) / 2) sinh((b - a) / 2), over sinh b; b - a = z.
        z = self.kappa * self.step_days
        b = z * left
        scaled = (1.0 + np.exp(z - 2.0 * b)) / -np.expm1(-2.0 * b)  # x 2 cosh(b - z/2) / sinh b
        return np.minimum(scaled * -np.expm1(-z), 1.0)

    def fraction(self, step: int) -> float:
        """`fractions()[step]`, the optimal action at `step` = 0, ..., N - 1."""
        if not 0 <= step < self.steps:
            raise ConfigError(f"step is {step}; it must be one of 0 to {self.steps - 1}")
        return float(self.fractions()[step])

    def twap(self) -> np.ndarray:
        """Shares sold in every step when all steps sell the same, [N]."""
        return np.full(self.steps, self.shares / self.steps)

    def expected_shortfall(self, trades: npt.ArrayLike | None = None) -> float:
        """E in dollars, of the optimal plan or of `trades` [N]."""
        n = self._plan(trades)
        return float(
            0.5 * self.permanent_impact * self.shares**2
            + self.half_spread * np.abs(n).sum()
            + self.effective_impact / self.step_days * (n**2).sum()
        )

    def variance(self, trades: npt.ArrayLike | None = None) -> float:
        """V in dollars squared, of the optimal plan or of `trades` [N]."""
        if trades is None:
            left = self.trajectory()[1:]
        else:
            left = self.shares - np.cumsum(self._plan(trades))
            left[-1] = 0.0
        return float(self.volatility**2 * self.step_days * (left**2).sum())

    def utility(self, trades: npt.ArrayLike | None = None) -> float:
        """U = E + lambda V in dollars, of the optimal plan or of `trades` [N]; less is better."""
        return self.expected_shortfall(trades) + self.risk_aversion * self.variance(trades)

    def efficient_frontier(self, risk_aversions: Sequence[float] | np.ndarray) -> Frontier:
        """The optimal plans for several lambdas: no plan has both a lower E and a lower V."""
        plans = [replace(self, risk_aversion=float(value)) for value in risk_aversions]
        return Frontier(
            np.array([p.risk_aversion for p in plans]),
            np.array([p.expected_shortfall() for p in plans]),
            np.sqrt([p.variance() for p in plans]),
            np.array([p.trajectory() for p in plans]).reshape(len(plans), self.steps + 1),
        )

    def _sinh_ratio(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """sinh(kappa tau a) / sinh(kappa tau b) for 0 <= a <= b, without overflow; a / b at 0."""
        z = self.kappa * self.step_days
        if z == 0:
            return a / b
        return np.exp(z * (a - b)) * np.expm1(-2.0 * z * a) / np.expm1(-2.0 * z * b)

    def _plan(self, trades: npt.ArrayLike | None) -> np.ndarray:
        if trades is None:
            return self.trades()
        plan = np.asarray(trades, float)
        if plan.shape != (self.steps,):
            raise ConfigError(f"trades have shape {plan.shape}; the sale has {self.steps} steps")
        if not np.isclose(plan.sum(), self.shares, rtol=1e-5, atol=0.0):
            raise ConfigError(f"trades add up to {plan.sum():,.2f}, not to {self.shares:,.2f}")
        return plan


@dataclass(frozen=True, kw_only=True, eq=False)
class PortfolioAlmgrenChriss:
    """Several assets sold together, and the plan that minimises E + lambda V.

    All is as above, with vectors n_k, x_k over A assets. C is the covariance of price moves; an
    order in asset j worsens the price of asset i by H_ij while it is filled and by Gamma_ij for
    good. S and A mark the symmetric and the antisymmetric part of a matrix.

        S_k  = S_{k-1} + sqrt(tau) L xi_k - Gamma n_k             L L' = C
        S~_k = S_{k-1} - eps sgn(n_k) - (H / tau) n_k

        E = X' Gamma_S X / 2 + sum_k (eps' |n_k| + n_k' H~ n_k / tau + x_k' Gamma_A n_k)
        H~ = H_S - tau Gamma_S / 2
        V = tau sum_k x_k' C x_k

    Without the spread the least cost from holdings x on is x' (P + Gamma_S / 2) x and linear
    feedback reaches it. Backwards from P = B, where all is sold:

        n_k = K_k x_{k-1}      K_k = (B + Q)^-1 (Q + Gamma_A / 2)      B = H~ / tau
        P  <- symmetric part of (B + Gamma_A / 2) K_k                  Q = lambda tau C + P

    The spread costs every plan the same, eps' |X|, unless an asset is both sold and bought. Where
    the plan does so, to hedge one asset with another, it is not quite the optimum, and costs at
    most `round_trip_spread` more.

    Raises:
        ConfigError: numbers outside the model.
    """

    shares: npt.ArrayLike
    """X [A]; below 0 to buy."""
    covariance: npt.ArrayLike
    """C [A, A], in dollars squared a day."""
    temporary_impact: npt.ArrayLike
    """H [A, A], in dollars a share for each share a day that is being sold."""
    permanent_impact: npt.ArrayLike
    """Gamma [A, A], in dollars a share for each share that was sold."""
    half_spread: npt.ArrayLike = 0.0
    """eps [A], or one number for all, in dollars a share."""
    horizon: float = 5.0
    """T, in days."""
    steps: int = 5
    """N."""
    risk_aversion: float = 1e-6
    """lambda, a dollar."""
    _gains: np.ndarray = field(init=False, repr=False)

    def __post_init__(self):
        _require_steps(self.steps)
        _require(self, "horizon", above=True)
        _require(self, "risk_aversion", above=False)
        shares = np.atleast_1d(np.array(self.shares, float))
        n = shares.size
        spread = np.asarray(self.half_spread, float)
        arrays = {
            "shares": (shares, (n,)),
            "half_spread": (np.full(n, spread) if spread.ndim == 0 else spread, (n,)),
        }
        for name in ("covariance", "temporary_impact", "permanent_impact"):
            arrays[name] = (np.array(getattr(self, name), float), (n, n))
        for name, (value, shape) in arrays.items():
            if value.shape != shape:
                raise ConfigError(f"{name} has shape {value.shape}; for {n} assets it is {shape}")
            if not np.isfinite(value).all():
                raise ConfigError(f"{name} is {value.tolist()}; all of it must be finite")
            object.__setattr__(self, name, value)
        if not shares.any():
            raise ConfigError("shares are all 0; there is nothing to sell")
        if (arrays["half_spread"][0] < 0).any():
            raise ConfigError(f"half_spread is {self.half_spread}; it must be at least 0")
        covariance = arrays["covariance"][0]
        scale = np.abs(covariance).max()
        if np.abs(covariance - covariance.T).max() > 1e-9 * scale:
            raise ConfigError("covariance is not symmetric")
        if np.linalg.eigvalsh(covariance)[0] < -1e-9 * scale:
            raise ConfigError("covariance has a negative eigenvalue; no prices move like that")
        least = least_effective_impact(*self._impacts(), self.step_days)
        if least <= 0:
            raise ConfigError(
                "temporary_impact minus half of permanent_impact times the days of a step must be "
                f"positive definite, and its least eigenvalue is {least:.3g} of the temporary "
                "impact: else trading in one go is always cheapest; take more steps, or a larger "
                "temporary_impact"
            )
        object.__setattr__(self, "_gains", self._solve())

    @property
    def step_days(self) -> float:
        """tau."""
        return self.horizon / self.steps

    @property
    def effective_impact(self) -> np.ndarray:
        """H~ = H_S - tau Gamma_S / 2, [A, A]."""
        temporary, permanent = self._impacts()
        return _symmetric(temporary) - self.step_days / 2 * _symmetric(permanent)

    def gains(self) -> np.ndarray:
        """K [N, A, A]: in step k `gains()[k - 1] @ x` is sold of the holdings x, whatever they are.

        Exact without a spread, or where no asset is both sold and bought.
        """
        return self._gains.copy()

    def trajectory(self) -> np.ndarray:
        """Shares left before and after every step, [N + 1, A]."""
        left = np.empty((self.steps + 1, len(self._gains[0])))
        left[0] = self.shares
        for k, gain in enumerate(self._gains):
            left[k + 1] = left[k] - gain @ left[k]
        return left

    def trades(self) -> np.ndarray:
        """Shares sold in every step, [N, A]."""
        return np.einsum("kij,kj->ki", self._gains, self.trajectory()[:-1])

    def twap(self) -> np.ndarray:
        """Shares sold in every step when all steps sell the same, [N, A]."""
        return np.tile(np.asarray(self.shares) / self.steps, (self.steps, 1))

    def expected_shortfall(self, trades: npt.ArrayLike | None = None) -> float:
        """E in dollars, of the feedback plan or of `trades` [N, A]."""
        n, left = self._plan(trades)
        shares, permanent = np.asarray(self.shares), self._impacts()[1]
        antisymmetric = permanent - _symmetric(permanent)
        return float(
            0.5 * shares @ _symmetric(permanent) @ shares
            + (np.abs(n) @ np.asarray(self.half_spread)).sum()
            + np.einsum("ki,ij,kj->", n, self.effective_impact / self.step_days, n)
            + np.einsum("ki,ij,kj->", left, antisymmetric, n)
        )

    def variance(self, trades: npt.ArrayLike | None = None) -> float:
        """V in dollars squared, of the feedback plan or of `trades` [N, A]."""
        left = self._plan(trades)[1]
        covariance = np.asarray(self.covariance)
        return float(self.step_days * np.einsum("ki,ij,kj->", left, covariance, left))

    def utility(self, trades: npt.ArrayLike | None = None) -> float:
        """U = E + lambda V in dollars, of the feedback plan or of `trades` [N, A]."""
        return self.expected_shortfall(trades) + self.risk_aversion * self.variance(trades)

    def round_trip_spread(self) -> float:
        """Dollars of spread that the plan pays for shares bought and sold again.

        At most so much is its utility above the least possible one.
        """
        traded = np.abs(self.trades()).sum(0) - np.abs(np.asarray(self.shares))
        # An exact zero where only rounding is left.
        traded = np.where(traded > 1e-9 * np.abs(self.trajectory()).max(0), traded, 0.0)
        return float(np.asarray(self.half_spread) @ traded)

    def _solve(self) -> np.ndarray:
        """K [N, A, A]."""
        permanent = self._impacts()[1]
        twist = (permanent - _symmetric(permanent)) / 2
        risk = self.risk_aversion * self.step_days * np.asarray(self.covariance)
        impact = self.effective_impact / self.step_days
        gains = np.empty((self.steps, *impact.shape))
        gains[-1], cost = np.eye(len(impact)), impact
        for k in range(self.steps - 2, -1, -1):
            after = risk + cost
            if twist.any() and np.linalg.eigvalsh(impact + after)[0] <= 0:
                raise ConfigError(
                    "permanent_impact is so unsymmetric that trading round and round earns money; "
                    "make it symmetric, or temporary_impact larger"
                )
            gains[k] = np.linalg.solve(impact + after, after + twist)
            cost = _symmetric((impact + twist) @ gains[k])
        return gains

    def _impacts(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.temporary_impact), np.asarray(self.permanent_impact)

    def _plan(self, trades: npt.ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
        """Trades, and shares left after them, each [N, A]."""
        if trades is None:
            return self.trades(), self.trajectory()[1:]
        plan, shares = np.asarray(trades, float), np.asarray(self.shares)
        if plan.shape != (self.steps, len(shares)):
            raise ConfigError(
                f"trades have shape {plan.shape}; the sale has {self.steps} steps of "
                f"{len(shares)} assets"
            )
        if not np.allclose(plan.sum(0), shares, rtol=1e-5, atol=1e-5 * np.abs(shares).max()):
            raise ConfigError(f"trades add up to {plan.sum(0).tolist()}, not {shares.tolist()}")
        left = shares - np.cumsum(plan, axis=0)
        left[-1] = 0.0
        return plan, left


def least_effective_impact(
    temporary_impact: np.ndarray, permanent_impact: np.ndarray, step_days: float
) -> float:
    """Least eigenvalue of H~ where own temporary impacts are 1; 0 where it is lost in rounding."""
    temporary = _symmetric(temporary_impact)
    own = np.diag(temporary)
    if (own <= 0).any():
        return min(float(own.min()), 0.0)
    scale = np.sqrt(np.outer(own, own))
    effective = (temporary - step_days / 2 * _symmetric(permanent_impact)) / scale
    least = float(np.linalg.eigvalsh(effective)[0])
    return 0.0 if abs(least) < 1e-12 else least


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2


def _require(model: Any, name: str, *, above: bool) -> None:
    value = getattr(model, name)
    if not math.isfinite(value) or value < 0 or (above and value == 0):
        raise ConfigError(f"{name} is {value}; it must be {'above' if above else 'at least'} 0")


def _require_steps(steps: Any) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ConfigError(f"steps is {steps!r}; it must be a whole number of at least 1")
