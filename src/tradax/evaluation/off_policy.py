"""The value of a policy from episodes that another one left behind, by importance sampling.

With w_t = pi(a_t|s_t) / b(a_t|s_t), rho_t = w_0 w_1 ... w_t, and G the discounted return of an
episode of T steps, means over n episodes:

    ordinary        mean(rho_T G)                        unbiased
    weighted        sum(rho_T G) / sum(rho_T)            biased by O(1/n), of smaller variance
    per_decision    mean(sum_t gamma^t rho_t r_t)        unbiased (Precup, Sutton and Singh 2000)

Weights multiply along an episode, so that the effective sample size falls exponentially with its
length; the estimates are of use for short episodes, or policies close to the one logged.
"""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax.errors import ConfigError, DataError, TradaxError
from tradax.logged import Log, check_fit
from tradax.protocols import Policy
from tradax.rollout import JaxSource
from tradax.spaces import Factored

METHODS = ("ordinary", "weighted", "per_decision")


class OffPolicyValue(NamedTuple):
    """An estimate of a policy's mean return, and what it is worth."""

    value: float
    """Discounted return of an episode, in reward units."""
    low: float
    """Lower end of the interval."""
    high: float
    effective_sample_size: float
    """Episodes' worth of information: (sum rho)^2 / sum rho^2, at most `episodes`."""
    episodes: int
    logged_value: float
    """Mean return of the logged episodes: the value of the policy that acted."""


def off_policy_value(
    policy: Policy,
    log: Log,
    *,
    method: Literal["ordinary", "weighted", "per_decision"] = "weighted",
    gamma: float = 1.0,
    confidence: float = 0.95,
    env: JaxSource | None = None,
    drop_unfinished: bool = False,
) -> OffPolicyValue:
    """Estimate the mean return of a stochastic policy from a log.

    The interval is Student's t over episodes; for `weighted`, of the ratio linearised at each
    episode left out in turn. It is approximate: where the effective sample size is small, the
    rare episodes with large weights may not be among those logged, and it is too narrow.

    Args:
        gamma: discount a step.
        confidence: of the interval.
        env: the market that was logged (a source), where the log holds rows of its table.
        drop_unfinished: leave out episodes that were still running when recording stopped. What
            remains are the shorter ones, so that the estimate is biased; record whole episodes
            (`tradax.collect(..., episodes=N)`) instead.

    Raises:
        TradaxError: an option outside what is allowed, fewer than two episodes, or unfinished ones.
    """
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
    if not 0 <= gamma <= 1:
        raise ConfigError(f"gamma is {gamma}; it must be between 0 and 1")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence}; it must be between 0 and 1")
    table = None if env is None else env.table()
    log_ratio = log_ratios(policy, log, table).astype(np.float64)
    finished = log.finished
    if not finished.all() and not drop_unfinished:
        raise DataError(
            f"{log.source}: {np.sum(~finished)} of {len(finished)} episodes were unfinished when "
            "recording stopped; record whole ones (tradax.collect(..., episodes=N)), or leave "
            "them out with drop_unfinished=True, which favours short episodes"
        )
    ends = log.ends
    starts = np.append(0, ends[:-1] + 1)
    n = int(finished.sum())
    if n < 2:
        raise DataError(f"{log.source}: {n} finished episodes are too few; record at least 2")

    time = np.arange(len(log)) - np.repeat(starts, ends + 1 - starts)
    running = np.cumsum(log_ratio)
    before = np.append(0.0, running[ends[:-1]])
    log_rho = running - np.repeat(before, ends + 1 - starts)  # [N]
    # Beyond e^700 there is no float; such a weight already decides everything.
    rho = np.exp(np.minimum(log_rho, 700.0))
    earned = gamma**time * log.reward.astype(np.float64)
    returns = np.add.reduceat(earned, starts)[finished]
    weights = rho[ends][finished]
    if method == "per_decision":
        terms = np.add.reduceat(rho * earned, starts)[finished]
    else:
        terms = weights * returns
    value = terms.mean()
    deviations = terms - value
    if method == "weighted":
        total = weights.sum()
        if total > 0:
            value = terms.sum() / total
            share = weights / total
            left = np.maximum(1.0 - share, 1e-12)
            deviations = n * share * (returns - value) / left
        else:
            value, deviations = np.nan, np.full(n, np.nan)
    from scipy import stats  # 0.5 s

    error = np.sqrt(np.sum(deviations**2) / (n * (n - 1)))
    half = float(stats.t.ppf(0.5 + confidence / 2.0, n - 1) * error)
    return OffPolicyValue(
        value=float(value),
        low=float(value) - half,
        high=float(value) + half,
        effective_sample_size=effective_sample_size(weights),
        episodes=n,
        logged_value=float(returns.mean()),
    )


def log_ratios(policy: Any, log: Log, table: jax.Array | None = None) -> np.ndarray:
    """log pi(a|s) - log b(a|s) of every logged step, float32 [N].

    Args:
        table: of the market that was logged, where the log holds rows of one.

    Raises:
        TradaxError: the policy has no probabilities of actions, or does not fit the log.
    """
    if not hasattr(policy, "distribution"):
        raise TradaxError(
            f"{type(policy).__name__} has no probabilities of actions; importance sampling needs a "
            "stochastic policy"
        )
    if not isinstance(log.obs, Factored):
        table = None
    elif table is None:
        raise DataError(
            f"{log.source}: observations are rows of a market table; give env, the source of the "
            "market that was logged"
        )
    check_fit(log, policy.spec, table)
    return np.asarray(_log_prob(policy, log.obs, log.action, table)) - log.log_prob


def effective_sample_size(weights: np.ndarray) -> float:
    """(sum w)^2 / sum w^2 (Kong 1992); 0 where all weights are."""
    weights = np.asarray(weights, np.float64)
    scaled = weights / max(float(weights.max(initial=0.0)), 1e-300)
    return float(scaled.sum() ** 2 / max(float((scaled**2).sum()), 1e-300))


@eqx.filter_jit
def _log_prob(policy: Any, obs: Any, action: Any, table: Any):
    obs = Factored(jnp.asarray(obs.row), jnp.asarray(obs.account)) if table is not None else obs
    return policy.distribution(obs, table).log_prob(action)
