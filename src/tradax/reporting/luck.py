"""Is it luck? Every statistic of the verdict on the page, with what each one says."""

import math
from typing import Any

from tradax.evaluation.evidence import LEAST_COMMON, LEAST_KEPT, LEVELS, Figure
from tradax.evaluation.verdict import Verdict
from tradax.reporting.charts import BLUE, INK, VERMILLION, Chart, plot_layout
from tradax.reporting.frame import Part, Row, Section, figure, numbers_table

_RATIOS = {
    "sharpe": "Sharpe ratio",
    "sharpe_difference": "Sharpe ratio less buy-and-hold's",
}
_FRACTIONS = {
    "annual_return": "Annual return",
    "excess_over_buy_and_hold": "Excess over buy-and-hold",
    "excess_over_cash": "Excess over cash",
    "max_drawdown": "Maximum drawdown",
}
_MEANINGS = {
    "sharpe": "Mean return over its standard deviation, a year.",
    "sharpe_difference": "Above 0: more return for its risk than buy-and-hold.",
    "annual_return": "Compound.",
    "excess_over_buy_and_hold": "Mean log return above buy-and-hold's, a year.",
    "excess_over_cash": "Mean log return above cash's, a year.",
    "max_drawdown": "Of drawdowns over as many bars; a drawdown has no one true value.",
}


def luck_part(verdict: Verdict) -> Part:
    """The section; its figures are among those of the verdict in summary.json already."""
    figures = verdict.figures
    chart = _chart(figures)
    body = [
        numbers_table("What chance explains", ["Statistic", "Value"], _tests(figures)),
        numbers_table(
            "Intervals by stationary block bootstrap",
            ["Figure", "Estimate", *(f"{level}%" for level in LEVELS)],
            _intervals(figures),
        ),
        *([] if chart is None else [figure(chart)]),
    ]
    section = Section("luck", "Luck", "\n".join(body), heading="Is it luck?")
    return Part(section, [] if chart is None else [chart], {})


def _tests(figures: dict[str, Figure]) -> list[Row]:
    tested, known = figures["test_span_used_times"], figures["trials"]
    counted = "The index of trials is turned off or cannot be read, so nothing is deflated."
    if isinstance(tested, float) and isinstance(known, float):
        counted = (
            f"{known:,.0f} known on these data, this one included; the test span was used "
            f"{tested:,.0f} time{'' if tested == 1 else 's'}, and that is what deflates."
        )
    return [
        Row(
            "Probabilistic Sharpe ratio",
            [_value(figures["probabilistic_sharpe"], ".3f")],
            "Confidence that the true Sharpe ratio is above 0, had nothing else been tried.",
        ),
        Row("Trials", [_value(known, ",.0f")], counted),
        Row(
            "Deflated Sharpe ratio",
            [_value(figures["deflated_sharpe"], ".3f")],
            "The same confidence if this is the best of all trials that were tested on this span.",
        ),
        Row(
            "Deflated excess over buy-and-hold",
            [_value(figures["deflated_excess_over_buy_and_hold"], ".3f")],
            "Confidence, after the same search, that the mean log return is above buy-and-hold's.",
        ),
        Row(
            "Deflated excess over cash",
            [_value(figures["deflated_excess_over_cash"], ".3f")],
            "And that it is above cash's.",
        ),
        _track_record(figures),
        Row(
            "Probability of backtest overfitting",
            [_value(figures["overfitting_probability"], ".1%")],
            _overfitting(figures),
        ),
        Row(
            "Superior ability, p-value",
            [_value(figures["superior_ability_p"], ".3f")],
            "Hansen's test against buy-and-hold: how often resampling with no true difference "
            "finds one as large.",
        ),
        Row(
            "Superior ability over every baseline, p-value",
            [_value(figures["superior_ability_p_every_baseline"], ".3f")],
            "The largest of the p-values against each baseline on this page.",
        ),
        Row(
            "Sharpe ratio with autocorrelation",
            [_value(figures["sharpe_with_autocorrelation"], ".2f")],
            f"Annual, allowing for returns that depend on those before; without that it is "
            f"{_value(figures['sharpe'], '.2f')}.",
        ),
        Row(
            "Block length",
            [_value(figures["block_length"], ",.0f") + " bars"],
            "Mean length of the stretches that are resampled together.",
        ),
    ]


def _track_record(figures: dict[str, Figure]) -> Row:
    name = "Minimum track record"
    needed, bars, years = (figures[n] for n in ("minimum_track_record", "bars", "years"))
    assert isinstance(bars, float)
    assert isinstance(years, float)
    if not isinstance(needed, float):
        return Row(name, ["none"], "No number of such bars shows a Sharpe ratio above 0.")
    has = "has that" if bars >= needed else "does not have that"
    return Row(
        name,
        [f"{math.ceil(needed):,} bars ({needed * years / bars:,.1f} years)"],
        "Needed before the Sharpe ratio is above 0 with 95% confidence, had nothing else been "
        f"tried; the span of {bars:,.0f} bars {has}.",
    )


def _overfitting(figures: dict[str, Figure]) -> str:
    meaning = (
        "Share of splits of the validation span in which the trial that was best on one half was "
        "no better than the median trial on the other; near 50% where the choice is luck."
    )
    kept, bars, known = (figures[n] for n in ("overfitting_trials", "overfitting_bars", "trials"))
    if not (isinstance(kept, float) and isinstance(bars, float) and isinstance(known, float)):
        return f"{meaning} Not known: the index of trials is turned off or cannot be read."
    has = f"{kept:,.0f} of the {known:,.0f} known trials have kept validation returns"
    if figures["overfitting_probability"] is not None:
        return f"{meaning} {has}, on {bars:,.0f} common bars."
    return (
        f"{meaning} Not computed: {has}{f', on {bars:,.0f} common bars' if kept else ''}; at least "
        f"{LEAST_KEPT} on {LEAST_COMMON} bars are needed."
    )


def _intervals(figures: dict[str, Figure]) -> list[Row]:
    rows = []
    for names, form in ((_RATIOS, ".2f"), (_FRACTIONS, ",.1%")):
        for name, label in names.items():
            ends = [figures[f"{name}_interval_{level}"] for level in LEVELS]
            cells = [_range(interval, form) for interval in ends]
            rows.append(Row(label, [_value(figures[name], form), *cells], _MEANINGS[name]))
    return rows


def _chart(figures: dict[str, Figure]) -> Chart | None:
    """Estimates as dots, intervals as bars, the widest thinnest; None without any."""
    panels = [
        {name: label for name, label in names.items() if _drawable(figures, name)}
        for names in (_RATIOS, _FRACTIONS)
    ]
    if not all(panels):
        return None
    layout = plot_layout([])
    layout |= {"hovermode": "closest", "showlegend": True, "shapes": []}
    data: list[dict[str, Any]] = []
    # Both panels get room by their number of lines.
    domains, forms = ([0.74, 1.0], [0.0, 0.6]), (".2f", ".0%")
    for index, (names, domain, form) in enumerate(zip(panels, domains, forms, strict=True)):
        axis = "" if index == 0 else "2"
        place = {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "showlegend": index == 0}
        labels = list(names.values())
        for level, width in zip(LEVELS, (9, 5, 2), strict=True):
            x, y = [], []
            for name, label in names.items():
                ends = figures[f"{name}_interval_{level}"]
                assert isinstance(ends, list)
                x += [*ends, None]
                y += [label, label, None]
            line = {"color": BLUE, "width": width}
            given = {"type": "scatter", "mode": "lines", "name": f"{level}% interval", "line": line}
            data.append(given | {"x": x, "y": y, "opacity": 0.45} | place)
        dots = {"color": VERMILLION, "size": 9, "line": {"color": INK, "width": 1}}
        given = {"type": "scatter", "mode": "markers", "name": "Estimate", "marker": dots}
        data.append(given | {"x": [figures[name] for name in names], "y": labels} | place)
        across = dict(layout["xaxis"]) | {
            "tickformat": form,
            "anchor": f"y{axis}",
            "zeroline": True,
        }
        layout[f"xaxis{axis}"] = across | {"zerolinewidth": 2, "zerolinecolor": INK}
        order = {"categoryorder": "array", "categoryarray": labels[::-1], "fixedrange": True}
        layout[f"yaxis{axis}"] = dict(layout["yaxis"]) | order | {"domain": domain}
        layout[f"yaxis{axis}"]["anchor"] = f"x{axis}"
    above = [
        label
        for names in panels
        for name, label in names.items()
        if name != "max_drawdown" and _low(figures[f"{name}_interval_95"]) > 0.0
    ]
    summary = (
        "Dots are estimates; bars hold 90%, 95% and 99% of the resampled figures, and the line is "
        f"0. The 95% interval lies above 0 for: {', '.join(above) if above else 'none'}."
    )
    return Chart("intervals", "Intervals against 0", summary, data, layout, 420)


def _drawable(figures: dict[str, Figure], name: str) -> bool:
    return all(isinstance(figures[f"{name}_interval_{level}"], list) for level in LEVELS)


def _low(interval: Figure) -> float:
    return interval[0] if isinstance(interval, list) else math.nan


def _range(interval: Figure, form: str) -> str:
    if not isinstance(interval, list):
        return "n/a"
    return f"{interval[0]:{form}} to {interval[1]:{form}}"


def _value(value: Figure, form: str) -> str:
    return f"{value:{form}}" if isinstance(value, int | float) else "n/a"
