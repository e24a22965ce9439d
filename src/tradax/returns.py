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
    weight: Float[Array, "T B"] | None = None,
) -> Float[Array, "T B"]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16).

        A_t = delta_t + gamma lam (1 - done_t) w_{t+1} A_{t+1}
        delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)

    With importance weights w of the policy to the one that acted, one for each decision, this is
    Retrace (Munos et al. 2016, eq. 4) with their clip.

    Args:
        next_value: V of the true next observation, also where the episode was truncated, so
            that truncation bootstraps and termination does not.
        done: terminated or truncated.
        weight: w, 1 where it is not given; see `importance_weight`.

    Returns: advantages, in units of the reward.
    """
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    discount = gamma * lam * (1.0 - done)
    if weight is not None:
        discount = discount * jnp.concatenate([weight[1:], jnp.ones_like(weight[:1])])

    def backward(advantage, step):
        delta, discount = step
        advantage = delta + discount * advantage
        return advantage, advantage

    last = jnp.zeros_like(delta[0])
    return jax.lax.scan(backward, last, (delta, discount), reverse=True)[1]


def td_lambda(
    reward: Float[Array, "T B"],
    value: Float[Array, "T B"],
    next_value: Float[Array, "T B"],
    terminated: Bool[Array, "T B"],
    done: Bool[Array, "T B"],
    *,
    gamma: float | Float[Array, ""],
    lam: float | Float[Array, ""],
) -> Float[Array, "T B"]:
    """The TD(lambda) return (Sutton and Barto 2018, eq. 12.18): the advantage of `gae`, plus V."""
    return value + gae(reward, value, next_value, terminated, done, gamma=gamma, lam=lam)


def n_step_return(
    reward: Float[Array, "T B"],
    next_value: Float[Array, "T B"],
    terminated: Bool[Array, "T B"],
    done: Bool[Array, "T B"],
    *,
    gamma: float | Float[Array, ""],
    n: int,
) -> Float[Array, "T B"]:
    """Rewards of n steps and the value after them (Sutton and Barto 2018, eq. 7.1).

    Shorter where the episode or the experience ends before; the value of the true next
    observation stands there for what follows, unless the episode terminated.
    """
    after = jnp.where(terminated, 0.0, next_value)
    cut = done.at[-1].set(True)

    def longer(_, found):
        following = jnp.concatenate([found[1:], found[-1:]])
        return reward + gamma * jnp.where(cut, after, following)

    return jax.lax.fori_loop(0, n - 1, longer, reward + gamma * after)


def reward_to_go(
    reward: Float[Array, "T B"],
    done: Bool[Array, "T B"],
    *,
    gamma: float | Float[Array, ""],
    after: Float[Array, "T B"] | None = None,
    weight: Float[Array, "T B"] | None = None,
) -> Float[Array, "T B"]:
    """G_t = r_t + gamma w_{t+1} G_{t+1} within each episode: what an action can still change.

    Args:
        after: value of what follows where an episode or the experience ends; 0 by default.
        weight: importance weights w of single decisions (Precup et al. 2000); 1 by default.
    """
    after = jnp.zeros_like(reward) if after is None else after
    weight = jnp.ones_like(reward) if weight is None else weight
    cut = done.at[-1].set(True)

    def backward(following, step):
        reward, after, weight, cut = step
        found = reward + gamma * jnp.where(cut, after, following)
        return weight * found, found

    return jax.lax.scan(backward, after[-1], (reward, after, weight, cut), reverse=True)[1]


def total_return(
    reward: Float[Array, "T B"], done: Bool[Array, "T B"], *, gamma: float | Float[Array, ""]
) -> Float[Array, "T B"]:
    """The discounted return of its whole episode, at every step of it."""
    cut = done.at[-1].set(True)

    def forward(state, step):
        so_far, discount = state
        reward, cut = step
        so_far = so_far + discount * reward
        following = (jnp.where(cut, 0.0, so_far), jnp.where(cut, 1.0, discount * gamma))
        return following, so_far

    start = (jnp.zeros_like(reward[0]), jnp.ones_like(reward[0]))
    _, so_far = jax.lax.scan(forward, start, (reward, cut))

    def backward(total, step):
        so_far, cut = step
        total = jnp.where(cut, so_far, total)
        return total, total

    return jax.lax.scan(backward, so_far[-1], (so_far, cut), reverse=True)[1]


def importance_weight(
    log_prob: Array, behaviour_log_prob: Array, *, clip: float | Float[Array, ""]
) -> Array:
    """min(clip, pi(a|s) / b(a|s)): the weight of one decision of b in an expectation under pi."""
    # A log ratio of 60 is beyond any clip, and its exponential is still a number.
    return jnp.minimum(jnp.exp(jnp.minimum(log_prob - behaviour_log_prob, 60.0)), clip)


def per_decision_weight(
    weight: Float[Array, "T B"], done: Bool[Array, "T B"]
) -> Float[Array, "T B"]:
    """Product of the weights from each episode's start up to each step (Precup et al. 2000)."""

    def forward(product, step):
        weight, done = step
        product = product * weight
        return jnp.where(done, 1.0, product), product

    return jax.lax.scan(forward, jnp.ones_like(weight[0]), (weight, done))[1]


def effective_sample_size(weight: Array) -> Float[Array, ""]:
    """(sum w)^2 / sum w^2: how many equally weighted samples tell as much (Kong 1992)."""
    return jnp.sum(weight) ** 2 / jnp.maximum(jnp.sum(weight**2), 1e-30)


def explained_variance(prediction: Array, target: Array) -> Float[Array, ""]:
    """1 - Var(target - prediction) / Var(target); 0 where the target does not vary."""
    variance = jnp.var(target)
    ratio = jnp.var(target - prediction) / jnp.where(variance > 0, variance, 1.0)
    return jnp.where(variance > 0, 1.0 - ratio, 0.0)


def standardise(x: Array, weight: Array | None = None) -> Array:
    """Zero mean and unit standard deviation, weighted; zeros where all elements are equal."""
    weight = jnp.ones_like(x) if weight is None else weight
    total = jnp.maximum(weight.sum(), 1e-8)
    mean = jnp.sum(weight * x) / total
    std = jnp.sqrt(jnp.sum(weight * (x - mean) ** 2) / total)
    # A deviation of this size is rounding of the mean, and would be blown up to 1.
    rounding = 1e-6 * jnp.max(jnp.abs(x))
    return jnp.where(std > rounding, (x - mean) / (std + 1e-8), 0.0)
