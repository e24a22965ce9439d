"""A walk-forward on the page: which rows each fold had, and what came of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tradax.data.splits import Span, Splits
from tradax.evaluation.backtest import Backtest, Curve
from tradax.evaluation.bootstrap import performance
from tradax.reporting.charts import BLUE, NAMES, VERMILLION, Chart, plot_layout
from tradax.reporting.frame import Part, Row, Section, figure, numbers_table

_STRATEGIES = ("policy", "buy_and_hold")


def folds_part(
    backtest: Backtest,
    folds: Sequence[Splits],
    timestamps: np.ndarray,
    scores: Sequence[float | None],
    periods_per_year: float,
) -> Part:
    """The table of all folds, and a chart of their returns.

    Args:
        backtest: of all folds' test spans, one after the other.
        timestamps: of all bars, to which the folds' spans refer.
        scores: each fold's best on validation.
    """
    found = [
        _figures(backtest, fold, folds[0].test.first, timestamps, score, periods_per_year)
        for fold, score in zip(folds, scores, strict=True)
    ]
    returns = [[fold[name]["total_return"] for name in _STRATEGIES] for fold in found]
    ahead = sum(policy > hold for policy, hold in returns)
    said = (
        f"The test span is cut into {len(folds)} pieces. For each a policy was trained from the "
        "start, and chosen by validation, on rows before it only; positions are handed over from "
        f"one to the next. After costs the policy was ahead of buy-and-hold in {ahead} of "
        f"{len(folds)} folds. All other figures on this page are of all folds together; the last "
        "fold's policy is the one to deploy."
    )
    chart = _chart(returns)
    body = f"<p>{said}</p>\n{_tables(found)}\n{figure(chart)}"
    section = Section("folds", "Folds", body, heading="Walk-forward, fold by fold")
    return Part(section, [chart], {"folds": found})


def _figures(
    backtest: Backtest,
    fold: Splits,
    first: int,
    timestamps: np.ndarray,
    score: float | None,
    periods_per_year: float,
) -> dict[str, Any]:
    steps = slice(fold.test.first - first, fold.test.last + 1 - first)
    curves: dict[str, Curve] = {"policy": backtest.policy, **backtest.baselines}

    def dates(span: Span) -> list[str]:
        return [str(timestamps[row])[:19] for row in span]

    return {
        "train": dates(fold.train),
        "train_bars": fold.train.rows,
        "validation": dates(fold.validation),
        "test": dates(fold.test),
        "validation_score": score,
        **{
            name: performance(curves[name].returns[steps], periods_per_year)._asdict()
            for name in _STRATEGIES
        },
    }


def _tables(found: list[dict[str, Any]]) -> str:
    def span(dates: list[str]) -> str:
        return " to ".join(date[:10] for date in dates)

    def number(value: float | None, form: str) -> str:
        return "n/a" if value is None or not np.isfinite(value) else f"{value:{form}}"

    spans, results = [], []
    for place, fold in enumerate(found, 1):
        dates = [span(fold[name]) for name in ("train", "validation", "test")]
        spans.append(Row(f"Fold {place}", [*dates, f"{fold['train_bars']:,}"]))
        figures = [
            number(fold[name][figure], form)
            for figure, form in (("total_return", ",.1%"), ("sharpe", ",.2f"))
            for name in _STRATEGIES
        ]
        results.append(Row(f"Fold {place}", [number(fold["validation_score"], ".4g"), *figures]))
    return "\n".join(
        [
            numbers_table(
                "Which dates each fold had", ["", "Train", "Validation", "Test", "Bars"], spans
            ),
            numbers_table(
                "What came of them: the best score on validation, and the test",
                ["", "Score", "Return", "Buy and hold", "Sharpe ratio", "Buy and hold"],
                results,
            ),
        ]
    )


def _chart(returns: list[list[float]]) -> Chart:
    """Args: returns: [folds, strategies]."""
    names = [f"Fold {place}" for place in range(1, len(returns) + 1)]
    data = [
        {
            "type": "bar",
            "name": NAMES[name],
            "x": names,
            "y": list(values),
            "marker": {"color": color},
        }
        for name, color, values in zip(
            _STRATEGIES, (BLUE, VERMILLION), zip(*returns, strict=True), strict=True
        )
    ]
    layout = plot_layout([], yaxis={"title": {"text": "Return"}, "tickformat": ".0%"})
    layout["yaxis"]["zeroline"] = True
    words = "; ".join(
        f"{name} {policy:.1%} against {hold:.1%}"
        for name, (policy, hold) in zip(names, returns, strict=True)
    )
    return Chart(
        "folds-returns",
        "Return of each fold",
        f"What the policy and buy and hold returned in each fold's test, after costs: {words}.",
        data,
        layout | {"barmode": "group"},
        320,
    )
