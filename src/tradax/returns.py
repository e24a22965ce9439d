"""Estimators of returns and advantages from experience in time order."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def gae(
    reward: Float[Array, "T B"],
    value: Float[Array, "T B"],
    next_value: Float[Array, "T B"],
    terminated: Bool[Array, "T B"],
    done: Bool[Array, "T B"],
    *,
    gamma: float | Float[Array, ""],
    lam: float | Float[Array, ""],
) -> Float[Array, "T B"]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16).

        A_t = delta_t + gamma lam (1 - done_t) A_{t+1}
        delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)

    Args:
        next_value: V of the true next observation, also where the episode was truncated, so
            that truncation bootstraps and termination does not.
        done: terminated or truncated.

    Returns: advantages, in units of the reward.
    """
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    discount = gamma * lam * (1.0 - done)

    def backward(advantage, step):
        delta, discount = step
        advantage = delta + discount * advantage
        return advantage, advantage

    last = jnp.zeros_like(delta[0])
    return jax.lax.scan(backward, last, (delta, discount), reverse=True)[1]


def explained_variance(prediction: Array, target: Array) -> Float[Array, ""]:
    """1 - Var(target - prediction) / Var(target); 0 where the target does not vary."""
    variance = jnp.var(target)
    ratio = jnp.var(target - prediction) / jnp.where(variance > 0, variance, 1.0)
    return jnp.where(variance > 0, 1.0 - ratio, 0.0)


def standardise(x: Array) -> Array:
    """Zero mean and unit standard deviation; zeros where all elements are equal."""
    mean, std = x.mean(), x.std()
    # A deviation of this size is rounding of the mean, and would be blown up to 1.
    rounding = 1e-6 * jnp.max(jnp.abs(x))
    return jnp.where(std > rounding, (x - mean) / (std + 1e-8), 0.0)
