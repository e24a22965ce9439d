"""Runs and logs of trajectories: recording what a run's policy does, and learning from a file."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tradax import discovery
from tradax.errors import ConfigError
from tradax.evaluation.off_policy import effective_sample_size, log_ratios
from tradax.log_file import check_name, read_log, write_log
from tradax.logged import Log, LoggedSource, logged_source
from tradax.model_file import load_policy
from tradax.policies import NetworkPolicy
from tradax.preparation import Task, needs_bars, policy_names, reopen
from tradax.protocols import Policy
from tradax.recording import record
from tradax.rollout import JaxSource, jax_source
from tradax.sources import object_name

_LEARNS = "LEARNS_FROM_LOGS"
_LEAST_SAMPLE = 0.05  # of the log, as effective sample size, before one is warned


def collect(
    policy: Policy | Path | str,
    env: Any = None,
    *,
    path: Path | str | None = None,
    n_steps: int | None = None,
    episodes: int | None = None,
    num_envs: int = 64,
    max_steps: int = 10_000,
    seed: int = 0,
) -> Log:
    """Let a policy act, sampling its actions, and write every step to a Parquet file.

    Args:
        policy: a policy, a run directory, or a `policy.zip`.
        env: a gymnax name, a simulated market's name, an environment object, or (environment,
            parameters). By default the environment of the run directory, with the data that it
            was trained on.
        path: the file, .parquet; not written by default.
        n_steps: steps in all, side by side in `num_envs` environments, rounded up to a multiple
            of these. For learning.
        episodes: instead, so many whole episodes, side by side. For estimates of values too.
        max_steps: episodes that have not ended by then are left unfinished.

    Returns: what was written.

    Raises:
        TradaxError: policy and environment do not fit, or an option is outside what is allowed.
    """
    name = env if isinstance(env, str) else ""
    if path is not None:
        check_name(path)
    if env is None:
        if isinstance(policy, Policy):
            raise ConfigError("give the environment, or a run directory instead of the policy")
        folder = Path(policy)
        request, task = reopen(folder)
        name = request.env
        if task.members is not None:
            symbols = ", ".join(policy_names(request, task))
            raise ConfigError(
                f"{folder} holds a policy for each of {symbols}; give one policy.zip, and "
                "(environment, parameters)"
            )
        if not isinstance(task.source, JaxSource):
            raise ConfigError(
                f"{name} is stepped on the host, and only environments on the device are recorded"
            )
        environment, params = task.source.env, task.source.params
    else:
        environment, params = env if isinstance(env, tuple) else (env, None)
        if isinstance(env, str) and env in discovery.environments():
            if needs_bars(env):
                raise ConfigError(
                    f"{env} trades given prices; give a run directory, or (environment, parameters)"
                )
            env_module = discovery.module("envs", env)
            environment, params = env_module.make(env_module.Config())
    source = jax_source(environment, params, num_envs=num_envs)
    if not isinstance(policy, Policy):
        policy = load_policy(policy)
    log = record(
        policy,
        source,
        n_steps=n_steps,
        episodes=episodes,
        max_steps=max_steps,
        seed=seed,
        name=name or object_name(env),
    )
    if path is not None:
        write_log(log, path)
    return log


def from_log(path: str, algorithm: str, task: Task) -> Task:
    """The same task, learning from a file alone."""
    if not discovery.flag("algorithms", algorithm, _LEARNS):
        fit = [n for n in discovery.algorithms() if discovery.flag("algorithms", n, _LEARNS)]
        raise ConfigError(
            f"{algorithm} cannot learn from logged trajectories; these can: {', '.join(fit)}"
        )
    if task.folds:
        raise ConfigError("a log has no folds; leave out one of folds (--folds) and offline")
    if task.members is not None:
        raise ConfigError(
            "a log trains one policy, and these data have several symbols with one each; choose "
            "one of them (--symbols), or one policy for all (--shared-policy)"
        )
    log, there = read_log(path), task.source
    like = there if isinstance(there, JaxSource) else None
    source = logged_source(log, like=like, spec=there.spec, num_envs=there.num_envs)
    return task._replace(source=source, log=log)


def log_facts(task: Task, policy: NetworkPolicy) -> dict[str, Any]:
    """What the policy learned from, and how much the log knows of what it does now."""
    assert task.log is not None
    assert isinstance(task.source, LoggedSource)
    log = task.log
    ratio = log_ratios(policy, log, task.source.table)
    fraction = effective_sample_size(np.exp(np.minimum(ratio, 60.0))) / len(log)
    if fraction < _LEAST_SAMPLE:
        warnings.warn(
            f"the log knows little of what the policy does now: the effective sample size of its "
            f"importance weights is {fraction:.1%} of {len(log):,} steps, under "
            f"{_LEAST_SAMPLE:.0%}. Record more, with a policy closer to this one, or lower "
            "behaviour_kl",
            stacklevel=2,
        )
    return {
        "file": log.source,
        "steps": len(log),
        "episodes": len(log.ends),
        "mean_return": float(log.returns.mean()),
        "effective_sample_fraction": fraction,
    }
