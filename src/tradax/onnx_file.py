"""Policies as ONNX graphs: observations as the environment gives them -> deterministic actions.

The observation normaliser is inside, and on request the pipeline's normaliser of features too.
Needs the extra `tradax[onnx]`.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tradax.data.scaling import Normalizer
from tradax.errors import TradaxError
from tradax.files import write_atomic
from tradax.networks import FirstLayer
from tradax.onnx_features import normalized
from tradax.policies import NetworkPolicy

_OPSET = 20  # the first with GELU
_IR_VERSION = 9
_LAYER_NORM_EPSILON = 1e-5  # of `networks.layer_norm`


class Features(NamedTuple):
    """How a market's features become the first part of an observation."""

    normalizer: Normalizer | None
    window: int


def write_onnx(policy: NetworkPolicy, path: Path | str, features: Features | None = None) -> None:
    """Write a graph from `observation` float32 [batch, D] to `action`.

    Continuous actions are float32 [batch, d], clipped to their bounds; discrete ones int64 [batch].

    Args:
        features: take `features` float64 [batch, window F], not normalised, newest first, and
            `account` float32 [batch, K] in place of the observation.

    Raises:
        TradaxError: the package onnx is missing, or the file cannot be written.
    """
    write_atomic(path, build(policy, features).SerializeToString())


def build(policy: NetworkPolicy, features: Features | None = None) -> Any:
    """The graph as an `onnx.ModelProto`."""
    try:
        from onnx import TensorProto, checker, helper
    except ImportError:
        raise TradaxError(
            "writing ONNX needs the package onnx: pip install 'tradax[onnx]'"
        ) from None
    graph, spec = Graph(), policy.spec
    given = {"observation": (TensorProto.FLOAT, spec.size)}
    x = "observation"
    if features is not None:
        given = {
            "features": (TensorProto.DOUBLE, spec.market),
            "account": (TensorProto.FLOAT, spec.account),
        }
        market = normalized(graph, "features", features.normalizer, features.window)
        x = graph.add("Concat", market, "account", axis=1)
    if policy.normalizer is not None:
        mean, var = policy.normalizer.mean, policy.normalizer.var
        x = graph.add("Sub", x, np.asarray(mean, np.float32))
        x = graph.add("Div", x, np.sqrt(np.asarray(var, np.float32) + np.float32(1e-8)))
        x = graph.add("Clip", x, np.float32(-10), np.float32(10))
    x = _network(graph, x, policy)
    discrete, size = spec.action.discrete, spec.action.size
    if discrete:
        graph.add("ArgMax", x, axis=-1, keepdims=0, output="action")
    else:
        low, high = (np.array(b, np.float32) for b in (spec.action.low, spec.action.high))
        if policy.head == "tanh_gaussian":  # means come first
            zero, end, axis = (np.array([i], np.int64) for i in (0, size, 1))
            x = graph.add("Slice", x, zero, end, axis)
        if policy.head in ("squashed", "tanh_gaussian"):
            x = graph.add("Add", graph.add("Tanh", x), np.float32(1))
            x = graph.add("Add", graph.add("Mul", x, (high - low) / np.float32(2)), low)
        graph.add("Min", graph.add("Max", x, low), high, output="action")
    kind, shape = (
        (TensorProto.INT64, ["batch"]) if discrete else (TensorProto.FLOAT, ["batch", size])
    )
    inputs = [
        helper.make_tensor_value_info(name, kind, ["batch", count])
        for name, (kind, count) in given.items()
    ]
    action = helper.make_tensor_value_info("action", kind, shape)
    model = helper.make_model(
        helper.make_graph(graph.nodes, "policy", inputs, [action], graph.constants),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="tradax",
    )
    checker.check_model(model, full_check=True)
    return model


def _network(graph: "Graph", x: str, policy: NetworkPolicy) -> str:
    network = policy.network
    first = network.first
    assert isinstance(first, FirstLayer)
    weights = [np.asarray(w) for w in (first.market, first.account) if w is not None]
    x = graph.add("Gemm", x, np.concatenate(weights), np.asarray(first.bias))
    for layer in network.rest:
        if network.layer_norm:
            ones = np.ones(layer.weight.shape[0], np.float32)
            x = graph.add("LayerNormalization", x, ones, epsilon=_LAYER_NORM_EPSILON)
        x = _activation(graph, x, network.activation)
        x = graph.add("Gemm", x, np.asarray(layer.weight), np.asarray(layer.bias))
    return x


def _activation(graph: "Graph", x: str, name: str) -> str:
    if name == "silu":
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    if name == "gelu":  # JAX's default is the approximation
        return graph.add("Gelu", x, approximate="tanh")
    return graph.add({"tanh": "Tanh", "relu": "Relu", "elu": "Elu"}[name], x)


class Graph:
    """Nodes in order, and the constants that they take."""

    def __init__(self):
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(
        self, operation: str, *inputs: Any, output: str | None = None, **attributes: Any
    ) -> str:
        """One more node. Returns: the name of its output.

        Args:
            inputs: names of outputs, or arrays.
        """
        from onnx import helper

        output = output or f"{operation.lower()}_{len(self.nodes)}"
        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        self.nodes.append(helper.make_node(operation, names, [output], **attributes))
        return output

    def _constant(self, array: Any) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        self.constants.append(numpy_helper.from_array(array, name))
        return name
