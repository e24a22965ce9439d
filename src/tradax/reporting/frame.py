"""What every page of the program is made of: one HTML file that holds everything it shows."""

import json
import math
import re
import shlex
from html import escape, unescape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np

from tradax.reporting.charts import Chart
from tradax.reporting.plotly_js import plotly_script

_FOLDER = Path(__file__).parent
MOST_POINTS_IN_WORDS = 20
"""Rows of a table that stands beside a chart."""


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


class Part(NamedTuple):
    """An analysis: its section and charts on the page, and its entries in summary.json."""

    section: Section
    charts: list[Chart]
    summary: dict[str, Any]


def render_page(title: str, intro: str, sections: list[Section], charts: list[Chart]) -> str:
    """A page of sections; `intro` is HTML, and charts are drawn where a section names them."""
    links = "\n".join(f'<li><a href="#{s.name}">{s.label}</a></li>' for s in sections)
    return Template((_FOLDER / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        intro=intro,
        skip=f"Skip to the {sections[0].label.lower()}",
        nav=f"<ul>\n{links}\n</ul>",
        sections="\n".join(_section(section) for section in sections),
        style=(_FOLDER / "page.css").read_text(encoding="utf-8"),
        plotly=plotly_script(),
        figures=script_json(_drawn_from(charts)),
    )


def _drawn_from(charts: list[Chart]) -> dict[str, Any]:
    """What the page's script draws. Lines of a chart mostly share their x: it is kept once."""
    shared: list[list[Any]] = []
    known: dict[str, int] = {}  # x as JSON -> its place
    figures = []
    for chart in charts:
        traces = []
        for trace in chart.data:
            if isinstance(x := trace.get("x"), list):
                place = known.setdefault(json.dumps(plain(x)), len(shared))
                if place == len(shared):
                    shared.append(x)
                trace = trace | {"x": place}
            traces.append(trace)
        figures.append({"name": chart.name, "data": traces, "layout": chart.layout})
    return {"shared": shared, "figures": figures}


def _section(section: Section) -> str:
    heading = f"{section.name.removesuffix('-section')}-heading"
    return f"""<section id="{section.name}" aria-labelledby="{heading}">
<h2 id="{heading}">{section.heading or section.label}</h2>
{section.body}
</section>"""


def figure(chart: Chart) -> str:
    name = escape(chart.name)
    label = escape(f"Chart: {chart.title}. {chart.summary}")
    toggle = (
        f'<button type="button" data-log="{name}" aria-pressed="false">Logarithmic scale</button>'
        if chart.log_toggle
        else ""
    )
    # On a phone the legend has a line for every name, for which the chart is made higher.
    names = sum(trace.get("showlegend", True) for trace in chart.data)
    on_a_phone = chart.height + (18 * names if names > 3 else 0)
    return f"""<figure>
<div class="above"><h3>{escape(chart.title)}</h3>{toggle}</div>
<div class="chart" id="{name}" role="img" aria-label="{label}" \
style="--height:{chart.height}px;--on-a-phone:{on_a_phone}px">
</div>
<figcaption>{escape(chart.summary)}</figcaption>
</figure>"""


class Row(NamedTuple):
    """A line of `numbers_table`."""

    name: str
    cells: list[str]
    """Plain text."""
    meaning: str = ""


def numbers_table(caption: str, head: list[str], rows: list[Row], *, tall: bool = False) -> str:
    """A wide table that scrolls by itself; `head` names the first column too. Plain text.

    Args: tall: it has many rows, and scrolls up and down as well; paper shows the first of them.
    """
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = []
    for row in rows:
        meaning = f" <small>{escape(row.meaning)}</small>" if row.meaning else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row.cells)
        lines.append(f'<tr><th scope="row">{escape(row.name)}{meaning}</th>{cells}</tr>')
    kind = "scroll tall" if tall else "scroll"
    return f"""<div class="{kind}" role="region" aria-label="{escape(caption)}" tabindex="0">
<table class="numbers">
<caption><span>{escape(caption)}</span></caption>
<thead><tr>{names}</tr></thead>
<tbody>
{chr(10).join(lines)}
</tbody>
</table>
</div>"""


def points_table(chart: Chart, first: str) -> str:
    """Points of a chart's lines as a table that unfolds: those that all lines have, if any.

    Args: first: name of the first column, what the lines are drawn against.
    """
    lines = {unescape(t["name"]): dict(zip(t["x"], t["y"], strict=True)) for t in chart.data}
    of_all = set.intersection(*map(set, lines.values()))
    x = sorted(of_all if len(of_all) > 1 else set().union(*lines.values()))
    at = [x[i] for i in np.unique(np.linspace(0, len(x) - 1, MOST_POINTS_IN_WORDS).astype(int))]
    rows = [
        Row(
            text(point),
            [f"{y:.4g}" if (y := line.get(point)) is not None else "–" for line in lines.values()],
        )
        for point in at
    ]
    count = f"{len(at)} of the {len(x):,} points" if len(at) < len(x) else "the points"
    table = numbers_table(f"{chart.title}: {count} in numbers.", [first, *lines], rows)
    return f"<details>\n<summary>{escape(chart.title)} in numbers</summary>\n{table}\n</details>"


def facts_table(caption: str, facts: dict[str, Any]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(text(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table>\n<caption>{escape(caption)}</caption>\n<tbody>\n{rows}\n</tbody>\n</table>"


def learning_section(charts: list[Chart]) -> Section:
    """Those of `charts` that show learning."""
    drawn = [
        figure(chart) + points_table(chart, "Timesteps")
        for chart in charts
        if chart.name in ("learning", "updates")
    ]
    return Section(
        "learning-section",
        "Learning",
        "\n".join(drawn) or "<p>No learning curve was logged.</p>",
    )


def settings_section(settings: dict[str, dict[str, Any]]) -> Section:
    """Args: settings: section -> option -> value."""
    tables = [
        facts_table(f"Options of {section}", options) for section, options in settings.items()
    ]
    body = "\n".join(tables) or "<p>No settings were recorded.</p>"
    return Section("settings", "Settings", f'<div class="columns">\n{body}\n</div>')


def run_section(run: dict[str, Any]) -> Section:
    """Command, versions, seed, speed."""
    return Section("reproduce", "Reproduce", _run(run), heading="How to reproduce this")


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
        parts.append(facts_table("The run", in_words(run)))
    if isinstance(versions, dict):
        parts.append(facts_table("Versions", versions))
    return "\n".join(parts) or "<p>Nothing was recorded about the run.</p>"


def in_words(facts: dict[str, Any]) -> dict[str, Any]:
    """Names without underscores; those of options stay, since one types them."""
    return {str(name).replace("_", " "): value for name, value in facts.items()}


def items(texts: tuple[str, ...]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(text)}</li>" for text in texts) + "\n</ul>"


def text(value: Any) -> str:
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
        return ", ".join(f"{name}: {text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        dates = len(value) == 2 and all(isinstance(v, str) and _DATE.match(v) for v in value)
        return (" to " if dates else ", ").join(text(inner) for inner in value) or "none"
    return str(value).removesuffix("T00:00:00")


def number(value: float) -> str:
    """Six digits, but large ones in full."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.6g}"


def plain(value: Any) -> Any:
    """Only what strict JSON knows."""
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def script_json(value: Any) -> str:
    """JSON that can stand inside a script element: nothing in it ends the element."""
    text = json.dumps(plain(value), allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


NO_SCRIPT = (
    "<noscript><p>The charts need JavaScript; their captions and the table say the same in words."
    "</p></noscript>"
)


_DATE = re.compile(r"\d{4}-\d\d-\d\d")  # symbols may be numbers too
