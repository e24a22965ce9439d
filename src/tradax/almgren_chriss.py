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

This module needs NumPy only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

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
            self._require(name, above=True)
        for name in ("volatility", "half_spread", "permanent_impact", "risk_aversion"):
            self._require(name, above=False)
        steps = self.steps
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
            raise ConfigError(f"steps is {steps!r}; it must be a whole number of at least 1")
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

    def _require(self, name: str, *, above: bool) -> None:
        value = getattr(self, name)
        if not math.isfinite(value) or value < 0 or (above and value == 0):
            raise ConfigError(f"{name} is {value}; it must be {'above' if above else 'at least'} 0")
