"""One HTML page that says what a run is worth. It holds everything: no request leaves it."""

import math
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from tradax.evaluation.backtest import Backtest, Curve
from tradax.evaluation.verdict import Verdict
from tradax.files import write_atomic
from tradax.reporting.charts import (
    MOST_POINTS,
    NAMES,
    learning_charts,
    market_charts,
    strategies,
)
from tradax.reporting.downloads import csv_text, download
from tradax.reporting.frame import (
    NO_SCRIPT,
    Part,
    Row,
    Section,
    facts_table,
    figure,
    in_words,
    items,
    learning_section,
    numbers_table,
    plain,
    render_page,
    run_section,
    settings_section,
)
from tradax.reporting.series import series


@dataclass(frozen=True)
class Report:
    """What the page shows. Strings may hold anything: they are escaped."""

    title: str
    symbol: str
    backtest: Backtest
    verdict: Verdict
    parts: list[Part] = field(default_factory=list)
    """Further analyses of the test, in the order in which they are shown."""
    learning: list[dict[str, Any]] = field(default_factory=list)
    """Rows of metrics.jsonl."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Section -> option -> value."""
    data: dict[str, Any] = field(default_factory=dict)
    """Source, hash, rows; spans as [first date, last date]; features."""
    run: dict[str, Any] = field(default_factory=dict)
    """Command, versions, seed, speed."""


def write_report(path: Path | str, report: Report) -> None:
    """Write the page in one go, so that a reader never sees half of it."""
    write_atomic(path, render(report))


def render(report: Report) -> str:
    """The page as HTML."""
    charts = market_charts(report.backtest) + learning_charts(report.learning)
    drawn = [figure(chart) for chart in charts if chart.name in _MARKET]
    look_ahead = _LOOK_AHEAD if report.backtest.look_ahead else ""
    return render_page(
        report.title,
        _span(report),
        [
            Section("verdict", "Verdict", look_ahead + _verdict(report.verdict)),
            Section(
                "test",
                "Test",
                "\n".join([NO_SCRIPT, *drawn, _thinned(report.backtest), _download(report)]),
                heading="The test span",
            ),
            Section("figures-section", "Figures", _metrics_table(report.backtest)),
            *(part.section for part in report.parts),
            learning_section(charts),
            settings_section(report.settings),
            Section(
                "data",
                "Data",
                facts_table("Data of this run", in_words({"symbol": report.symbol} | report.data)),
            ),
            run_section(report.run),
        ],
        charts + [chart for part in report.parts for chart in part.charts],
    )


def summary(report: Report) -> dict[str, Any]:
    """The figures of the page for programs: plain JSON, with None where one is not defined."""
    verdict = report.verdict
    stamps = report.backtest.policy.timestamps
    return plain(
        {
            "title": report.title,
            "symbol": report.symbol,
            "test": {
                "first": str(stamps[0])[:19],
                "last": str(stamps[-1])[:19],
                "bars": len(stamps) - 1,
            },
            "look_ahead": report.backtest.look_ahead,
            "verdict": {
                "grade": verdict.grade,
                "headline": verdict.headline,
                "rule": verdict.rule,
                "caveats": verdict.caveats,
                "figures": verdict.figures,
            },
            "strategies": {
                name: {"final_net_worth": curve.net_worth[-1], **curve.metrics.as_dict()}
                for name, curve in strategies(report.backtest).items()
            },
            **{name: value for part in report.parts for name, value in part.summary.items()},
            "data": report.data,
            "run": report.run,
        }
    )


_MARKET = ("equity", "drawdown", "position")
_LOOK_AHEAD = """<p class="look-ahead" role="note"><strong>Look-ahead.</strong> Orders were filled
at prices that the policy had already seen. No one can trade like that, and no figure on this page
is evidence of skill.</p>"""
_BADGES = {
    "none": "No evidence",
    "weak": "Weak evidence",
    "moderate": "Moderate evidence",
    "strong": "Strong evidence",
}


def _span(report: Report) -> str:
    stamps = report.backtest.policy.timestamps
    first, last = (escape(str(stamps[i])[:10]) for i in (0, -1))
    return f"{escape(report.symbol)}, tested from {first} to {last}, {len(stamps) - 1:,} bars"


def _download(report: Report) -> str:
    text = csv_text(series(report.backtest))
    return download("Download the series as CSV", "test.csv", text)


def _verdict(verdict: Verdict) -> str:
    return "\n".join(
        [
            f'<p><span class="badge {verdict.grade}">{_BADGES[verdict.grade]}</span></p>',
            f'<p class="headline">{escape(verdict.headline)}</p>',
            items(verdict.sentences),
            "<h3>How the grade is decided</h3>",
            f"<p>{escape(verdict.rule)}</p>",
            "<h3>What this does not show</h3>",
            items(verdict.caveats),
        ]
    )


def _thinned(backtest: Backtest) -> str:
    points = len(backtest.policy.net_worth)
    if points <= MOST_POINTS:
        return ""
    return (
        f"<p>Of {points:,} bars the charts draw at most {MOST_POINTS:,}, the policy's highs and "
        "lows among them. All figures are of all bars.</p>"
    )


_FIGURES = {
    "final_net_worth": ("Final net worth", ",.2f", "In the currency of the prices."),
    "total_return": ("Total return", ",.1%", "Gain over the whole span."),
    "annual_return": ("Annual return", ",.1%", "The yearly rate that compounds to the total."),
    "volatility": ("Volatility", ",.1%", "Standard deviation of returns, annualised."),
    "sharpe": (
        "Sharpe ratio",
        ",.2f",
        "Mean return over its standard deviation, annualised; the risk-free rate counts as 0.",
    ),
    "sortino": ("Sortino ratio", ",.2f", "As the Sharpe ratio, but only losses count as risk."),
    "calmar": ("Calmar ratio", ",.2f", "Annual return over the maximum drawdown."),
    "max_drawdown": ("Maximum drawdown", ",.1%", "Largest loss from a peak."),
    "max_drawdown_bars": ("Longest drawdown", ",d", "Bars; longest time below a peak."),
    "turnover": (
        "Turnover",
        ",.2f",
        "Value bought and sold in a year, in multiples of the mean net worth.",
    ),
    "costs": ("Costs", ",.2f", "Commission, spread and impact paid, in currency."),
    "exposure": ("Exposure", ",.1%", "Share of bars that end with an open position."),
    "trades": ("Trades", ",d", "Bars on which something was bought or sold."),
    "hit_rate": (
        "Hit rate",
        ",.1%",
        "Share of the bars with an open position on which net worth rose.",
    ),
}


def _metrics_table(backtest: Backtest) -> str:
    curves = strategies(backtest)
    return numbers_table(
        "Figures of the test span. Gross: the policy's orders without costs.",
        ["Figure", *(NAMES.get(name, name) for name in curves)],
        [
            Row(label, [_metric(curve, name, form) for curve in curves.values()], meaning)
            for name, (label, form, meaning) in _FIGURES.items()
        ],
    )


def _metric(curve: Curve, name: str, form: str) -> str:
    value = {"final_net_worth": curve.net_worth[-1], **curve.metrics.as_dict()}[name]
    return "n/a" if value is None or not math.isfinite(value) else f"{value:{form}}"
