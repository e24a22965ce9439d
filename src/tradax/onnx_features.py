"""The normaliser of features as nodes of an ONNX graph, in float64 as scikit-learn computes it."""

from typing import Any

import numpy as np

from tradax.data.normalize import QuantileNormalizer
from tradax.data.scaling import Normalizer

_BOUND = 1e-7  # scikit-learn's BOUNDS_THRESHOLD
# Wichura (1988), algorithm AS 241, PPND16: the normal quantile to 1e-16. Highest power first.
_CENTRAL = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
_MIDDLE = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177,
     1.27045825245236838258, 3.64784832476320460504, 5.7694972214606914055,
     4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966,
     0.14810397642748007459, 0.68976733498510000455, 1.6763848301838038494,
     2.05319162663775882187, 1.0),
)  # fmt: skip
_FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386,
     0.026532189526576123093, 0.29656057182850489123, 1.7848265399172913358,
     5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5,
     7.868691311456132591e-4, 0.0148753612908506148525, 0.13692988092273580531,
     0.59983220655588793769, 1.0),
)  # fmt: skip


def normalized(graph: Any, x: str, normalizer: Normalizer | None, window: int) -> str:
    """Nodes from raw features float64 [batch, window F] to float32 ones as environments hold them.

    Args:
        graph: an `onnx_file.Graph`.
        window: lags side by side, each normalised alike.
    """
    if isinstance(normalizer, QuantileNormalizer):
        x = _quantile(graph, x, normalizer, window)
    elif normalizer is not None:
        x = graph.add("Sub", x, np.tile(normalizer.center, window))
        x = graph.add("Div", x, np.tile(normalizer.scale, window))
    return graph.add("Cast", x, to=1)  # float32


def _quantile(graph: Any, x: str, normalizer: QuantileNormalizer, window: int) -> str:
    """The mean of interpolating forwards and backwards, then the normal quantile."""
    quantiles = np.tile(normalizer.quantiles.T, (window, 1))  # [F, Q]
    references = np.broadcast_to(normalizer.references, quantiles.shape)
    first, last = quantiles[:, :1], quantiles[:, -1:]
    x = graph.add("Transpose", x)  # [F, B], so that a row gathers from its own quantiles
    forward = _interpolated(graph, x, quantiles, references, "GreaterOrEqual", 0)
    backward = _interpolated(graph, x, quantiles, references, "Greater", 1)
    p = graph.add("Mul", graph.add("Add", forward, backward), np.float64(0.5))
    normal = normalizer.distribution == "normal"
    margin = np.float64(_BOUND if normal else 0.0)
    compare = ("Less", "Greater") if normal else ("LessOrEqual", "GreaterOrEqual")
    above = graph.add(compare[1], graph.add("Add", x, margin), last)
    below = graph.add(compare[0], graph.add("Sub", x, margin), first)
    p = graph.add("Where", above, np.float64(1), p)
    p = graph.add("Where", below, np.float64(0), p)
    if normal:
        p = _normal_quantile(graph, p)
    return graph.add("Transpose", graph.add("Where", graph.add("IsNaN", x), x, p))


def _interpolated(graph: Any, x: str, quantiles, references, compare: str, upper: int) -> str:
    """Linear between the two quantiles around x; `upper`: with x itself the upper one."""
    count = quantiles.shape[1]
    steps = graph.add(compare, graph.add("Unsqueeze", x, np.array([2])), quantiles[:, None, :])
    steps = graph.add("ReduceSum", graph.add("Cast", steps, to=7), np.array([2]), keepdims=0)
    # Of the interval from i to i + 1: quantiles up to x forwards, below x backwards.
    i = graph.add("Sub", steps, np.int64(1))
    i = graph.add("Min", graph.add("Max", i, np.int64(0)), np.int64(max(count - 2, 0)))
    width, height = np.diff(quantiles, axis=1), np.diff(references, axis=1)
    slope = np.divide(height, width, out=np.zeros_like(width), where=width > 0)
    if count == 1:
        slope = np.zeros_like(quantiles)
    offset = min(upper, count - 1)

    def at(values) -> str:
        return graph.add("GatherElements", np.ascontiguousarray(values), i, axis=1)

    start = at(quantiles[:, offset : offset + slope.shape[1]])
    value = at(references[:, offset : offset + slope.shape[1]])
    return graph.add("Add", value, graph.add("Mul", graph.add("Sub", x, start), at(slope)))


def _normal_quantile(graph: Any, p: str) -> str:
    """Standard normal quantile of probabilities kept 1e-7 from 0 and 1."""
    bound = _BOUND - np.spacing(1.0)
    p = graph.add("Max", p, np.float64(bound))
    p = graph.add("Min", p, np.float64(1.0 - bound))
    q = graph.add("Sub", p, np.float64(0.5))
    r = graph.add("Sub", np.float64(0.180625), graph.add("Mul", q, q))
    central = graph.add("Mul", q, _ratio(graph, r, _CENTRAL))
    tail = graph.add("Min", p, graph.add("Sub", np.float64(1), p))
    r = graph.add("Sqrt", graph.add("Neg", graph.add("Log", tail)))
    middle = _ratio(graph, graph.add("Sub", r, np.float64(1.6)), _MIDDLE)
    far = _ratio(graph, graph.add("Sub", r, np.float64(5)), _FAR)
    outer = graph.add("Where", graph.add("LessOrEqual", r, np.float64(5)), middle, far)
    outer = graph.add("Mul", graph.add("Sign", q), outer)
    near = graph.add("LessOrEqual", graph.add("Abs", q), np.float64(0.425))
    return graph.add("Where", near, central, outer)


def _ratio(graph: Any, r: str, coefficients) -> str:
    """One polynomial over another, by Horner's rule."""
    parts = []
    for powers in coefficients:
        value = graph.add("Mul", r, np.float64(powers[0]))
        for c in powers[1:-1]:
            value = graph.add("Mul", graph.add("Add", value, np.float64(c)), r)
        parts.append(graph.add("Add", value, np.float64(powers[-1])))
    return graph.add("Div", *parts)
