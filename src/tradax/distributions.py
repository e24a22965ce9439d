"""Distributions of actions: parameters in, samples, log-probabilities, entropies and KL out.

Batched over leading axes `...`; a log-probability has the shape `...`.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp


class Categorical(eqx.Module):
    """Discrete actions 0..n-1."""

    log_probs: jax.Array
    """[..., n], normalised."""

    @staticmethod
    def from_logits(logits: jax.Array) -> "Categorical":
        return Categorical(jax.nn.log_softmax(logits))

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.categorical(key, self.log_probs)

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

    def sample(self, key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
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
