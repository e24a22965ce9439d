"""One HTML page that says what a run is worth. It holds everything: no request leaves it."""

import json
import math
import re
import shlex
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np

from tradax.evaluation.backtest import Backtest, Curve
from tradax.evaluation.posterior import Posterior
from tradax.evaluation.verdict import Verdict
from tradax.files import write_atomic
from tradax.reporting.charts import (
    MOST_POINTS,
    NAMES,
    Chart,
    learning_charts,
    market_charts,
    strategies,
)

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Report:
    """What the page shows. Strings may hold anything: they are escaped."""

    title: str
    symbol: str
    backtest: Backtest
    verdict: Verdict
    posterior: Posterior | None = None
    posterior_skipped: bool = False
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
                "\n".join([NO_SCRIPT, *drawn, _thinned(report.backtest)]),
                heading="The test span",
            ),
            learning_section(charts),
            Section("figures-section", "Figures", _metrics_table(report.backtest)),
            Section(
                "posterior",
                "Posterior",
                _posterior(report),
                heading="Posterior of the Sharpe ratio",
            ),
            settings_section(report.settings),
            Section(
                "data",
                "Data",
                _facts_table(
                    "Data of this run", _in_words({"symbol": report.symbol} | report.data)
                ),
            ),
            run_section(report.run),
        ],
        charts,
    )


class Section(NamedTuple):
    """A part of the page."""

    name: str
    """Its id."""
    label: str
    """In the list of sections."""
    body: str
    """HTML."""
    heading: str | None = None
    """Where it is not the label."""


def render_page(title: str, intro: str, sections: list[Section], charts: list[Chart]) -> str:
    """A page of sections; `intro` is HTML, and charts are drawn where a section names them."""
    from plotly.offline import get_plotlyjs

    figures = [{"name": chart.name, "data": chart.data, "layout": chart.layout} for chart in charts]
    links = "\n".join(f'<li><a href="#{s.name}">{s.label}</a></li>' for s in sections)
    return Template((_FOLDER / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        intro=intro,
        skip=f"Skip to the {sections[0].label.lower()}",
        nav=f"<ul>\n{links}\n</ul>",
        sections="\n".join(_section(section) for section in sections),
        style=(_FOLDER / "page.css").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        figures=_script_json(figures),
    )


def _section(section: Section) -> str:
    heading = f"{section.name.removesuffix('-section')}-heading"
    return f"""<section id="{section.name}" aria-labelledby="{heading}">
<h2 id="{heading}">{section.heading or section.label}</h2>
{section.body}
</section>"""


def learning_section(charts: list[Chart]) -> Section:
    """Those of `charts` that show learning."""
    drawn = [figure(chart) for chart in charts if chart.name in ("learning", "updates")]
    return Section(
        "learning-section",
        "Learning",
        "\n".join(drawn) or "<p>No learning curve was logged.</p>",
    )


def settings_section(settings: dict[str, dict[str, Any]]) -> Section:
    """Args: settings: section -> option -> value."""
    tables = [
        _facts_table(f"Options of {section}", options) for section, options in settings.items()
    ]
    body = "\n".join(tables) or "<p>No settings were recorded.</p>"
    return Section("settings", "Settings", f'<div class="columns">\n{body}\n</div>')


def run_section(run: dict[str, Any]) -> Section:
    """Command, versions, seed, speed."""
    return Section("reproduce", "Reproduce", _run(run), heading="How to reproduce this")


def summary(report: Report) -> dict[str, Any]:
    """The figures of the page for programs: plain JSON, with None where one is not defined."""
    verdict = report.verdict
    stamps = report.backtest.policy.timestamps
    return _plain(
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
            "posterior": None if report.posterior is None else asdict(report.posterior),
            "data": report.data,
            "run": report.run,
        }
    )


_DATE = re.compile(r"\d{4}-\d\d-\d\d")  # symbols may be numbers too

NO_SCRIPT = (
    "<noscript><p>The charts need JavaScript; their captions and the table say the same in words."
    "</p></noscript>"
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


def _verdict(verdict: Verdict) -> str:
    return "\n".join(
        [
            f'<p><span class="badge {verdict.grade}">{_BADGES[verdict.grade]}</span></p>',
            f'<p class="headline">{escape(verdict.headline)}</p>',
            _list(verdict.sentences),
            "<h3>How the grade is decided</h3>",
            f"<p>{escape(verdict.rule)}</p>",
            "<h3>What this does not show</h3>",
            _list(verdict.caveats),
        ]
    )


def figure(chart: Chart) -> str:
    name = escape(chart.name)
    label = escape(f"Chart: {chart.title}. {chart.summary}")
    toggle = (
        f'<button type="button" data-log="{name}" aria-pressed="false">Logarithmic scale</button>'
        if chart.log_toggle
        else ""
    )
    return f"""<figure>
<div class="above"><h3>{escape(chart.title)}</h3>{toggle}</div>
<div class="chart" id="{name}" role="img" aria-label="{label}" style="height:{chart.height}px">
</div>
<figcaption>{escape(chart.summary)}</figcaption>
</figure>"""


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
    names = "".join(f'<th scope="col">{escape(NAMES.get(n, n))}</th>' for n in curves)
    rows = []
    for name, (label, form, meaning) in _FIGURES.items():
        cells = "".join(f"<td>{_metric(curve, name, form)}</td>" for curve in curves.values())
        head = f'<th scope="row">{label} <small>{meaning}</small></th>'
        rows.append(f"<tr>{head}{cells}</tr>")
    return f"""<div class="scroll" role="region" aria-label="Table of figures" tabindex="0">
<table class="numbers">
<caption><span>Figures of the test span. Gross: the policy's orders without costs.</span></caption>
<thead><tr><th scope="col">Figure</th>{names}</tr></thead>
<tbody>
{chr(10).join(rows)}
</tbody>
</table>
</div>"""


def _metric(curve: Curve, name: str, form: str) -> str:
    value = {"final_net_worth": curve.net_worth[-1], **curve.metrics.as_dict()}[name]
    if value is None or not math.isfinite(value):
        return '<span title="not defined">n/a</span>'
    return f"{value:{form}}"


def _posterior(report: Report) -> str:
    posterior = report.posterior
    if posterior is None:
        why = "It was skipped on request." if report.posterior_skipped else "It was not computed."
        return f"<p>{why}</p>"
    parts = []
    if posterior.note:
        parts.append(f"<p>{escape(posterior.note)}</p>")
    facts: dict[str, Any] = {}
    if posterior.sharpe_mean is not None and posterior.sharpe_interval is not None:
        low, high = posterior.sharpe_interval
        facts["Sharpe ratio, mean"] = f"{posterior.sharpe_mean:.2f}"
        facts["Sharpe ratio, 90% interval"] = f"{low:.2f} to {high:.2f}"
        facts["Probability that the Sharpe ratio is above 0"] = f"{posterior.p_positive:.1%}"
    if posterior.excess_mean is not None and posterior.excess_interval is not None:
        low, high = posterior.excess_interval
        facts["Excess over the benchmark, mean a year"] = f"{posterior.excess_mean:.1%}"
        facts["Excess over the benchmark, 90% interval"] = f"{low:.1%} to {high:.1%}"
        facts["Probability that the excess is above 0"] = f"{posterior.p_beats_benchmark:.1%}"
    if facts:
        parts.append(_facts_table("True values, given the test returns", facts))
    if posterior.r_hat is not None:
        parts.append(
            f"<p>Sampling: {posterior.draws:,} draws, R-hat {posterior.r_hat:.3f}, "
            f"{posterior.divergences} divergences.</p>"
            "<p>The model: returns are independent with Student-t tails; mean ~ Normal(0, 0.01) a "
            "bar, scale ~ HalfCauchy(1), degrees of freedom above 2 ~ Exponential(mean 10). Bars "
            "on which next to nothing was held are counted apart. Rare large losses count as "
            "outliers, so this can be kinder than the bootstrap intervals of the verdict, which "
            "count them in full. Neither knows how many settings were tried.</p>"
        )
    return "\n".join(parts)


def _run(run: dict[str, Any]) -> str:
    run = dict(run)
    command, versions = run.pop("command", None), run.pop("versions", None)
    parts = []
    if command:
        text = shlex.join(map(str, command)) if isinstance(command, list | tuple) else str(command)
        parts.append(
            '<pre tabindex="0" role="region" aria-label="Command">'
            f"<code>{escape(text)}</code></pre>"
        )
    if run:
        parts.append(_facts_table("The run", _in_words(run)))
    if isinstance(versions, dict):
        parts.append(_facts_table("Versions", versions))
    return "\n".join(parts) or "<p>Nothing was recorded about the run.</p>"


def _facts_table(caption: str, facts: dict[str, Any]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(_text(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table>\n<caption>{escape(caption)}</caption>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _in_words(facts: dict[str, Any]) -> dict[str, Any]:
    """Names without underscores; those of options stay, since one types them."""
    return {str(name).replace("_", " "): value for name, value in facts.items()}


def _list(texts: tuple[str, ...]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(text)}</li>" for text in texts) + "\n</ul>"


def _text(value: Any) -> str:
    """A plain value in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:,.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        dates = len(value) == 2 and all(isinstance(v, str) and _DATE.match(v) for v in value)
        return (" to " if dates else ", ").join(_text(inner) for inner in value) or "none"
    return str(value).removesuffix("T00:00:00")


def _plain(value: Any) -> Any:
    """Only what strict JSON knows."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _script_json(value: Any) -> str:
    """JSON that can stand inside a script element: nothing in it ends the element."""
    text = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
