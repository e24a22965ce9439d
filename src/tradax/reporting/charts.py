"""The page's charts, as plotly.js wants them: plain dictionaries of traces and a layout."""

import math
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from tradax.evaluation.backtest import Backtest, Curve

MOST_POINTS = 3000
"""Longer series are thinned to this many bars."""
MOST_MARKERS = 800
"""Of more trades so many are marked: markers draw slowly, and more would hide the price."""

# Of Okabe and Ito's palette, which colour-blind readers can tell apart, those that stand out on
# white (3 to 1 at least). Dashes say the same again.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY, INK, GRID = "#595959", "#1a1a1a", "#e3e3e3"
WINE, INDIGO, BROWN = "#882255", "#332288", "#8a5a00"
# For areas, which need less contrast than lines: all of the palette but its black and yellow.
AREAS = (BLUE, "#E69F00", GREEN, "#CC79A7", VERMILLION, "#56B4E9", INDIGO, BROWN)

COLORS = (BLUE, VERMILLION, GREEN, WINE, INDIGO, BROWN, GREY, INK)

NAMES = {
    "policy": "Policy, net",
    "gross": "Policy, gross",
    "buy_and_hold": "Buy and hold",
    "cash": "Cash",
    "random": "Random actions",
    "equal_weight": "Equal weight",
    "minimum_variance": "Minimum variance",
    "mean_variance": "Mean-variance",
}
_LINES = {
    "policy": {"color": BLUE, "width": 2.5},
    "gross": {"color": BLUE, "width": 1.5, "dash": "dash"},
    "buy_and_hold": {"color": VERMILLION, "width": 2},
    "cash": {"color": GREY, "width": 1.5, "dash": "dot"},
    "random": {"color": GREEN, "width": 1.5, "dash": "dashdot"},
    "equal_weight": {"color": WINE, "width": 1.5, "dash": "longdash"},
    "minimum_variance": {"color": INDIGO, "width": 1.5, "dash": "longdashdot"},
    "mean_variance": {"color": BROWN, "width": 1.5, "dash": "dash"},
}


@dataclass(frozen=True)
class Chart:
    """One figure of the page."""

    name: str
    """Its id on the page."""
    title: str
    summary: str
    """What it shows, in words; also what a screen reader says."""
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int
    """Pixels."""
    log_toggle: bool = False


def strategies(backtest: Backtest) -> dict[str, Curve]:
    """All curves, the policy's first, by the names that `NAMES` knows."""
    return {"policy": backtest.policy, "gross": backtest.gross, **backtest.baselines}


def market_charts(backtest: Backtest) -> list[Chart]:
    """Equity, drawdown, and position with trades, or the weights of a portfolio."""
    rows = thinned(backtest)
    return [
        _equity(backtest, rows),
        _drawdown(backtest, rows),
        _position(backtest, rows) if backtest.policy.weights is None else _weights(backtest, rows),
    ]


def learning_charts(learning: list[dict[str, Any]]) -> list[Chart]:
    """Returns and validation scores, then what the update reported. Empty where nothing was."""
    scores = _panels(
        learning,
        {"return": "Training return", "validation_score": "Validation score"},
        colors=(BLUE, VERMILLION),
    )
    known = [name for name in _UPDATE if _finite(learning, name)]
    others = sorted({name for row in learning for name in row} - set(_UPDATE) - _NOT_PLOTTED)
    others = [name for name in others if _finite(learning, name)]
    names = (known + others)[:6]
    updates = _panels(
        learning,
        {name: _UPDATE.get(name, name.replace("_", " ").capitalize()) for name in names},
        colors=(BLUE, VERMILLION, GREEN, BLUE, VERMILLION, GREEN),
    )
    charts = []
    for name, title, words, panels in (
        ("learning", "Return and validation score", _LEARNING_WORDS, scores),
        ("updates", "Losses, entropy and KL divergence", _UPDATE_WORDS, updates),
    ):
        if panels is not None:
            data, layout, summary, n = panels
            charts.append(Chart(name, title, f"{words} {summary}", data, layout, 90 + 150 * n))
    return charts


_UPDATE = {
    "policy_loss": "Policy loss",
    "value_loss": "Value loss",
    "entropy": "Entropy",
    "kl": "KL divergence",
    "explained_variance": "Explained variance",
    "clip_fraction": "Clip fraction",
}
_LEARNING_WORDS = (
    "Mean return of the training episodes that ended since the row before, and the score on the "
    "validation span, by which the tested policy was chosen."
)
_UPDATE_WORDS = "What the updates said of themselves, by environment steps."
_NOT_PLOTTED = {
    "update",
    "timesteps",
    "episodes",
    "return",
    "length",
    "validation_score",
    "seconds",
    "steps_per_second",
    "learning_rate",
    "gradient_norm",
}


def _equity(backtest: Backtest, rows: np.ndarray) -> Chart:
    curves = strategies(backtest)
    x = dates(backtest.policy.timestamps[rows])
    data = [
        line(NAMES.get(name, escape(name)), x, curve.net_worth[rows], _LINES.get(name, {}))
        for name, curve in curves.items()
    ]
    ends = ", ".join(
        f"{NAMES.get(name, name)} {curve.net_worth[-1]:,.0f}" for name, curve in curves.items()
    )
    return Chart(
        "equity",
        "Net worth",
        f"Net worth starts at {backtest.policy.net_worth[0]:,.0f} and ends at: {ends}.",
        data,
        plot_layout(x, yaxis={"title": {"text": "Net worth"}, "tickformat": ",.4~s"}),
        440,
        log_toggle=True,
    )


def _drawdown(backtest: Backtest, rows: np.ndarray) -> Chart:
    x = dates(backtest.policy.timestamps[rows])
    curves = {"policy": backtest.policy, "buy_and_hold": backtest.baselines["buy_and_hold"]}
    data = []
    for name, curve in curves.items():
        peak = np.maximum.accumulate(curve.net_worth)
        trace = line(NAMES[name], x, (curve.net_worth / peak - 1.0)[rows], _LINES[name])
        if name == "policy":
            trace |= {"fill": "tozeroy", "fillcolor": "rgba(0, 114, 178, 0.15)"}
        data.append(trace)
    worst = {name: curve.metrics.max_drawdown for name, curve in curves.items()}
    return Chart(
        "drawdown",
        "Drawdown",
        f"Loss from the highest net worth so far. At worst {worst['policy']:.1%} for the policy "
        f"and {worst['buy_and_hold']:.1%} for buy and hold.",
        data,
        plot_layout(x, yaxis={"title": {"text": "Drawdown"}, "tickformat": ".0%"}),
        300,
    )


def _position(backtest: Backtest, rows: np.ndarray) -> Chart:
    curve = backtest.policy
    stamps = dates(curve.timestamps)
    x = [stamps[row] for row in rows]
    worth = np.where(curve.net_worth[1:] > 0, curve.net_worth[1:], np.nan)
    weight = np.concatenate([[0.0], curve.shares * curve.price[1:] / worth])
    price = line("Price", x, curve.price[rows], {"color": GREY, "width": 1.5})
    held = line("Share of net worth invested", x, weight[rows], {"color": BLUE, "width": 1})
    held |= {"yaxis": "y2", "fill": "tozeroy", "fillcolor": "rgba(0, 114, 178, 0.15)"}
    held["line"] = held["line"] | {"shape": "hv"}
    held["showlegend"] = False

    trades = np.count_nonzero(curve.traded)
    every = max(math.ceil(trades / MOST_MARKERS), 1)
    markers = []
    filled = np.where(curve.fill_price > 0, curve.fill_price, curve.price[1:])
    for name, chosen, symbol, color in (
        ("Buys", curve.change > 0, "triangle-up", BLUE),
        ("Sells", curve.change < 0, "triangle-down", VERMILLION),
        ("In and out", (curve.change == 0) & (curve.traded > 0), "diamond", INK),
    ):
        bars = np.flatnonzero(chosen)[::every]
        if len(bars):
            markers.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": [stamps[bar + 1] for bar in bars],
                    "y": _numbers(filled[bars]),
                    "marker": {
                        "symbol": symbol,
                        "color": color,
                        "size": 9 if len(bars) <= 150 else 6 if len(bars) <= 1000 else 4,
                        "line": {"color": "white", "width": 0.5},
                    },
                }
            )
    buys, sells = np.count_nonzero(curve.change > 0), np.count_nonzero(curve.change < 0)
    layout = plot_layout(
        x,
        yaxis={"title": {"text": "Price"}, "domain": [0.42, 1.0]},
        yaxis2={"title": {"text": "Weight"}, "domain": [0.0, 0.33], "tickformat": ".0%"},
    )
    layout["xaxis"]["anchor"] = "y2"
    average = np.nanmean(np.abs(weight[1:])) if np.isfinite(weight[1:]).any() else 0.0
    return Chart(
        "position",
        "Price, trades and position",
        f"{buys:,} bars with buys and {sells:,} with sells. A position was open at the end of "
        f"{curve.metrics.exposure:.0%} of the bars; on average {average:.0%} of net worth was "
        "invested. The lower panel shows the weight, shares times price over net worth."
        + (f" One trade in {every} is marked." if every > 1 else ""),
        [price, *markers, held],
        layout,
        520,
    )


def _weights(backtest: Backtest, rows: np.ndarray) -> Chart:
    """Long positions and cash stacked above 0, short positions below; the smallest in one area."""
    curve = backtest.policy
    assert curve.weights is not None
    x = dates(curve.timestamps[rows])
    held = np.concatenate([np.zeros_like(curve.weights[:1]), curve.weights])  # [n + 1, assets]
    mean = np.abs(curve.weights).mean(axis=0)
    order = np.argsort(-mean, kind="stable")
    named = order if len(order) <= len(AREAS) else order[: len(AREAS) - 1]
    areas = [
        (backtest.assets[i], held[:, [i]], color) for i, color in zip(named, AREAS, strict=False)
    ]
    if rest := len(order) - len(named):
        areas.append((f"{rest} others", held[:, order[len(named) :]], "#999999"))
    short = np.maximum(-curve.weights, 0.0).sum(axis=1).mean()
    if short == 0.0:
        areas.append(("Cash", 1.0 - held.sum(axis=1, keepdims=True), GRID))
    data = []
    for name, weights, color in areas:
        for side, sign in (("long", 1.0), ("short", -1.0)):
            area = sign * np.maximum(sign * weights, 0.0).sum(axis=1)
            if side == "short" and not area.any():
                continue
            edge = {"color": "white", "width": 0.5, "shape": "hv"}
            data.append(
                line(escape(name), x, area[rows], edge)
                | {"stackgroup": side, "fillcolor": color, "legendgroup": escape(name)}
                | {"showlegend": side == "long", "hovertemplate": "%{y:.1%}"}
            )
    if short > 0.0:
        net = line("Net", x, held.sum(axis=1)[rows], {"color": INK, "width": 1, "shape": "hv"})
        data.append(net | {"hovertemplate": "%{y:.1%}"})
    largest = ", ".join(f"{backtest.assets[i]} {mean[i]:.0%}" for i in order[:3])
    return Chart(
        "position",
        "Weights",
        "Shares of net worth at the end of each bar. On average the long positions were "
        f"{np.maximum(curve.weights, 0.0).sum(axis=1).mean():.0%} and the short ones {short:.0%}; "
        f"the largest were in {largest}. Something was traded on {curve.metrics.trades:,} bars.",
        data,
        plot_layout(x, yaxis={"title": {"text": "Weight"}, "tickformat": ".0%"}),
        440,
    )


def _panels(learning, titles: dict[str, str], colors: tuple[str, ...]):
    """One panel under the other, for the series that have values; all against timesteps.

    Returns: traces, layout, summary and number of panels; None without any.
    """
    names = [name for name in titles if _finite(learning, name)]
    if not names:
        return None
    data, said = [], []
    layout = plot_layout([])
    del layout["yaxis"]
    height = 1.0 / len(names)
    for index, name in enumerate(names):
        rows = _finite(learning, name)
        axis = "" if index == 0 else str(index + 1)
        top = 1.0 - index * height
        layout[f"yaxis{axis}"] = _axis(
            domain=[max(top - height + 0.09 / len(names) + 0.02, 0.0), top - 0.16 * height],
            nticks=4,
        )
        steps, values = [row["timesteps"] for row in rows], [row[name] for row in rows]
        few = len(rows) < 60
        data.append(
            line(escape(titles[name]), steps, np.asarray(values), {"color": colors[index]})
            | {"yaxis": f"y{axis}", "mode": "lines+markers" if few else "lines"}
            | {"marker": {"size": 5}, "showlegend": False}
        )
        layout.setdefault("annotations", []).append(
            {
                "text": escape(titles[name]),
                "x": 0,
                "y": top - 0.15 * height,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"color": INK, "size": 13},
            }
        )
        said.append(f"{titles[name]}: {values[0]:.4g} at first, {values[-1]:.4g} at last")
    layout["xaxis"] |= {"title": {"text": "Timesteps"}, "tickformat": "~s"}
    layout["xaxis"]["anchor"] = f"y{len(names)}" if len(names) > 1 else "y"
    return data, layout, "; ".join(said) + ".", len(names)


def _finite(learning: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The rows that have this figure."""
    return [
        row
        for row in learning
        if isinstance(value := row.get(name), int | float) and math.isfinite(value)
    ]


def thinned(backtest: Backtest) -> np.ndarray:
    """Bars to draw, by the policy's net worth; see `thinned_rows`."""
    return thinned_rows(backtest.policy.net_worth)


def thinned_rows(worth: np.ndarray) -> np.ndarray:
    """Bars to draw: all, or of every stretch its first bar and the lowest and highest worth."""
    if len(worth) <= MOST_POINTS:
        return np.arange(len(worth))
    kept = {0, len(worth) - 1}
    for stretch in np.array_split(np.arange(len(worth)), MOST_POINTS // 3 - 1):
        values = worth[stretch]
        kept |= {stretch[0], stretch[values.argmin()], stretch[values.argmax()]}
    return np.array(sorted(kept))


def line(name: str, x: list, y: np.ndarray, line: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": _numbers(y),
        "line": dict(line),
    }


def plot_layout(x: list, yaxis: dict[str, Any] | None = None, **axes: dict[str, Any]):
    """Args: x: charts with the same dates line up; empty: the data decide."""
    return {
        "autosize": True,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": _axis(**({"range": [x[0], x[-1]]} if x else {})),
        "yaxis": _axis(**(yaxis or {})),
        **{name: _axis(**axis) for name, axis in axes.items()},
    }


def _axis(**given: Any) -> dict[str, Any]:
    return {
        "automargin": True,
        "gridcolor": GRID,
        "linecolor": GREY,
        "zerolinecolor": GREY,
        "zeroline": False,
        **given,
    }


def dates(stamps: np.ndarray) -> list[str]:
    """ISO, to the day where every bar is a day."""
    texts = [str(stamp).replace(" ", "T")[:19] for stamp in stamps]
    if all(text.endswith("T00:00:00") or len(text) == 10 for text in texts):
        return [text[:10] for text in texts]
    return texts


def _numbers(values: np.ndarray) -> list[float | None]:
    """Seven digits are more than a screen shows."""
    return [float(f"{value:.7g}") if math.isfinite(value) else None for value in values]
