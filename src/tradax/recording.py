"""Recording: a policy acts, and every step is kept."""

import hashlib
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import numpy as np

from tradax.errors import TradaxError
from tradax.logged import METADATA_VERSION, Log, describe_spec, describe_table
from tradax.protocols import Actor, Experience, Logged, Policy
from tradax.rollout import JaxSource

_CHUNK = 128


def record(
    policy: Policy,
    source: JaxSource,
    *,
    n_steps: int | None = None,
    episodes: int | None = None,
    max_steps: int = 10_000,
    seed: int = 0,
    name: str = "",
) -> Log:
    """Let a policy act, sampling its actions, and keep every step.

    Args:
        n_steps: steps in all, side by side in the source's environments, rounded up to a multiple
            of their number. The last episode of each environment is usually unfinished.
        episodes: instead of `n_steps`, whole episodes; those longer than `max_steps` stay
            unfinished.
        name: of the environment, for the metadata.

    Raises:
        TradaxError: the policy was made for another environment, or has no probabilities.
    """
    if (n_steps is None) == (episodes is None):
        raise TradaxError("give n_steps or episodes, and not both")
    for word, value in (("n_steps", n_steps), ("episodes", episodes), ("max_steps", max_steps)):
        if value is not None and value < 1:
            raise TradaxError(f"{word} is {value}; it must be at least 1")
    if source.spec != policy.spec:
        raise TradaxError(
            f"the policy was made for {policy.spec}, the environment has {source.spec}"
        )
    if episodes is not None:
        source = replace(source, num_envs=episodes)
    length = max_steps if n_steps is None else -(-n_steps // source.num_envs)
    actor = policy.actor(sample=True)
    reset_key, key = jax.random.split(jax.random.key(seed))
    carry = _reset(source, reset_key, actor)
    chunks, steps, ended = [], 0, np.zeros(source.num_envs, bool)
    while steps < length and not (episodes is not None and ended.all()):
        chunk = min(_CHUNK if n_steps is None else 32 * _CHUNK, length - steps)
        carry, experience, _ = _collect(source, carry, actor, jax.random.fold_in(key, steps), chunk)
        if not isinstance(experience.extras, Logged):
            raise TradaxError(
                f"{type(policy).__name__} has no probabilities of actions, which learning from a "
                "log needs; record a stochastic policy"
            )
        chunks.append(jax.tree.map(np.asarray, experience._replace(table=None)))
        ended |= chunks[-1].done.any(axis=0)
        steps += chunk
    together = jax.tree.map(lambda *x: np.concatenate(x), *chunks)
    metadata = {
        "version": METADATA_VERSION,
        "env": name,
        "spec": describe_spec(source.spec),
        "policy": {"kind": type(policy).__name__, "sha256": _hash(policy)},
        "seed": seed,
        "table": describe_table(source.table()),
    }
    return _from_rollout(together, metadata, first_only=episodes is not None)


@eqx.filter_jit
def _reset(source: JaxSource, key: jax.Array, actor: Actor):
    return source.reset(key, actor)


@eqx.filter_jit
def _collect(source: JaxSource, carry: Any, actor: Actor, key: jax.Array, n_steps: int):
    return source.collect(carry, actor, key, n_steps)


def _from_rollout(experience: Experience, metadata: dict, *, first_only: bool) -> Log:
    """Args: experience: [T, B, ...]; `first_only` keeps one episode of each environment."""
    steps, envs = experience.reward.shape
    done = experience.done
    before = np.cumsum(done, axis=0) - done  # episodes that ended earlier, [T, B]
    kept = (before == 0) if first_only else np.ones_like(done)

    def in_order(x: np.ndarray) -> np.ndarray:
        return np.swapaxes(x, 0, 1)[kept.T]

    flat: Experience = jax.tree.map(in_order, experience)
    number = in_order(before + steps * np.arange(envs))
    episode = np.append(0, np.cumsum(np.diff(number) != 0)).astype(np.int64)
    ends = np.flatnonzero(np.append(np.diff(episode) != 0, True))
    return Log(
        obs=flat.obs,
        action=np.asarray(flat.action),
        log_prob=np.asarray(flat.extras.log_prob),
        reward=np.asarray(flat.reward),
        terminated=np.asarray(flat.terminated),
        truncated=np.asarray(flat.truncated),
        episode=episode,
        last_obs=jax.tree.map(lambda x: x[ends], flat.next_obs),
        metadata=metadata,
    )


def _hash(policy: Policy) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(policy):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
