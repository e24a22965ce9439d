"""Networks of the off-policy actor-critics: a policy, and several action values side by side.

Observations are flat here; what one deploys is a `tradax.networks.MLP`, which understands factored
ones too.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.networks import ACTIVATIONS, MLP, Dense, FirstLayer, layer_norm, matmul, orthogonal
from tradax.spaces import Spec

Normalization = Literal["none", "layer", "batch"]
_SLOWNESS = 0.99  # of the running moments of batch normalisation
_EPSILON = 1e-5
_WIDE = 2**13  # weights of a layer
_FEW = 4  # actions or outputs


class Moment(NamedTuple):
    """Running mean and variance of a hidden layer before its activation."""

    mean: jax.Array
    var: jax.Array


class Net(eqx.Module):
    """A perceptron, or K of them that see the same input; leaves [...] or [K, ...].

    Batch normalisation (Ioffe and Szegedy 2015) is without gain: the layer's bias comes after it.
    """

    layers: tuple[Dense, ...]
    moments: tuple[Moment, ...]
    """One a hidden layer with batch normalisation, else empty. No loss depends on them."""
    activation: str = eqx.field(static=True)
    normalization: Normalization = eqx.field(static=True)
    action_layer: int = eqx.field(static=True)
    """The layer at which an action enters: 0 beside the observation."""

    def __call__(self, obs: jax.Array, action: jax.Array | None = None) -> jax.Array:
        """Args: obs [B, D], action [B, A]. Returns: [B, outputs], or [K, B, outputs]."""
        return self._forward(obs, action, batch_moments=False)[0]

    def train(self, obs: jax.Array, action: jax.Array | None = None) -> tuple[jax.Array, Any]:
        """The same, normalised by the moments of this batch. Returns: outputs, those moments."""
        return self._forward(obs, action, batch_moments=True)

    def observed(self, batch: tuple[Moment, ...]) -> "Net":
        """Running moments after another batch."""
        moments = jax.tree.map(lambda old, new: new + _SLOWNESS * (old - new), self.moments, batch)
        return eqx.tree_at(lambda n: n.moments, self, moments) if moments else self

    def first(self) -> "Net":
        """The first of K."""
        return jax.tree.map(lambda x: x[0], self)

    def deployed(self, spec: Spec) -> MLP:
        """The same function of observations as the kind of network that policies hold."""
        layers = list(self.layers)
        for i, moment in enumerate(self.moments):
            scale = jax.lax.rsqrt(moment.var + _EPSILON)
            layers[i] = Dense(layers[i].weight * scale, layers[i].bias - moment.mean * scale)
        (weight, bias), rest = (layers[0].weight, layers[0].bias), tuple(layers[1:])
        market = weight[: spec.market] if spec.market else None
        first = FirstLayer(market, weight[spec.market :], bias)
        return MLP(first, rest, self.activation, self.normalization == "layer")

    def _forward(self, obs, action, *, batch_moments: bool):
        x, seen = obs, []
        for i, layer in enumerate(self.layers):
            if action is not None and i == self.action_layer:
                # Not side by side, for a loss of the action needs no gradient of the observation.
                split = x.shape[-1]
                x = _product(x, layer.weight[..., :split, :])
                x = x + _action_product(action, layer.weight[..., split:, :])
            else:
                x = _product(x, layer.weight)
            bias = layer.bias[..., None, :]
            if i == len(self.layers) - 1:
                return x + bias, tuple(seen)
            if self.moments:
                moment = self.moments[i]
                if batch_moments:
                    moment = Moment(x.mean(-2), x.var(-2))
                    seen.append(jax.lax.stop_gradient(moment))
                scale = jax.lax.rsqrt(moment.var + _EPSILON)[..., None, :]
                x = (x - moment.mean[..., None, :]) * scale
            x = x + bias
            if self.normalization == "layer":
                x = layer_norm(x)
            x = ACTIVATIONS[self.activation](x)
        raise AssertionError("a network has an output layer")


def net(
    key: jax.Array,
    inputs: int,
    hidden: Sequence[int],
    outputs: int,
    activation: str,
    normalization: Normalization,
    *,
    output_scale: float = 1.0,
    action_size: int = 0,
    action_layer: int = 0,
) -> Net:
    """Orthogonal weights (gain sqrt 2), zero biases."""
    sizes = [inputs, *hidden, outputs]
    layers = []
    layer_keys = jax.random.split(key, len(sizes) - 1)
    for i, layer_key in enumerate(layer_keys):
        n_in = sizes[i] + (action_size if i == action_layer else 0)
        gain = output_scale if i == len(sizes) - 2 else math.sqrt(2.0)
        weight = gain * orthogonal(layer_key, n_in, sizes[i + 1])
        layers.append(Dense(weight, jnp.zeros(sizes[i + 1])))
    moments = [Moment(jnp.zeros(n), jnp.ones(n)) for n in hidden if normalization == "batch"]
    return Net(tuple(layers), tuple(moments), activation, normalization, action_layer)


def stacked(nets: Sequence[Net]) -> Net:
    """K networks as one."""
    return jax.tree.map(lambda *x: jnp.stack(x), *nets)


def _product(x: jax.Array, weight: jax.Array) -> jax.Array:
    """x [B, I] or [K, B, I] times weight [I, O] or [K, I, O]; one x goes through all K."""
    inputs, outputs = weight.shape[-2:]
    if inputs * outputs >= _WIDE or (weight.ndim == 3 and (x.ndim == 2 or outputs <= _FEW)):
        return x @ weight  # XLA's own gradient is as fast, or faster
    return matmul(x, weight) if weight.ndim == 2 else jax.vmap(matmul)(x, weight)


@jax.custom_vjp
def _action_product(action: jax.Array, weight: jax.Array) -> jax.Array:
    """action [B, A] times weight [A, O] or [K, A, O].

    The gradient of the action is a product for each of K networks; XLA would copy their activations
    side by side first.
    """
    return _sum_over_actions(action, weight)


def _action_product_backward(residuals, dy):
    action, weight = residuals
    if weight.ndim == 2:
        return dy @ weight.T, action.T @ dy
    of_each = [dy[k] @ weight[k].T for k in range(weight.shape[0])]
    transposed = jnp.broadcast_to(action.T, (weight.shape[0], *action.T.shape))
    return sum(of_each[1:], of_each[0]), transposed @ dy


_action_product.defvjp(
    lambda action, weight: (_sum_over_actions(action, weight), (action, weight)),
    _action_product_backward,
)


def _sum_over_actions(action: jax.Array, weight: jax.Array) -> jax.Array:
    """Of few actions by the loop that adds the bias, without a product of its own."""
    actions = action.shape[-1]
    if actions > _FEW:
        return action @ weight
    terms = [action[:, i : i + 1] * weight[..., i : i + 1, :] for i in range(actions)]
    return sum(terms[1:], terms[0])
