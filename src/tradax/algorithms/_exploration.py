"""Behaviour of the off-policy actor-critics: random at first, then the policy with noise.

Actions are in units of half the width of their bounds here, so that -1 and 1 are the bounds.
"""

import math
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.algorithms._q_networks import Net
from tradax.distributions import TanhGaussian
from tradax.draws import normals
from tradax.networks import MLP, RunningMoments
from tradax.protocols import Actor
from tradax.spaces import Observation, Spec

Noise = Literal["none", "gaussian", "ou", "parameter"]


def squashed_normal(outputs: jax.Array, bounds: tuple[float, ...]) -> TanhGaussian:
    """The policy over [-1, 1] that mean and log standard deviation [..., 2 d] stand for."""
    size = outputs.shape[-1] // 2
    return TanhGaussian.from_outputs(outputs, bounds, (-1.0,) * size, (1.0,) * size)


class Explorer(Actor):
    """Uniform actions during the warm-up, then tanh of the network's outputs, plus noise.

    Gaussian noise is new at every step. Ornstein-Uhlenbeck noise is carried along an episode,

        x <- (1 - theta) x + scale sqrt(1 - (1 - theta)^2) N(0, 1),

    from 0, and has the standard deviation `scale` in the long run. Noise of parameters is in
    `network` already.
    """

    network: MLP
    normalizer: RunningMoments | None
    random: jax.Array
    """bool: still warming up."""
    scale: jax.Array
    theta: jax.Array
    noise: Noise = eqx.field(static=True)
    log_std_bounds: tuple[float, ...] = eqx.field(static=True)
    """Of a stochastic policy; empty for a deterministic one."""
    spec: Spec = eqx.field(static=True)

    def tabulate(self, table: jax.Array) -> "Explorer":
        return eqx.tree_at(lambda a: a.network, self, self.network.tabulate(table))

    def initial_memory(self, batch: int) -> Any:
        return jnp.zeros((batch, self.spec.action.size)) if self.noise == "ou" else ()

    def __call__(self, obs: Observation, memory: Any, key: jax.Array):
        if self.normalizer is not None:
            assert isinstance(obs, jax.Array)
            obs = self.normalizer(obs)
        outputs = self.network(obs)
        # One draw for all: keys and draws of their own each cost a loop of small kernels.
        shape = (2, outputs.shape[0], self.spec.action.size)
        normal, noise = normals(key, math.prod(shape)).reshape(shape)
        if self.log_std_bounds:
            action, _ = squashed_normal(outputs, self.log_std_bounds).transform(normal)
        else:
            action = jnp.tanh(outputs)
        if self.noise in ("gaussian", "ou"):
            noise = self.scale * noise
            if self.noise == "ou":
                left = 1.0 - self.theta
                noise = memory = left * memory + jnp.sqrt(1.0 - left**2) * noise
            action = jnp.clip(action + noise, -1.0, 1.0)
        uniform = jax.scipy.special.erf(normal / jnp.sqrt(2.0))  # 2 Phi(normal) - 1
        action = jnp.where(self.random, uniform, action)
        return self.spec.action.from_unit(action), memory, ()


class Perturbation(NamedTuple):
    """Noise of the policy's weights (Plappert et al. 2018)."""

    direction: Net
    """Standard normal, as the policy."""
    scale: jax.Array


def normal_like(tree: Any, key: jax.Array) -> Any:
    """Standard normal numbers in the shapes of a tree."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def perturbed(network: Net, noise: Perturbation) -> Net:
    """The policy with noise on its weights."""
    layers = jax.tree.map(lambda x, d: x + noise.scale * d, network.layers, noise.direction.layers)
    return eqx.tree_at(lambda n: n.layers, network, layers)
