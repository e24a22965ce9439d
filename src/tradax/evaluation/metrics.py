"""Figures of a backtest. Conventions: a year has `periods_per_year` bars; simple returns a bar;
the risk-free rate is 0; standard deviations divide by n - 1."""

from dataclasses import asdict, dataclass

import numpy as np

from tradax.errors import TradaxError

ROUNDING = 2e-7
"""Net worth is a float32: returns that vary by less than this do not vary."""


@dataclass(frozen=True)
class Metrics:
    """Fractions, not percent; None where a figure is not defined."""

    total_return: float
    annual_return: float | None
    """Compound; None where a short span makes it astronomical."""
    volatility: float
    """Annualised."""
    sharpe: float | None
    """Mean over standard deviation of returns, times sqrt(bars a year)."""
    sortino: float | None
    """Mean over downside deviation (root mean square of negative returns), annualised."""
    calmar: float | None
    """Annual return over maximum drawdown."""
    max_drawdown: float
    """Largest loss from a peak, as a positive fraction."""
    max_drawdown_bars: int
    """Longest time below a peak, in bars."""
    turnover: float
    """Value traded a year over mean net worth; buying once is 1 spread over the span."""
    costs: float
    """Commission, spread and impact paid, in currency."""
    exposure: float
    """Share of bars that end with an open position."""
    trades: int
    """Bars on which something was bought or sold."""
    hit_rate: float | None
    """Share of the bars on which a position was open, at any time, with a positive return."""

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


def compute(
    net_worth: np.ndarray,
    shares: np.ndarray,
    cost: np.ndarray,
    turnover: np.ndarray,
    periods_per_year: float,
) -> Metrics:
    """Args:
    net_worth: [n + 1], the initial one first.
    shares, cost, turnover: [n], during each bar; turnover in currency.
    """
    worth = np.asarray(net_worth, np.float64)
    returns = worth[1:] / worth[:-1] - 1.0
    n = len(returns)
    years = n / periods_per_year
    total = worth[-1] / worth[0] - 1.0
    with np.errstate(over="ignore"):
        annual = np.float64(max(1.0 + total, 0.0)) ** (1.0 / years) - 1.0
    annual = float(annual) if np.isfinite(annual) else None
    mean, std = returns.mean(), (returns.std(ddof=1) if n > 1 else 0.0)
    downside = np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2))
    scale = np.sqrt(periods_per_year)
    peak = np.maximum.accumulate(worth)
    below = worth < peak
    drawdown = float((1.0 - worth / peak).max())
    held = np.asarray(shares) != 0
    # A position sold at this bar's open or close still earned on this bar.
    invested = held | np.concatenate([[False], held[:-1]]) | (np.asarray(turnover) > 0)
    return Metrics(
        total_return=float(total),
        annual_return=annual,
        volatility=float(std * scale),
        sharpe=float(mean / std * scale) if std > ROUNDING else None,
        sortino=float(mean / downside * scale) if downside > ROUNDING else None,
        calmar=annual / drawdown if annual is not None and drawdown > ROUNDING else None,
        max_drawdown=drawdown,
        max_drawdown_bars=_longest_run(below),
        turnover=float(np.sum(turnover) / years / worth.mean()),
        costs=float(np.sum(cost)),
        exposure=float(held.mean()),
        trades=int(np.count_nonzero(turnover)),
        hit_rate=float((returns[invested] > 0).mean()) if invested.any() else None,
    )


def finite_returns(values: np.ndarray, *, ndim: int = 1, least: int = 0) -> np.ndarray:
    """The same as float64, checked.

    Raises:
        TradaxError: not `ndim` axes, fewer than `least` rows, or NaN or infinity among them.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != ndim:
        raise TradaxError(f"an array with {ndim} axes is needed, and this has {values.ndim}")
    if len(values) < least:
        raise TradaxError(f"{len(values)} values are too few; at least {least} are needed")
    if not np.isfinite(values).all():
        raise TradaxError(
            f"{np.count_nonzero(~np.isfinite(values))} of {values.size} values are NaN or "
            "infinite; leave them out or put a number there"
        )
    return values


def _longest_run(flags: np.ndarray) -> int:
    """Length of the longest run of True."""
    edges = np.diff(np.concatenate([[0], flags.astype(int), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return int((ends - starts).max()) if len(starts) else 0
