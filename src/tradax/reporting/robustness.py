"""Costs, delays, years, regimes and controls on the page."""

from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np

from tradax.evaluation.robustness import (
    COSTS_BPS,
    BreakEven,
    Copies,
    Copy,
    Robustness,
    to_plain,
)
from tradax.reporting.charts import BLUE, GREY, INK, VERMILLION, Chart, line, plot_layout
from tradax.reporting.frame import Part, Row, Section, figure, numbers_table

KINDS = {
    "shuffled": ("Shuffled", "The real bars in another order."),
    "noise": ("Noise", "A random walk with the real mean and deviation."),
}


def robustness_part(found: Robustness, real: Copy, controls: Copies | None) -> Part:
    """Args: real: what the policy itself made of its test span."""
    chart = _chart(found)
    body = [
        figure(chart),
        f"<p>{escape(_break_even_words(found))}</p>",
        _costs(found),
        _delays(found),
        _periods(found),
        _regimes(found),
        _controls(real, controls),
    ]
    summary = to_plain(found) | {"controls": _controls_summary(real, controls)}
    return Part(
        Section("robustness", "Robustness", "\n".join(body)), [chart], {"robustness": summary}
    )


def above_words(real: Copy, controls: Copies) -> str:
    """Of how many copies the real excess is above."""
    counts = [
        f"{sum(real.excess > copy.excess for copy in controls[kind])} of {len(controls[kind])} "
        f"{kind}"
        for kind in KINDS
    ]
    return f"The real excess over buy-and-hold is above {counts[0]} and {counts[1]} copies."


def _chart(found: Robustness) -> Chart:
    bps = np.array([at.bps for at in found.costs])
    policy = np.array([at.policy.total_return for at in found.costs])
    hold = np.array([at.buy_and_hold.total_return for at in found.costs])
    layout = plot_layout(
        [], yaxis={"title": {"text": "Total return"}, "tickformat": ".0%", "hoverformat": ".1%"}
    )
    layout["xaxis"] |= {
        "title": {"text": "Cost one way, basis points"},
        "range": [float(bps[0]), float(bps[-1])],
    }
    layout["shapes"], layout["annotations"] = [], []
    for height, against, until in (
        (1.0, "buy and hold", found.beats_hold_until),
        (0.12, "cash", found.beats_cash_until),
    ):
        if until.bps is None:
            continue
        layout["shapes"].append(
            {"type": "line", "xref": "x", "yref": "paper", "x0": until.bps, "x1": until.bps}
            | {"y0": 0, "y1": 1, "line": {"color": GREY, "width": 1.5, "dash": "dash"}}
        )
        right = until.bps > 0.6 * bps[-1]
        layout["annotations"].append(
            {"x": until.bps, "xref": "x", "y": height, "yref": "paper", "showarrow": False}
            | {"text": f" as {against} at {until.words} bps ", "font": {"color": INK, "size": 12}}
            | {"xanchor": "right" if right else "left", "yanchor": "top"}
        )
    return Chart(
        "costs",
        "Total return at other costs",
        f"Total return over the test span: the policy from {policy[0]:.1%} without costs to "
        f"{policy[-1]:.1%} at {bps[-1]:.0f} basis points, buy and hold from {hold[0]:.1%} to "
        f"{hold[-1]:.1%}.",
        [
            line("Policy, net", bps.tolist(), policy, {"color": BLUE, "width": 2.5}),
            line("Buy and hold", bps.tolist(), hold, {"color": VERMILLION, "width": 2}),
        ],
        layout,
        340,
    )


def _break_even_words(found: Robustness) -> str:
    return (
        f"{_until(found.beats_hold_until, 'buy and hold at the same cost')} "
        f"{_until(found.beats_cash_until, 'cash')} Cost is one number here, a commission on what "
        "is traded, each way; half spread, impact and least commission are 0, and fills, stops and "
        "interest are as tested."
    )


def _until(found: BreakEven, other: str) -> str:
    if found.bps is not None:
        return f"The policy earned more than {other} up to {found.words} bps."
    if found.words.startswith("above"):
        return f"The policy earned more than {other} at every cost up to {COSTS_BPS[-1]} bps."
    if found.words.startswith("below"):
        return f"The policy earned less than {other} even without costs."
    return f"The policy earned as much as {other}, whatever the cost."


def _costs(found: Robustness) -> str:
    return _table(
        "The same policy at other costs",
        "What is left when trading is cheaper or dearer: policy / buy and hold.",
        ["Cost, bps", "Total return", "Sharpe", "Excess return"],
        [
            Row(
                f"{at.bps:g}",
                [
                    _pair(_percent, at.policy.total_return, at.buy_and_hold.total_return),
                    _pair(_ratio, at.policy.sharpe, at.buy_and_hold.sharpe),
                    _percent(at.excess),
                ],
            )
            for at in found.costs
            if at.bps in COSTS_BPS
        ],
    )


def _delays(found: Robustness) -> str:
    return _table(
        "Later orders",
        "Every order acts so many bars later, at the tested costs; a result that needs the very "
        "next bar is hard to trade.",
        ["Orders act", "Total return", "Sharpe", "Maximum drawdown"],
        [
            Row(
                f"{d.bars} bar{'s' * (d.bars > 1)} later" if d.bars else "as tested",
                [
                    _percent(d.policy.total_return),
                    _ratio(d.policy.sharpe),
                    _percent(d.policy.max_drawdown),
                ],
            )
            for d in found.delays
        ],
    )


def _periods(found: Robustness) -> str:
    return _table(
        "Parts of the test span",
        "Whether the result was earned throughout, or once: policy / buy and hold.",
        ["Part", "Bars", "Total return", "Sharpe", "Maximum drawdown"],
        [
            Row(
                part.name,
                [
                    f"{part.bars:,}",
                    _pair(_percent, part.policy.total_return, part.buy_and_hold.total_return),
                    _pair(_ratio, part.policy.sharpe, part.buy_and_hold.sharpe),
                    _pair(_percent, part.policy.max_drawdown, part.buy_and_hold.max_drawdown),
                ],
            )
            for part in found.periods
        ],
    )


def _regimes(found: Robustness) -> str:
    return _table(
        "Volatility regimes",
        "Thirds of the bars by the annualised volatility that was known before each, and what they "
        "earned, as a yearly rate: policy / buy and hold.",
        ["Volatility", "Bars", "Mean return", "Sharpe"],
        [
            Row(
                f"{r.name}, {_percent(r.low)} to {_percent(r.high)}",
                [
                    f"{r.bars:,}",
                    _pair(_percent, r.policy.annual_mean, r.buy_and_hold.annual_mean),
                    _pair(_ratio, r.policy.sharpe, r.buy_and_hold.sharpe),
                ],
            )
            for r in found.regimes
        ],
    )


def _controls(real: Copy, controls: Copies | None) -> str:
    if controls is None:
        return (
            "<h3>Controls</h3>\n<p>The same training on shuffled prices and on noise was not asked "
            "for; <code>tradax robustness RUN --controls 5</code> adds it.</p>"
        )
    cells = [_percent(real.total_return), _percent(real.excess), _ratio(real.sharpe)]
    rows = [Row("Real prices", cells)]
    for kind, (name, meaning) in KINDS.items():
        rows.append(Row(f"{name}, {len(controls[kind])}", _spread(controls[kind]), meaning))
    table = _table(
        "Controls: the same training on destroyed prices",
        "These copies have no pattern in time that could be found, so an excess there is luck: "
        "mean, and lowest to highest.",
        ["Prices", "Total return", "Excess over buy and hold", "Sharpe"],
        rows,
    )
    return f"{table}\n<p>{escape(above_words(real, controls))}</p>"


def _spread(copies: list[Copy]) -> list[str]:
    def cell(values: list[float], form: Callable[[float], str]) -> str:
        if not values:
            return "n/a"
        low, high = form(min(values)), form(max(values))
        return f"{form(float(np.mean(values)))} ({low} to {high})"

    return [
        cell([copy.total_return for copy in copies], _percent),
        cell([copy.excess for copy in copies], _percent),
        cell([copy.sharpe for copy in copies if copy.sharpe is not None], _ratio),
    ]


def _controls_summary(real: Copy, controls: Copies | None) -> dict | None:
    if controls is None:
        return None
    return {
        "real": real._asdict(),
        "copies": {kind: [copy._asdict() for copy in found] for kind, found in controls.items()},
        "statement": above_words(real, controls),
    }


def _table(heading: str, meaning: str, head: list[str], rows: list[Row]) -> str:
    return f"<h3>{escape(heading)}</h3>\n{numbers_table(meaning, head, rows)}"


def _pair(form: Callable[[Any], str], policy: float | None, buy_and_hold: float | None) -> str:
    return f"{form(policy)} / {form(buy_and_hold)}"


def _percent(value: float) -> str:
    return f"{round(value, 3) + 0.0:,.1%}"  # no -0.0%


def _ratio(value: float | None) -> str:
    return "n/a" if value is None else f"{round(value, 2) + 0.0:.2f}"
