"""`evaluate_policy`, for environments of Gymnasium, vector environments, and names."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tradax.errors import ConfigError
from tradax.sb3._environments import environment
from tradax.sb3._model import Model
from tradax.spaces import Spec


def evaluate_policy(
    model: Model,
    env: Any,
    n_eval_episodes: int = 10,
    deterministic: bool = True,
    render: bool = False,
    callback: Callable[[dict, dict], None] | None = None,
    reward_threshold: float | None = None,
    return_episode_rewards: bool = False,
    warn: bool = True,
) -> Any:
    """Play episodes of an environment, on the device where it is a market or a gymnax name.

    Episodes count as the environment says that they end; `warn` is there for callers that pass it.

    Returns: mean and deviation of their returns, or with `return_episode_rewards` the returns and
        the lengths.

    Raises:
        ConfigError: `callback` or `render`, which Stable-Baselines3's own function has for VecEnvs;
            a model that is not ours; or the environment has other spaces than the model.
        AssertionError: the mean is not above `reward_threshold`.
    """
    if callback is not None or render:
        raise ConfigError(
            "callback and render are not supported here; stable_baselines3's evaluate_policy takes "
            "these models too"
        )
    if n_eval_episodes < 1:
        raise ConfigError(f"n_eval_episodes is {n_eval_episodes}; it must be at least 1")
    if not isinstance(model, Model):
        raise ConfigError(
            f"the model is a {type(model).__module__}.{type(model).__name__}; this function takes "
            "those of tradax.sb3"
        )
    source = environment(env).source
    ours, theirs = model.algorithm.spec, source.spec
    if _sizes(ours) != _sizes(theirs):
        raise ConfigError(
            f"the model takes observations of {ours.size} numbers and {ours.action}; the "
            f"environment has observations of {theirs.size} and {theirs.action}"
        )
    returns, lengths = model.episodes(
        source.of(n_eval_episodes) if source.jittable else source, n_eval_episodes, deterministic
    )
    mean, spread = float(np.mean(returns)), float(np.std(returns))
    if reward_threshold is not None:
        assert mean > reward_threshold, (
            f"mean reward {mean:.2f} is not above {reward_threshold:.2f}"
        )
    return (returns, lengths) if return_episode_rewards else (mean, spread)


def _sizes(spec: Spec) -> tuple[int, int | None, int]:
    return spec.size, spec.action.n, spec.action.size
