"""Where in the tested span a result comes from: by year, and by how volatile the market was."""

from typing import NamedTuple

import numpy as np

from tradax.evaluation import metrics


class Figures(NamedTuple):
    """Of net worth alone; fractions. None where a figure is not defined."""

    total_return: float
    sharpe: float | None
    """Annualised."""
    max_drawdown: float


class Period(NamedTuple):
    """A stretch of the span without a gap."""

    name: str
    bars: int
    policy: Figures
    buy_and_hold: Figures


class Earned(NamedTuple):
    """On bars that need not follow each other."""

    annual_mean: float
    """Mean simple return of a bar, times bars a year."""
    sharpe: float | None


class Regime(NamedTuple):
    """The bars on which a quantity lay in one of its terciles."""

    name: str
    bars: int
    low: float
    """Least annualised volatility among them."""
    high: float
    policy: Earned
    buy_and_hold: Earned


def figures(net_worth: np.ndarray, periods_per_year: float) -> Figures:
    """Args: net_worth: [n + 1], the initial one first."""
    nothing = np.zeros(len(net_worth) - 1)
    m = metrics.compute(net_worth, nothing, nothing, nothing, periods_per_year)
    return Figures(m.total_return, m.sharpe, m.max_drawdown)


def periods(
    timestamps: np.ndarray,
    policy: np.ndarray,
    buy_and_hold: np.ndarray,
    periods_per_year: float,
) -> list[Period]:
    """Calendar years; equal thirds where the span is shorter than two years.

    Args:
        timestamps: [n], of the bars on which the returns were earned.
        policy, buy_and_hold: simple returns [n].
    """
    n = len(policy)
    if n < 2.0 * periods_per_year:
        days = np.datetime_as_string(timestamps, unit="D")
        parts = [part for part in np.array_split(np.arange(n), 3) if len(part)]
        names = [f"{days[part[0]]} to {days[part[-1]]}" for part in parts]
    else:
        years = timestamps.astype("datetime64[Y]")
        parts = [np.flatnonzero(years == year) for year in np.unique(years)]
        names = [str(years[part[0]]) for part in parts]
    return [
        Period(
            name,
            len(part),
            *(figures(_worth(x[part]), periods_per_year) for x in (policy, buy_and_hold)),
        )
        for name, part in zip(names, parts, strict=True)
    ]


def volatility_regimes(
    volatility: np.ndarray,
    policy: np.ndarray,
    buy_and_hold: np.ndarray,
    periods_per_year: float,
) -> list[Regime]:
    """Terciles of the volatility that was known before each bar, calm first.

    Where each tercile ends is known only with the whole span; which bar is the more volatile of
    two is known before both.

    Args:
        volatility: [n], of a bar, from bars before the one of the return.
        policy, buy_and_hold: simple returns [n].
    """
    rank = np.empty(len(volatility), int)
    rank[np.argsort(volatility, kind="stable")] = np.arange(len(volatility))
    found = []
    for tercile, name in enumerate(("calm", "middle", "volatile")):
        chosen = rank * 3 // max(len(rank), 1) == tercile
        if not chosen.any():
            continue
        annual = volatility[chosen] * np.sqrt(periods_per_year)
        earned = (_earned(x[chosen], periods_per_year) for x in (policy, buy_and_hold))
        found.append(
            Regime(name, int(chosen.sum()), float(annual.min()), float(annual.max()), *earned)
        )
    return found


def _earned(returns: np.ndarray, periods_per_year: float) -> Earned:
    return Earned(
        float(returns.mean() * periods_per_year),
        figures(_worth(returns), periods_per_year).sharpe,
    )


def _worth(returns: np.ndarray) -> np.ndarray:
    return np.cumprod(np.concatenate([[1.0], 1.0 + returns]))
