"""The posterior on the page."""

from dataclasses import asdict
from html import escape
from typing import Any

import numpy as np

from tradax.evaluation.posterior import Posterior
from tradax.reporting.charts import BLUE, GREY, INK, NAMES, VERMILLION, Chart, line, plot_layout
from tradax.reporting.frame import Part, Section, facts_table, figure


def posterior_part(posterior: Posterior | None, *, skipped: bool) -> Part:
    """Its figures; without one, why there is none."""
    charts = [] if posterior is None else _charts(posterior)
    body = _body(posterior, charts, skipped)
    figures = None
    if posterior is not None:
        figures = asdict(posterior)
        del figures["density"]  # a drawing, not a figure
    return Part(
        Section("posterior", "Posterior", body, heading="Posterior of the Sharpe ratio"),
        charts,
        {"posterior": figures},
    )


def _body(posterior: Posterior | None, charts: list[Chart], skipped: bool) -> str:
    if posterior is None:
        why = (
            "It was skipped on request. <code>tradax posterior RUN</code> adds it."
            if skipped
            else "It was not computed."
        )
        return f"<p>{why}</p>"
    parts = []
    if posterior.note:
        parts.append(f"<p>{escape(posterior.note)}</p>")
    if facts := _facts(posterior):
        parts.append(facts_table("True values, given the test returns", facts))
        parts.append(f"<p>{_MEANING}</p>")
    parts += [figure(chart) for chart in charts]
    if posterior.r_hat is not None:
        parts.append(
            f"<p>Sampling: {posterior.draws:,} draws, R-hat {posterior.r_hat:.3f}, "
            f"{posterior.divergences} divergences.</p><p>{_MODEL}"
            + (_NORMAL_RETURNS if posterior.tails == "normal" else "")
            + (_NORMAL if posterior.residuals == "normal" else "")
            + "</p>"
        )
    return "\n".join(parts)


_MEANING = (
    "A year's figures are means of a bar times the bars of a year. Beta is the average exposure "
    "to buy-and-hold over all bars, those out of the market included; alpha is the mean return "
    "that this exposure does not explain. The excess is above 0 where the strategy's mean return "
    "is above that of buy-and-hold, whatever the risk."
)
_MODEL = (
    "The model: bars are independent; the benchmark's returns have Student-t tails, apart for the "
    "bars on which something was held and for the others; on bars on which something was held the "
    "strategy returns alpha plus beta times the benchmark plus a residual. Means ~ Normal(0, 0.01) "
    "a bar, degrees of freedom above 2 ~ Exponential(mean 10). Rare large losses count as "
    "outliers, so this can be kinder than the bootstrap intervals of the verdict, which count them "
    "in full. Neither knows how many settings were tried."
)
_NORMAL_RETURNS = (
    " Here the returns are taken as normal: a Student-t, which is symmetric, would misstate their "
    "mean."
)
_NORMAL = (
    " The residuals are taken as normal, since a Student-t would count rare costs and changes of "
    "position as outliers."
)


def _facts(posterior: Posterior) -> dict[str, Any]:
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
    if posterior.alpha_mean is not None and posterior.alpha_interval is not None:
        low, high = posterior.alpha_interval
        facts["Alpha against buy-and-hold, mean a year"] = f"{posterior.alpha_mean:.1%}"
        facts["Alpha, 90% interval"] = f"{low:.1%} to {high:.1%}"
        facts["Probability that alpha is above 0"] = f"{posterior.p_alpha_positive:.1%}"
    if posterior.beta_mean is not None and posterior.beta_interval is not None:
        low, high = posterior.beta_interval
        facts["Beta against buy-and-hold, mean"] = f"{posterior.beta_mean:.2f}"
        facts["Beta, 90% interval"] = f"{low:.2f} to {high:.2f}"
    return facts


def _charts(posterior: Posterior) -> list[Chart]:
    charts = []
    if posterior.density and posterior.sharpe_interval is not None:
        charts.append(_density(posterior))
    if posterior.cone is not None:
        charts.append(_cone(posterior))
    return charts


def _density(posterior: Posterior) -> Chart:
    assert posterior.sharpe_interval is not None
    low, high = posterior.sharpe_interval
    at, density = np.array(posterior.density).T
    inside = (at >= low) & (at <= high)
    # The area ends where the interval does, not at the nearest point.
    edges = np.interp([low, high], at, density)
    area_at = np.concatenate([[low], at[inside], [high]])
    area = np.concatenate([edges[:1], density[inside], edges[1:]])
    filled = line("90% interval", area_at.tolist(), area, {"color": BLUE, "width": 0})
    filled |= {"fill": "tozeroy", "fillcolor": "rgba(0, 114, 178, 0.25)", "hoverinfo": "skip"}
    curve = line("Density", at.tolist(), density, {"color": BLUE, "width": 2.5})
    layout = plot_layout([], yaxis={"title": {"text": "Density"}, "rangemode": "tozero"})
    span = [min(float(at[0]), 0.0), max(float(at[-1]), 0.0)]
    margin = 0.02 * (span[1] - span[0])
    layout["xaxis"] |= {
        "title": {"text": "Sharpe ratio, annual"},
        "range": [span[0] - margin, span[1] + margin],
    }
    layout["shapes"] = [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": 0,
            "x1": 0,
            "y0": 0,
            "y1": 1,
            "line": {"color": INK, "width": 1.5, "dash": "dash"},
        }
    ]
    return Chart(
        "sharpe-posterior",
        "How large the Sharpe ratio may be",
        f"The area is the 90% interval, {low:.2f} to {high:.2f}; to the right of the dashed line "
        f"at 0 lies {posterior.p_positive:.1%} of the probability.",
        [filled, curve],
        layout,
        320,
    )


def _cone(posterior: Posterior) -> Chart:
    cone = posterior.cone
    assert cone is not None
    months = (12.0 * np.array(cone.year)).tolist()
    of = {int(q): np.array(values) for q, values in cone.policy.items()}
    data = []
    for outer, inner, name, opacity in ((5, 95, "90%", 0.15), (25, 75, "50%", 0.3)):
        below = line(name, months, of[outer], {"color": BLUE, "width": 0})
        above = line(f"Policy, {name} of the paths", months, of[inner], {"color": BLUE, "width": 0})
        data.append(below | {"showlegend": False, "hoverinfo": "skip"})
        fill = {"fill": "tonexty", "fillcolor": f"rgba(0, 114, 178, {opacity})"}
        data.append(above | fill | {"hoverinfo": "skip"})
    data.append(line("Policy, median", months, of[50], {"color": BLUE, "width": 2.5}))
    also = ""
    if cone.benchmark_median is not None:
        median = np.array(cone.benchmark_median)
        style = {"color": VERMILLION, "width": 2, "dash": "dash"}
        data.append(line(f"{NAMES['buy_and_hold']}, median", months, median, style))
        also = f"; the median of buy and hold is {median[-1]:.2f}"
    layout = plot_layout([], yaxis={"title": {"text": "Growth of 1"}})
    layout["xaxis"] |= {"title": {"text": "Months ahead"}, "range": [0, 12], "dtick": 3}
    layout["shapes"] = [
        {
            "type": "line",
            "xref": "paper",
            "yref": "y",
            "x0": 0,
            "x1": 1,
            "y0": 1,
            "y1": 1,
            "line": {"color": GREY, "width": 1, "dash": "dot"},
        }
    ]
    end = {q: values[-1] for q, values in of.items()}
    return Chart(
        "cone",
        "What the next year may bring",
        "If the future is like the test, 1 becomes after a year, in the median of the paths that "
        f"the model draws, {end[50]:.2f}; in half of them {end[25]:.2f} to {end[75]:.2f}, in 90% "
        f"{end[5]:.2f} to {end[95]:.2f}{also}.",
        data,
        layout,
        360,
    )
