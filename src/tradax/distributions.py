"""Distributions of actions: parameters in, samples, log-probabilities, entropies and KL out.

Batched over leading axes `...`; a log-probability has the shape `...`.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.sharing import ALONE, Share


class Categorical(eqx.Module):
    """Discrete actions 0..n-1."""

    log_probs: jax.Array
    """[..., n], normalised."""

    @staticmethod
    def from_logits(logits: jax.Array) -> "Categorical":
        return Categorical(jax.nn.log_softmax(logits))

    def sample(self, key: jax.Array, share: Share = ALONE) -> jax.Array:
        """Draws; for a device's share of a batch the rows that the whole batch would have."""
        # What jax.random.categorical computes.
        noise = share.draw(jax.random.gumbel, key, self.log_probs)
        return jnp.argmax(noise + self.log_probs, axis=-1)

    def mode(self) -> jax.Array:
        return jnp.argmax(self.log_probs, axis=-1)

    def log_prob(self, action: jax.Array) -> jax.Array:
        return jnp.take_along_axis(self.log_probs, action[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        return -jnp.sum(jnp.exp(self.log_probs) * self.log_probs, axis=-1)

    def kl(self, other: "Distribution") -> jax.Array:
        """KL(self || other), which is of the same kind."""
        assert isinstance(other, Categorical)
        return jnp.sum(jnp.exp(self.log_probs) * (self.log_probs - other.log_probs), axis=-1)


class DiagGaussian(eqx.Module):
    """Independent normals; `log_std` broadcasts against `mean` [..., d]."""

    mean: jax.Array
    log_std: jax.Array

    def sample(self, key: jax.Array, share: Share = ALONE) -> jax.Array:
        """Draws; for a device's share of a batch the rows that the whole batch would have."""
        noise = share.draw(jax.random.normal, key, self.mean)
        return self.mean + jnp.exp(self.log_std) * noise

    def mode(self) -> jax.Array:
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return jnp.sum(-0.5 * z**2 - self.log_std - 0.5 * math.log(2 * math.pi), axis=-1)

    def entropy(self) -> jax.Array:
        log_std = jnp.broadcast_to(self.log_std, self.mean.shape)
        return jnp.sum(log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)

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
        return jnp.sum(log_normal - slope, axis=-1) - half


class Point(eqx.Module):
    """One action for sure."""

    action: jax.Array

    def sample(self, key: jax.Array, share: Share = ALONE) -> jax.Array:
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
