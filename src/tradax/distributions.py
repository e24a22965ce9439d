"""Distributions of actions: parameters in, samples, log-probabilities, entropies and KL out.

Batched over leading axes `...`; a log-probability has the shape `...`.
"""

import functools
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.sharing import ALONE, Share


def _reduced(combine: Callable, x: jax.Array) -> jax.Array:
    """Over the last axis. A few columns are combined one by one: that is fused with what goes
    before and after, where XLA's reduction of 2 numbers a row takes longer than a layer.
    """
    columns = x.shape[-1]
    if columns > 8:
        return (jnp.sum if combine is jnp.add else jnp.max)(x, axis=-1)
    return functools.reduce(combine, [x[..., i] for i in range(columns)])


def _total(x: jax.Array) -> jax.Array:
    return _reduced(jnp.add, x)


class Categorical(eqx.Module):
    """Discrete actions 0..n-1."""

    log_probs: jax.Array
    """[..., n], normalised."""

    @staticmethod
    def from_logits(logits: jax.Array) -> "Categorical":
        logits = logits - jax.lax.stop_gradient(_reduced(jnp.maximum, logits))[..., None]
        return Categorical(logits - jnp.log(_total(jnp.exp(logits)))[..., None])

    def sample(self, key: jax.Array) -> jax.Array:
        return self.transform(self.noise(key, self.log_probs.shape))

    @staticmethod
    def noise(key: jax.Array, shape: tuple[int, ...], share: Share = ALONE) -> jax.Array:
        """Standard Gumbel, which `transform` takes; a device's share is rows of the whole."""
        return share.draw(jax.random.gumbel, key, shape)

    def transform(self, noise: jax.Array) -> jax.Array:
        """The action [...] that noise [..., n] becomes, as in jax.random.categorical."""
        return jnp.argmax(noise + self.log_probs, axis=-1)

    def mode(self) -> jax.Array:
        return jnp.argmax(self.log_probs, axis=-1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        # A sum in which all but one are 0 is one loop; gather and its gradient, scatter, are many.
        taken = jnp.arange(self.log_probs.shape[-1]) == action[..., None]
        return _total(jnp.where(taken, self.log_probs, 0.0))

    def entropy(self) -> jax.Array:
        return -_total(jnp.exp(self.log_probs) * self.log_probs)

    def kl(self, other: "Distribution") -> jax.Array:
        """KL(self || other), which is of the same kind."""
        assert isinstance(other, Categorical)
        return jnp.sum(jnp.exp(self.log_probs) * (self.log_probs - other.log_probs), axis=-1)


class DiagGaussian(eqx.Module):
    """Independent normals; `log_std` broadcasts against `mean` [..., d]."""

    mean: jax.Array
    log_std: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        return self.transform(self.noise(key, self.mean.shape))

    @staticmethod
    def noise(key: jax.Array, shape: tuple[int, ...], share: Share = ALONE) -> jax.Array:
        """Standard normal, which `transform` takes; a device's share is rows of the whole."""
        return share.draw(jax.random.normal, key, shape)

    def transform(self, noise: jax.Array) -> jax.Array:
        """The action that standard normal noise [..., d] becomes."""
        return self.mean + jnp.exp(self.log_std) * noise

    def mode(self) -> jax.Array:
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return _total(-0.5 * z**2 - self.log_std - 0.5 * math.log(2 * math.pi))

    def entropy(self) -> jax.Array:
        log_std = jnp.broadcast_to(self.log_std, self.mean.shape)
        return _total(log_std + 0.5 * math.log(2 * math.pi * math.e))

    def kl(self, other: "Distribution") -> jax.Array:
        """KL(self || other), which is of the same kind."""
        assert isinstance(other, DiagGaussian)
        variance_ratio = jnp.exp(2 * (self.log_std - other.log_std))
        z = (self.mean - other.mean) * jnp.exp(-other.log_std)
        terms = 0.5 * (variance_ratio + z**2 - 1) + other.log_std - self.log_std
        return jnp.sum(jnp.broadcast_to(terms, self.mean.shape), axis=-1)


class TanhGaussian(eqx.Module):
    """Independent normals squashed by tanh to within (low, high) (Haarnoja et al. 2018, app. C).

    a = low + (high - low) (tanh u + 1) / 2 with u ~ N(mean, exp(log_std)^2), so that

    log p(a) = log N(u) - sum_i log[(high_i - low_i) / 2 (1 - tanh^2 u_i)]
    """

    mean: jax.Array
    """[..., d], as `log_std`."""
    log_std: jax.Array
    low: tuple[float, ...] = eqx.field(static=True)
    high: tuple[float, ...] = eqx.field(static=True)

    @staticmethod
    def from_outputs(
        outputs: jax.Array,
        log_std_bounds: tuple[float, ...],
        low: tuple[float, ...],
        high: tuple[float, ...],
    ) -> "TanhGaussian":
        """From mean and log standard deviation [..., 2 d], the latter clipped to its bounds."""
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        return TanhGaussian(mean, jnp.clip(log_std, *log_std_bounds), low, high)

    def _squash(self, u: jax.Array) -> jax.Array:
        low, high = jnp.array(self.low), jnp.array(self.high)
        return low + (high - low) * (jnp.tanh(u) + 1.0) / 2.0

    def sample(self, key: jax.Array) -> jax.Array:
        return self.sample_and_log_prob(key)[0]

    def sample_and_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.transform(jax.random.normal(key, self.mean.shape, self.mean.dtype))

    def transform(self, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The action that standard normal noise [..., d] becomes, and its log-probability.

        Exact also where tanh rounds to 1, where `log_prob` cannot be.
        """
        u = self.mean + jnp.exp(self.log_std) * noise
        return self._squash(u), self._log_prob(u, noise)

    def mode(self) -> jax.Array:
        """The image of the mean; the density may be higher elsewhere."""
        return self._squash(self.mean)

    def log_prob(self, action: jax.Array) -> jax.Array:
        low, high = jnp.array(self.low), jnp.array(self.high)
        unit = 2.0 * (action - low) / (high - low) - 1.0
        u = jnp.arctanh(jnp.clip(unit, -1.0 + 1e-6, 1.0 - 1e-6))
        return self._log_prob(u, (u - self.mean) * jnp.exp(-self.log_std))

    def _log_prob(self, u: jax.Array, z: jax.Array) -> jax.Array:
        """Args: z: u in deviations from the mean."""
        half = sum(
            math.log((high - low) / 2.0) for low, high in zip(self.low, self.high, strict=True)
        )
        # log(1 - tanh^2 u) without cancellation.
        slope = 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))
        log_normal = -0.5 * z**2 - self.log_std - 0.5 * math.log(2 * math.pi)
        return _total(log_normal - slope) - half


class Point(eqx.Module):
    """One action for sure."""

    action: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        return self.action

    def mode(self) -> jax.Array:
        return self.action

    def log_prob(self, action: jax.Array) -> jax.Array:
        return jnp.where(jnp.all(action == self.action, axis=-1), 0.0, -jnp.inf)

    def entropy(self) -> jax.Array:
        return jnp.zeros(self.action.shape[:-1])

    def kl(self, other: "Distribution") -> jax.Array:
        """KL(self || other), which is of the same kind."""
        assert isinstance(other, Point)
        return jnp.where(jnp.all(self.action == other.action, axis=-1), 0.0, jnp.inf)


Distribution = Categorical | DiagGaussian | Point
