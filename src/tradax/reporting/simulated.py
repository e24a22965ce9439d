"""The page of a run on a market that simulates its prices: figures beside those of known rules."""

from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from tradax.files import write_atomic
from tradax.reporting.charts import COLORS, Chart, learning_charts, line, plot_layout
from tradax.reporting.frame import (
    NO_SCRIPT,
    Section,
    figure,
    learning_section,
    number,
    render_page,
    run_section,
    settings_section,
)


def write_simulated(
    path: Path | str,
    title: str,
    results: dict[str, Any],
    *,
    learning: list[dict[str, Any]],
    settings: dict[str, dict[str, Any]],
    run: dict[str, Any],
) -> None:
    """Write the page in one go.

    Args:
        results: strategy -> what the market's `assess` said of it. Numbers become a table, and a
            `trajectory` (shares left after each step, [N + 1] or [N + 1, assets]) a chart.
        learning: rows of metrics.jsonl.
    """
    charts = trajectory_charts(results)
    learned = learning_charts(learning)
    paths = next(iter(results.values())).paths
    sections = [
        Section("figures-section", "Figures", figures_table(results)),
        learning_section(learned),
        settings_section(settings),
        run_section(run),
    ]
    if charts:
        drawn = "\n".join([NO_SCRIPT, *(figure(chart) for chart in charts)])
        sections.insert(1, Section("test", "Trajectories", drawn))
    intro = f"Every strategy on the same {paths:,} simulated paths, which training did not see."
    write_atomic(path, render_page(title, intro, sections, charts + learned))


def figures_table(results: dict[str, Any]) -> str:
    """Every number of the results, one strategy a column."""
    names = [escape(name.replace("_", " ")) for name in results]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    first = vars(next(iter(results.values())))
    numbers = [name for name, value in first.items() if isinstance(value, int | float)]
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name.replace("_", " "))}</th>'
        + "".join(f"<td>{number(getattr(result, name))}</td>" for result in results.values())
        + "</tr>"
        for name in numbers
    )
    return f"""<div class="scroll" tabindex="0" role="region" aria-label="Figures">
<table class="numbers">
<thead><tr><th scope="col">Figure</th>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>"""


def trajectory_charts(results: dict[str, Any]) -> list[Chart]:
    """What is left to sell, by strategy; one chart an asset. None where nothing is sold."""
    trajectories = {
        name: np.asarray(result.trajectory, float).reshape(len(result.trajectory), -1)
        for name, result in results.items()
        if hasattr(result, "trajectory")
    }
    if not trajectories:
        return []
    charts = []
    assets = next(iter(trajectories.values())).shape[1]
    for asset in range(assets):
        lines = []
        for (name, left), color in zip(trajectories.items(), cycle(COLORS), strict=False):
            style = {"color": color, "width": 3 if name == "policy" else 1.5}
            steps = list(range(len(left)))
            lines.append(line(name.replace("_", " "), steps, left[:, asset], style))
        halves = ", ".join(
            f"{name.replace('_', ' ')} {left[len(left) // 2, asset]:,.0f}"
            for name, left in trajectories.items()
        )
        which = f" of asset {asset + 1}" if assets > 1 else ""
        charts.append(
            Chart(
                f"trajectory-{asset}",
                f"Shares left{which}",
                f"Mean shares{which} that are left after each step; half-way: {halves}.",
                lines,
                plot_layout(
                    [], yaxis={"title": {"text": "Shares left"}}, xaxis={"title": {"text": "Step"}}
                ),
                360,
            )
        )
    return charts
