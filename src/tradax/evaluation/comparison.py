"""Several policies on the bars that all of them were tested on."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np

from tradax.errors import TradaxError
from tradax.evaluation import metrics
from tradax.evaluation.backtest import Backtest, Curve
from tradax.evaluation.bootstrap import (
    LEAST_BARS,
    Interval,
    block_length,
    performance_intervals,
    resample,
)
from tradax.evaluation.overfitting import Overfitting, overfitting
from tradax.evaluation.superiority import Superiority, superior_ability

LEVEL = 0.95
MOST_PAIRED = 6
"""With more runs there are too many pairs for a statement about each."""
_SAME = 1e-6  # net worth is a float32
_SAME_GAP = 1.5


class Walk(NamedTuple):
    """One policy's test."""

    name: str
    backtest: Backtest
    periods_per_year: float


class Line(NamedTuple):
    """One strategy on the common bars."""

    name: str
    net_worth: np.ndarray
    """[n + 1], 1 at the first."""
    metrics: metrics.Metrics
    """Costs are a fraction of the first net worth."""
    sharpe: Interval | None
    """Annual, with its 95% interval."""

    @property
    def returns(self) -> np.ndarray:
        """Simple returns [n]; 0 after ruin."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(self.net_worth[1:] / self.net_worth[:-1] - 1.0, posinf=0, neginf=0)


class Difference(NamedTuple):
    """Mean return a year (arithmetic) of one run less another's."""

    first: str
    second: str
    mean: float
    interval: tuple[float, float]
    """All pairs' intervals hold together with 95% (Bonferroni)."""


@dataclass(frozen=True)
class Comparison:
    """What the common bars say. A text stands for a statistic that is not stated: the reason."""

    timestamps: np.ndarray
    """[n + 1]"""
    policies: list[Line]
    references: list[Line]
    """Buy-and-hold of each market, then cash: each that differs once."""
    superiority: Superiority | str
    """Of all policies over the buy-and-hold of their own market."""
    overfitting: Overfitting | str
    differences: list[Difference] | str


def compare(tested: Sequence[Walk], *, seed: int = 0) -> Comparison:
    """Figures on the common bars, each net worth scaled to 1 at the first of them.

    Raises:
        TradaxError: bars of different lengths, or fewer than two common ones.
    """
    stamps = common_timestamps(tested)
    periods_per_year = min(one.periods_per_year for one in tested)
    policies = [
        _line(one.name, one.backtest.policy, stamps, periods_per_year, seed) for one in tested
    ]
    holds = [
        _line(one.name, one.backtest.baselines["buy_and_hold"], stamps, periods_per_year, seed)
        for one in tested
    ]
    returns = np.stack([line.returns for line in policies], axis=1)  # [n, k]
    hold = np.stack([line.returns for line in holds], axis=1)
    return Comparison(
        timestamps=stamps,
        policies=policies,
        references=[
            *_each_once("Buy and hold", holds, [one.backtest.symbol for one in tested]),
            _line("Cash", tested[0].backtest.baselines["cash"], stamps, periods_per_year, seed),
        ],
        superiority=_superiority(returns - hold, seed),
        overfitting=_overfitting(returns),
        differences=_differences([one.name for one in tested], returns, periods_per_year, seed),
    )


def common_timestamps(tested: Sequence[Walk]) -> np.ndarray:
    """[n + 1], that all tests have.

    Raises:
        TradaxError: bars of different lengths, or fewer than two common ones.
    """
    gaps = [_gap(one.backtest.policy.timestamps) for one in tested]
    short, long = int(np.argmin(gaps)), int(np.argmax(gaps))
    if gaps[long] > _SAME_GAP * gaps[short]:
        raise TradaxError(
            f"{tested[short].name} has bars of {_gap_words(gaps[short])} and {tested[long].name} "
            f"of {_gap_words(gaps[long])}; compare runs with bars of one length"
        )
    stamps = [one.backtest.policy.timestamps for one in tested]
    common = reduce(np.intersect1d, stamps)
    if len(common) < 2:
        late = max(tested, key=lambda one: one.backtest.policy.timestamps[0])
        early = min(tested, key=lambda one: one.backtest.policy.timestamps[-1])
        if late is early:
            early = next(one for one in tested if one is not late)
        raise TradaxError(
            f"no two bars in common: {_span_words(early)}, and {_span_words(late)}; compare runs "
            "whose tests share dates"
        )
    return common


def _gap(stamps: np.ndarray) -> float:
    """Seconds between two bars, at the median."""
    return float(np.median(np.diff(stamps.astype("datetime64[s]").astype(np.int64))))


def _gap_words(seconds: float) -> str:
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            number = f"{seconds / size:.3g}"
            return f"{number} {name}" if number == "1" else f"{number} {name}s"
    return f"{seconds:.3g} seconds"


def _span_words(one: Walk) -> str:
    first, last = (str(one.backtest.policy.timestamps[i])[:16] for i in (0, -1))
    return f"{one.name} was tested from {first} to {last}"


def _line(name: str, curve: Curve, stamps: np.ndarray, periods_per_year: float, seed: int) -> Line:
    """What a curve did between the common bars; what lies between two of them is summed."""
    at = np.searchsorted(curve.timestamps, stamps)  # [n + 1]
    start = curve.net_worth[at[0]]
    if not start > 0.0:
        raise TradaxError(f"{name} had lost everything before the first common bar; leave it out")
    worth = curve.net_worth[at] / start
    figures = metrics.compute(
        worth,
        curve.shares[at[1:] - 1],
        np.add.reduceat(curve.cost[: at[-1]], at[:-1]) / start,
        np.add.reduceat(curve.turnover[: at[-1]], at[:-1]) / start,
        periods_per_year,
    )
    line = Line(name, worth, figures, None)
    sharpe = performance_intervals(line.returns, periods_per_year, level=LEVEL, seed=seed)["sharpe"]
    return line._replace(sharpe=sharpe)


def _each_once(what: str, lines: Sequence[Line], symbols: Sequence[str]) -> list[Line]:
    """Those that differ, named by their symbols, and by the run where costs differ too."""
    kept: list[tuple[Line, str]] = []
    for line, symbol in zip(lines, symbols, strict=True):
        if not any(
            np.allclose(line.net_worth, other.net_worth, rtol=_SAME, atol=0.0) for other, _ in kept
        ):
            kept.append((line, symbol))
    if len(kept) == 1:
        return [kept[0][0]._replace(name=what)]
    own = [symbol for _, symbol in kept]
    return [
        line._replace(
            name=f"{what}, {symbol}" + (f" ({line.name})" if own.count(symbol) > 1 else "")
        )
        for line, symbol in kept
    ]


def _superiority(excess: np.ndarray, seed: int) -> Superiority | str:
    """Args: excess: [n, k], over each run's own buy-and-hold."""
    if len(excess) < LEAST_BARS:
        return _too_few(len(excess))
    found = superior_ability(excess, np.zeros(len(excess)), seed=seed)
    return "no run's returns differ from those of buy-and-hold" if found is None else found


def _overfitting(returns: np.ndarray) -> Overfitting | str:
    if len(returns) < LEAST_BARS:
        return _too_few(len(returns))
    if returns.shape[1] < 2:
        return "there is one run, so nothing was chosen"
    if np.allclose(returns, returns[:, :1], rtol=0.0, atol=metrics.ROUNDING):
        return "all runs did the same"
    return overfitting(returns)


def _differences(
    names: Sequence[str], returns: np.ndarray, periods_per_year: float, seed: int
) -> list[Difference] | str:
    n, k = returns.shape
    if k < 2:
        return "there is one run"
    if k > MOST_PAIRED:
        return f"there are {k} runs; up to {MOST_PAIRED} are compared with each other"
    if n < LEAST_BARS:
        return _too_few(n)
    pairs = list(itertools.combinations(range(k), 2))
    columns = np.stack([returns[:, i] - returns[:, j] for i, j in pairs], axis=1)
    columns = columns * periods_per_year
    means = resample(
        lambda sample: sample.mean(axis=0),
        columns,
        block=block_length(columns),
        seed=seed,
        replications=5000,
    )
    tail = (1.0 - LEVEL) / len(pairs) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail], axis=0)
    return [
        Difference(names[i], names[j], float(mean), (float(a), float(b)))
        for (i, j), mean, a, b in zip(pairs, columns.mean(axis=0), low, high, strict=True)
    ]


def _too_few(bars: int) -> str:
    return f"{bars} common bars are too few; {LEAST_BARS} are needed"
