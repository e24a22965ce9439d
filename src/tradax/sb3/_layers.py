"""The layers of our networks as lists of (weight, bias), in our units and in those of others.

Ours may see standardised observations and predict scaled rewards. Programs that know neither get
the same functions of raw observations in raw rewards, by two changes of variables:

    first layer   W' = W / sigma,   b' = b - mu W / sigma        z = (x - mu) / sigma
    last layer    W' = W / scale,   b' = b / scale               of values: their unit is a reward

An optimiser's running means of gradients change with them; those of squares change as if a
gradient by a weight and one by a bias did not covary.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tradax.algorithms._q_networks import Net
from tradax.networks import MLP, Dense, FirstLayer, RunningMoments

Kind = Literal["value", "gradient", "square"]
"""What an array is: a parameter, a mean of gradients, or a mean of their squares."""


class Layer(NamedTuple):
    weight: np.ndarray
    """[inputs, outputs]"""
    bias: np.ndarray


Layers = list[Layer]


class Units(NamedTuple):
    """What observations, values and losses are measured in, as seen from outside."""

    mean: np.ndarray | None = None
    """Of raw observations [D]; None where they are not standardised."""
    deviation: np.ndarray | None = None
    output: float = 1.0
    """Factor from our outputs to theirs."""
    loss: float = 1.0
    """Factor from our loss to theirs."""

    @staticmethod
    def of(
        observations: RunningMoments | None, *, output: float = 1.0, loss: float = 1.0
    ) -> "Units":
        if observations is None:
            return Units(output=output, loss=loss)
        mean, var = np.asarray(observations.mean, float), np.asarray(observations.var, float)
        return Units(mean, np.sqrt(var + 1e-8), output, loss)

    def beside(self, actions: int) -> "Units":
        """Of a network that sees actions after the observation."""
        if self.mean is None or self.deviation is None:
            return self
        return self._replace(
            mean=np.concatenate([self.mean, np.zeros(actions)]),
            deviation=np.concatenate([self.deviation, np.ones(actions)]),
        )


def outside(layers: Layers, units: Units, kind: Kind = "value") -> Layers:
    """The same in the units of others, float32."""
    layers = [Layer(*(np.asarray(x, np.float64) for x in layer)) for layer in layers]
    mean, deviation = units.mean, units.deviation
    if mean is not None and deviation is not None:
        (weight, bias), mean, deviation = layers[0], mean[:, None], deviation[:, None]
        if kind == "value":
            layers[0] = Layer(weight / deviation, bias - (mean * weight / deviation).sum(0))
        elif kind == "gradient":
            layers[0] = Layer(deviation * weight + mean * bias, bias)
        else:
            layers[0] = Layer(deviation**2 * weight + mean**2 * bias, bias)
    everywhere, last = {
        "value": (1.0, units.output),
        "gradient": (units.loss, units.loss / units.output),
        "square": (units.loss**2, (units.loss / units.output) ** 2),
    }[kind]
    factors = [everywhere] * (len(layers) - 1) + [last]
    return [
        Layer(*((factor * x).astype(np.float32) for x in layer))
        for layer, factor in zip(layers, factors, strict=True)
    ]


def inside(layers: Layers, units: Units) -> Layers:
    """The inverse of `outside`, of parameters."""
    if units.mean is not None and units.deviation is not None:
        # Seen from raw observations, ours are scaled by 1 / sigma and moved by -mu / sigma.
        back = Units(-units.mean / units.deviation, 1.0 / units.deviation, 1.0 / units.output)
        return outside(layers, back)
    return outside(layers, Units(output=1.0 / units.output))


def of_mlp(network: MLP) -> Layers:
    first = network.first
    assert isinstance(first, FirstLayer)
    weights = [w for w in (first.market, first.account) if w is not None]
    layers = [Layer(np.concatenate([np.asarray(w) for w in weights]), np.asarray(first.bias))]
    return layers + [Layer(np.asarray(x.weight), np.asarray(x.bias)) for x in network.rest]


def to_mlp(network: MLP, layers: Layers) -> MLP:
    """`network` with other numbers."""
    market = getattr(network.first, "market", None)
    size = 0 if market is None else market.shape[0]
    weight, bias = (jnp.asarray(x) for x in layers[0])
    first = FirstLayer(None if market is None else weight[:size], weight[size:], bias)
    rest = tuple(Dense(*(jnp.asarray(x) for x in layer)) for layer in layers[1:])
    return MLP(first, rest, network.activation, network.layer_norm)


def of_net(network: Net) -> Layers:
    return [Layer(np.asarray(x.weight), np.asarray(x.bias)) for x in network.layers]


def to_net(network: Net, layers: Layers) -> Net:
    """`network` with other numbers."""
    dense = tuple(Dense(*(jnp.asarray(x) for x in layer)) for layer in layers)
    return Net(
        dense, network.moments, network.activation, network.normalization, network.action_layer
    )


def of_nets(networks: Net) -> list[Layers]:
    """Of K networks side by side."""
    count = networks.layers[0].bias.shape[0]
    return [of_net(jax.tree.map(lambda x, i=i: x[i], networks)) for i in range(count)]


def to_nets(networks: Net, layers: list[Layers]) -> Net:
    stacked: Any = [
        Layer(*map(np.stack, zip(*same, strict=True))) for same in zip(*layers, strict=True)
    ]
    return to_net(networks, stacked)
