"""The page of several runs on their common bars."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from tradax.evaluation.comparison import Comparison, Line
from tradax.ledger import Record
from tradax.reporting.charts import (
    COLORS,
    GREY,
    INK,
    MOST_POINTS,
    Chart,
    dates,
    line,
    plot_layout,
    thinned_rows,
)
from tradax.reporting.frame import (
    NO_SCRIPT,
    Row,
    Section,
    figure,
    items,
    numbers_table,
    render_page,
    text,
)

MARK = "<!-- written by tradax compare -->"
"""Stands in every such page, so that the program knows what it may overwrite."""
_COLORS = [color for color in COLORS if color not in (GREY, INK)]  # these are the references'
_DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class Compared:
    """What is told of a run beside its curve. Strings may hold anything: they are escaped."""

    name: str
    algorithm: str
    market: str
    symbol: str
    seed: int
    timesteps: int
    tested: tuple[str, str]
    """First and last bar of its whole test."""
    bars: int
    grade: str | None
    """Of its own report."""
    validation_score: float | None
    deflated_sharpe: float | None
    """Of its whole test."""
    record: Record | None
    """None where there is no index of trials."""
    p_positive: float | None = None
    p_beats_benchmark: float | None = None
    """Of the posterior in its own report."""
    look_ahead: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def render(runs: Sequence[Compared], comparison: Comparison, *, posterior: bool) -> str:
    """The page as HTML.

    Args:
        posterior: show the probabilities of the runs' own reports.
    """
    charts = _charts(comparison)
    first, last = dates(comparison.timestamps[[0, -1]])
    return render_page(
        f"Comparison of {len(runs)} runs" if len(runs) > 1 else f"Comparison of {runs[0].name}",
        f"{MARK}On the bars that all were tested on: {first} to {last}, "
        f"{len(comparison.timestamps) - 1:,} bars",
        [
            Section("caveats", "Before you choose", items(_caveats(runs, comparison))),
            Section("figures-section", "Figures", _figures(runs, comparison)),
            Section("evidence", "Evidence", _evidence(runs, posterior)),
            Section(
                "curves",
                "Curves",
                "\n".join([NO_SCRIPT, *map(figure, charts), _thinned(len(comparison.timestamps))]),
                heading="The common test span",
            ),
            Section("chance", "Chance", _chance(comparison), heading="Is one of them better?"),
            Section("settings", "Settings", _settings(runs), heading="What was run"),
        ],
        charts,
    )


def _caveats(runs: Sequence[Compared], comparison: Comparison) -> tuple[str, ...]:
    said = []
    if len(runs) > 1:
        said.append(
            "Choosing among these runs by this page is a selection on the test span: the best of "
            "several looks better than it is. Choose by the validation score, which did not see "
            "the test."
        )
    told = {}
    for run in runs:
        if run.record is None:
            told[run.symbol, None] = f"{run.symbol}: the trials on these data are not known"
        else:
            r = run.record
            told[run.symbol, r.tested, r.trials] = (
                f"{run.symbol}: {r.tested:,} of {r.trials:,} trials on the same data were tested"
                + (f", {r.missing:,} of them in folders that are gone" if r.missing else "")
            )
    said.append(
        "Every policy that was tested on a test span counts in the ledger of trials "
        f"(tradax trials), and lowers the deflated Sharpe ratio. {'; '.join(told.values())}."
    )
    bars = len(comparison.timestamps) - 1
    longer = [run for run in runs if run.bars > bars]
    if longer:
        said.append(
            f"The runs were tested on different spans: all figures but those of the whole test are "
            f"of the {bars:,} bars that all have. Their own: "
            + "; ".join(
                f"{run.name} {run.tested[0]} to {run.tested[1]}, {run.bars:,} bars" for run in runs
            )
            + "."
        )
    if len({run.symbol for run in runs}) > 1:
        said.append(
            "The runs trade different markets: who had the better market is no better policy. "
            "Compare each with the buy-and-hold of its own."
        )
    seen = [run.name for run in runs if run.look_ahead]
    if seen:
        said.append(
            f"Look-ahead: {', '.join(seen)} filled orders at prices that the policy had already "
            "seen. No one can trade like that."
        )
    return tuple(said)


def _figures(runs: Sequence[Compared], comparison: Comparison) -> str:
    head = [
        *("Run", "Total return", "Annual return", "Sharpe", "95% interval", "Max drawdown"),
        *("Turnover", "Costs"),
    ]
    rows = [
        Row(
            run.name,
            _cells(told),
            f"{run.algorithm} on {run.market}, {run.symbol}, seed {run.seed}",
        )
        for run, told in zip(runs, comparison.policies, strict=True)
    ]
    rows += [Row(told.name, _cells(told)) for told in comparison.references]
    return numbers_table("Figures of the common bars, after costs", head, rows) + items(
        (
            "Sharpe: mean return over its standard deviation, annualised; the risk-free rate "
            "counts as 0. Its 95% interval is from a stationary block bootstrap.",
            "Max drawdown: largest loss from a peak. Turnover: value traded in a year, in "
            "multiples of the mean net worth. Costs: paid on the common bars, as a share of the "
            "net worth at their start.",
        )
    )


def _evidence(runs: Sequence[Compared], posterior: bool) -> str:
    """What is of each run's whole test, and of its training."""
    head = ["Run", "Grade", "Deflated Sharpe", "Trials tested", "Validation score", "Steps"]
    said = [
        "Grade: the evidence by the run's own report: none, weak, moderate or strong.",
        "Deflated Sharpe: confidence that the true Sharpe ratio is above 0, given that so many "
        "trials on the same data were tested; by the ledger as it is now.",
        "Validation score: the best in training, on bars before the test.",
    ]
    if posterior:
        head[3:3] = ["P(Sharpe > 0)", "P(beats hold)"]
        said.append(
            "P(Sharpe > 0), P(beats hold): that the true Sharpe ratio is above 0, and the return "
            "above buy-and-hold's; of the posterior in the run's own report, n/a without one."
        )
    rows = []
    for run in runs:
        cells = [
            run.grade or "n/a",
            _number(run.deflated_sharpe, ".3f"),
            "n/a" if run.record is None else f"{run.record.tested:,}",
            _number(run.validation_score, ".4g"),
            f"{run.timesteps:,}",
        ]
        if posterior:
            cells[2:2] = [_number(p, ".1%") for p in (run.p_positive, run.p_beats_benchmark)]
        rows.append(Row(run.name, cells))
    return numbers_table("Of each run's whole test and training", head, rows) + items(tuple(said))


def _cells(told: Line) -> list[str]:
    figures, sharpe = told.metrics, told.sharpe
    between = "n/a"
    if sharpe is not None and sharpe.ends is not None:
        between = f"{sharpe.ends[0]:.2f} to {sharpe.ends[1]:.2f}"
    return [
        _number(figures.total_return, ",.1%"),
        _number(figures.annual_return, ",.1%"),
        _number(figures.sharpe, ",.2f"),
        between,
        _number(figures.max_drawdown, ".1%"),
        _number(figures.turnover, ",.2f"),
        _number(figures.costs, ",.2%"),
    ]


def _number(value: float | None, form: str) -> str:
    return "n/a" if value is None or not math.isfinite(value) else f"{value:{form}}"


def _charts(comparison: Comparison) -> list[Chart]:
    shown = [*comparison.policies, *comparison.references[:-1]]
    if len(comparison.references) > 3:  # of more than two markets
        shown = comparison.policies
    rows = thinned_rows(comparison.policies[0].net_worth)
    x = dates(comparison.timestamps[rows])
    worth, drawdown = [], []
    for number, told in enumerate(shown):
        if number < len(comparison.policies):
            style = {"color": _COLORS[number % len(_COLORS)], "width": 2}
            style["dash"] = _DASHES[number // len(_COLORS) % len(_DASHES)]
        else:
            style = {"color": INK if number == len(comparison.policies) else GREY, "width": 1.5}
        name, peak = escape(told.name), np.maximum.accumulate(told.net_worth)
        worth.append(line(name, x, told.net_worth[rows], style))
        drawdown.append(line(name, x, (told.net_worth / peak - 1.0)[rows], style))
    ends = ", ".join(f"{told.name} {told.net_worth[-1]:.3f}" for told in shown)
    worst = ", ".join(f"{told.name} {told.metrics.max_drawdown:.1%}" for told in shown)
    return [
        Chart(
            "equity",
            "Net worth",
            f"Net worth after costs, each 1 at the first common bar. At the last: {ends}.",
            worth,
            plot_layout(x, yaxis={"title": {"text": "Net worth"}}),
            440,
            log_toggle=True,
        ),
        Chart(
            "drawdown",
            "Drawdown",
            f"Loss from the highest net worth so far on the common bars. At worst: {worst}.",
            drawdown,
            plot_layout(x, yaxis={"title": {"text": "Drawdown"}, "tickformat": ".0%"}),
            300,
        ),
    ]


def _thinned(points: int) -> str:
    if points <= MOST_POINTS:
        return ""
    return (
        f"<p>Of {points:,} bars the charts draw at most {MOST_POINTS:,}. All figures are of all "
        "bars.</p>"
    )


def _chance(comparison: Comparison) -> str:
    return "\n".join(
        [
            "<h3>Does the best beat buy-and-hold?</h3>",
            f"<p>{escape(_superiority(comparison))}</p>",
            "<h3>Would choosing the best have worked?</h3>",
            f"<p>{escape(_overfitting(comparison))}</p>",
            "<h3>Each against each</h3>",
            _differences(comparison),
        ]
    )


def _superiority(comparison: Comparison) -> str:
    found = comparison.superiority
    if isinstance(found, str):
        return f"No statement: {found}."
    best = "None had a higher mean return."
    if found.statistic > 0.0:
        name = comparison.policies[found.best].name
        best = f"The largest excess, for how much it varies, is that of {name}."
    shows = "are evidence" if found.consistent < 0.05 else "are no evidence"
    return (
        f"Test for superior predictive ability (Hansen 2005): p = {found.consistent:.3f} (between "
        f"{found.lower:.3f} and {found.upper:.3f}). So often would the best of so many runs beat "
        "the buy-and-hold of its market by as much if none had a higher mean return. The figures "
        f"{shows} that one does, at 95%. {best}"
    )


def _overfitting(comparison: Comparison) -> str:
    found = comparison.overfitting
    if isinstance(found, str):
        return f"No statement: {found}."
    few = len(comparison.policies) < 5
    return (
        f"Probability of backtest overfitting (Bailey and others 2017): {found.probability:.0%}. "
        "In so many ways of halving the bars, the run with the best Sharpe ratio on one half was "
        "not above the runs' median on the other; near 50%, choosing by the past is a coin toss. "
        f"In {found.probability_of_loss:.0%} it lost money there."
        + (f" With {len(comparison.policies)} runs this is coarse." if few else "")
    )


def _differences(comparison: Comparison) -> str:
    found = comparison.differences
    if isinstance(found, str):
        return f"<p>No statement: {escape(found)}.</p>"
    rows = [
        Row(
            f"{d.first} less {d.second}",
            [
                f"{d.mean:.1%}",
                f"{d.interval[0]:.1%} to {d.interval[1]:.1%}",
                _higher(d.first, d.second, d.interval),
            ],
        )
        for d in found
    ]
    return numbers_table(
        "Difference of mean returns a year",
        ["Pair", "Difference", "95% interval", "Shown to be higher"],
        rows,
    ) + items(
        (
            "Arithmetic means after costs, with intervals from a stationary block bootstrap of the "
            "bars. All intervals hold together with 95% (Bonferroni), however many pairs there "
            "are.",
        )
    )


def _higher(first: str, second: str, interval: tuple[float, float]) -> str:
    return first if interval[0] > 0.0 else second if interval[1] < 0.0 else "neither"


def _settings(runs: Sequence[Compared]) -> str:
    """One column a run; of the options only those in which they differ."""
    facts = {
        "Algorithm": [run.algorithm for run in runs],
        "Market": [run.market for run in runs],
        "Symbol": [run.symbol for run in runs],
        "Seed": [str(run.seed) for run in runs],
        "Whole test": [f"{run.tested[0]} to {run.tested[1]}" for run in runs],
        "Bars of the whole test": [f"{run.bars:,}" for run in runs],
    }
    names = dict.fromkeys(name for run in runs for name in run.options)
    for name in names:
        facts[name] = [text(run.options[name]) if name in run.options else "–" for run in runs]
    alike = "" if names or len(runs) < 2 else "<p>They do not differ in any option.</p>"
    caption = "What was run, and the options in which the runs differ"
    rows = [Row(name, cells) for name, cells in facts.items()]
    return numbers_table(caption, ["", *(run.name for run in runs)], rows) + alike
