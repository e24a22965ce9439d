"""All figures that a verdict rests on: intervals, tests, and what a search leaves of them."""

import math

import numpy as np

from tradax.evaluation.backtest import Backtest, Curve
from tradax.evaluation.bootstrap import (
    LEAST_BARS,
    Performance,
    block_length,
    interval,
    performance,
    resample,
    times_root_year,
)
from tradax.evaluation.overfitting import overfitting
from tradax.evaluation.sharpe import (
    annual_sharpe,
    deflated_sharpe,
    minimum_track_record,
    probabilistic_sharpe,
    sharpe_ratio,
)
from tradax.evaluation.superiority import superior_ability
from tradax.ledger import Record

Figure = float | list[float] | None

LEVELS = (90, 95, 99)
"""Of intervals, in percent."""
_SUPERIORITY = 1000
"""Replications of Hansen's test: a p-value of 0.05 to 0.007."""
LEAST_KEPT, LEAST_COMMON = 4, 64
"""Trials with kept validation returns, and bars that they share: fewer give no PBO."""


def figures_of(
    backtest: Backtest,
    periods_per_year: float,
    *,
    trials: Record | None = None,
    validation: np.ndarray | None = None,
    seed: int = 0,
    replications: int = 2000,
) -> dict[str, Figure]:
    """Name -> figure; fractions a year unless named otherwise, None where one is not defined.

    Args:
        trials: on the same data, if known.
        validation: returns [n, N] of those of them that have them, on the bars that they share.
    """
    policy, hold = backtest.policy, backtest.baselines["buy_and_hold"]
    columns = np.stack(
        [
            excess(backtest, "buy_and_hold"),
            excess(backtest, "cash"),
            np.nan_to_num(policy.returns),
            np.nan_to_num(hold.returns),
        ],
        axis=1,
    )  # [n, 4]
    n = len(columns)
    figures: dict[str, Figure] = {
        "bars": float(n),
        "years": n / periods_per_year,
        "trades": float(policy.metrics.trades),
        "tracking_error": float(columns[:, 0].std() * math.sqrt(periods_per_year)),
        "probabilistic_sharpe": probabilistic_sharpe(columns[:, 2]),
        "minimum_track_record": minimum_track_record(columns[:, 2]),
        "sharpe_with_autocorrelation": annual_sharpe(columns[:, 2], periods_per_year),
        **_of_search(columns, trials),
        **_of_selection(validation),
        **_of_superiority(backtest, seed, min(replications, _SUPERIORITY)),
    }
    block = block_length(columns)
    estimates = _statistics(columns, periods_per_year)
    resampled = resample(
        lambda sample: _statistics(sample, periods_per_year),
        columns,
        block=block,
        seed=seed,
        replications=replications,
    )
    figures["block_length"] = float(block)
    figures["replications"] = float(replications)
    for name, estimate, values in zip(_STATISTICS, estimates, resampled.T, strict=True):
        for level in LEVELS:
            found = interval(estimate, values, level / 100, n)
            figures[name] = None if found is None else found.estimate
            ends = None if found is None or found.ends is None else list(found.ends)
            figures[f"{name}_interval_{level}"] = ends
    return figures


def excess(backtest: Backtest, baseline: str) -> np.ndarray:
    """The policy's log returns less those of a baseline [n]."""
    difference = _log_returns(backtest.policy) - _log_returns(backtest.baselines[baseline])
    return np.nan_to_num(difference)


def excess_per_bar(backtest: Backtest) -> float | None:
    """Sharpe ratio of the differences to buy-and-hold, a bar."""
    return sharpe_ratio(excess(backtest, "buy_and_hold"))


def _of_search(columns: np.ndarray, trials: Record | None) -> dict[str, Figure]:
    """What the search for this policy leaves; None where it is not known.

    The deviation of Sharpe ratios over trials is at least the standard error 1/sqrt(n) that each
    has if its true value is 0. Over two or three trials a deviation is hardly known and may come
    out near 0 by chance, and lines of older versions have no excess at all. Where trials resemble
    each other this deflates too much, never too little.
    """
    names = ("deflated_sharpe", "deflated_excess_over_buy_and_hold", "deflated_excess_over_cash")
    counts = ("trials", "trials_missing", "test_span_used_times")
    if trials is None:
        return dict.fromkeys((*names, *counts))
    error = 1.0 / math.sqrt(len(columns))

    def deflated(returns: np.ndarray, sharpes: tuple[float, ...]) -> float | None:
        return deflated_sharpe(
            returns, np.array(sharpes, float), trials.tested, least_deviation=error
        )

    return {
        "deflated_sharpe": deflated(columns[:, 2], trials.sharpes),
        "deflated_excess_over_buy_and_hold": deflated(columns[:, 0], trials.excesses),
        "deflated_excess_over_cash": deflated(columns[:, 1], trials.sharpes),
        "trials": float(trials.trials),
        "trials_missing": float(trials.missing),
        "test_span_used_times": float(trials.tested),
    }


def _of_selection(validation: np.ndarray | None) -> dict[str, Figure]:
    """PBO of choosing by validation, over the trials whose returns were kept."""
    bars, kept = (0, 0) if validation is None else validation.shape
    figures: dict[str, Figure] = {
        "overfitting_probability": None,
        "overfitting_loss_probability": None,
        "overfitting_trials": None if validation is None else float(kept),
        "overfitting_bars": None if validation is None else float(bars),
    }
    if validation is not None and kept >= LEAST_KEPT and bars >= LEAST_COMMON:
        found = overfitting(validation)
        figures["overfitting_probability"] = found.probability
        figures["overfitting_loss_probability"] = found.probability_of_loss
    return figures


def _of_superiority(backtest: Backtest, seed: int, replications: int) -> dict[str, Figure]:
    """p-values of Hansen's test against buy-and-hold, and the largest against any baseline."""
    returns = np.nan_to_num(backtest.policy.returns)
    p: dict[str, float] = {}
    if len(returns) >= LEAST_BARS:
        for name, curve in backtest.baselines.items():
            found = superior_ability(
                returns, np.nan_to_num(curve.returns), seed=seed, replications=replications
            )
            if found is not None:
                p[name] = found.consistent
    # One that does what a baseline does has shown no superiority over it.
    shown = p.keys() == backtest.baselines.keys()
    return {
        "superior_ability_p": p.get("buy_and_hold"),
        "superior_ability_p_every_baseline": max(p.values()) if p and shown else None,
    }


_STATISTICS = (
    "excess_over_buy_and_hold",
    "excess_over_cash",
    "sharpe_difference",
    *Performance._fields,
)


def _statistics(columns: np.ndarray, periods_per_year: float) -> np.ndarray:
    """`_STATISTICS` of one (re)sample [n, 4], a year each; not finite where not defined."""
    excess = columns[:, :2].mean(axis=0) * periods_per_year
    policy = performance(columns[:, 2], periods_per_year)
    hold = times_root_year(columns[:, 3], periods_per_year)
    return np.array([*excess, policy.sharpe - hold, *policy])


def _log_returns(curve: Curve) -> np.ndarray:
    """[n]; a bar that ends in ruin counts as a loss of 99.9%, not as an infinite one."""
    worth = np.maximum(curve.net_worth, 1e-3 * curve.net_worth[0])
    return np.diff(np.log(worth))
