"""The page of a run on a market that simulates its prices: figures beside those of known rules."""

from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from tradax.files import write_atomic
from tradax.reporting.charts import COLORS, Chart, learning_charts, line, plot_layout
from tradax.reporting.frame import (
    NO_SCRIPT,
    Row,
    Section,
    figure,
    learning_section,
    number,
    numbers_table,
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
    left = trajectories(results)
    charts = trajectory_charts(left)
    learned = learning_charts(learning)
    paths = next(iter(results.values())).paths
    sections = [
        Section("figures-section", "Figures", figures_table(results)),
        learning_section(learned),
        settings_section(settings),
        run_section(run),
    ]
    if charts:
        drawn = "\n".join([NO_SCRIPT, *map(figure, charts), *_trajectory_tables(left)])
        sections.insert(1, Section("test", "Trajectories", drawn))
    intro = f"Every strategy on the same {paths:,} simulated paths, which training did not see."
    write_atomic(path, render_page(title, intro, sections, charts + learned))


def figures_table(results: dict[str, Any]) -> str:
    """Every number of the results, one strategy a column."""
    first = vars(next(iter(results.values())))
    numbers = [name for name, value in first.items() if isinstance(value, int | float)]
    return numbers_table(
        "Figures of all strategies on the same paths.",
        ["Figure", *map(_in_words, results)],
        [
            Row(_in_words(name), [number(getattr(result, name)) for result in results.values()])
            for name in numbers
        ],
    )


def _in_words(name: str) -> str:
    return _NAMES.get(name) or name.replace("_", " ").capitalize()


_NAMES = {
    "twap": "TWAP",
    "vwap": "VWAP",
    "almgren_chriss": "Almgren–Chriss",
    "avellaneda_stoikov": "Avellaneda–Stoikov",
    "sd": "Standard deviation",
    "bps": "Shortfall, bps",
}


def trajectories(results: dict[str, Any]) -> dict[str, np.ndarray]:
    """Strategy -> shares left [N + 1, assets]. Empty where nothing is sold."""
    return {
        _in_words(name): np.asarray(result.trajectory, float).reshape(len(result.trajectory), -1)
        for name, result in results.items()
        if hasattr(result, "trajectory")
    }


def trajectory_charts(left: dict[str, np.ndarray]) -> list[Chart]:
    """One an asset; args as `trajectories` returns them."""
    assets = next(iter(left.values())).shape[1] if left else 0
    return [_trajectory_chart(left, asset, _of_asset(asset, assets)) for asset in range(assets)]


def _trajectory_chart(left: dict[str, np.ndarray], asset: int, which: str) -> Chart:
    lines = []
    for index, (name, shares) in enumerate(left.items()):
        style = {"color": COLORS[index % len(COLORS)], "width": 1.5 if index else 3}
        if index:  # several may lie on each other
            style["dash"] = _DASHES[index % len(_DASHES)]
        lines.append(line(escape(name), list(range(len(shares))), shares[:, asset], style))
    steps = len(next(iter(left.values()))) - 1
    middle = (steps + 1) // 2
    halves = ", ".join(f"{name} {shares[middle, asset]:,.0f}" for name, shares in left.items())
    layout = plot_layout(
        [], yaxis={"title": {"text": "Shares left"}}, xaxis={"title": {"text": "Step"}}
    )
    return Chart(
        f"trajectory-{asset}",
        f"Shares left{which}",
        f"Mean shares{which} that are left after each step; after {middle} of {steps}: {halves}.",
        lines,
        layout,
        360,
    )


def _trajectory_tables(left: dict[str, np.ndarray]) -> list[str]:
    """The charts' numbers."""
    assets = next(iter(left.values())).shape[1] if left else 0
    return [
        numbers_table(
            f"Mean shares{_of_asset(asset, assets)} that are left after each step.",
            ["Step", *left],
            [
                Row(str(step), [f"{shares[step, asset]:,.0f}" for shares in left.values()])
                for step in range(len(next(iter(left.values()))))
            ],
            tall=True,
        )
        for asset in range(assets)
    ]


def _of_asset(asset: int, assets: int) -> str:
    return f" of asset {asset + 1}" if assets > 1 else ""


_DASHES = ("solid", "dash", "dot", "longdash", "dashdot", "longdashdot")
