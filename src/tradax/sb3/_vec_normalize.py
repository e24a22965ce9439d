"""Statistics of Stable-Baselines3's VecNormalize as plain JSON, and as our running moments.

Its own file is a pickle, which is not read here. Where it was made, write plain numbers instead:

    tradax.sb3.save_vec_normalize("statistics.json", VecNormalize.load("vecnormalize.pkl", venv))
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from tradax.errors import ConfigError, ModelFileError
from tradax.files import write_json
from tradax.networks import RunningMoments
from tradax.reading import check_version, json_value, read_bytes

_FORMAT = "tradax-vec-normalize"
_VERSION = 1
_EPSILON, _CLIP = 1e-8, 10.0  # of RunningMoments
_MOST_BYTES = 2**26


@dataclass(frozen=True)
class Statistics:
    """Running mean and variance, float64."""

    mean: np.ndarray
    var: np.ndarray
    count: float


class VecStatistics(NamedTuple):
    """What VecNormalize has seen, and how it normalises."""

    observations: Statistics | None
    """None where observations are left as they are."""
    returns: Statistics
    """Of discounted returns, of no axes."""
    clip_obs: float = 10.0
    clip_reward: float = 10.0
    gamma: float = 0.99
    epsilon: float = 1e-8

    def normalizer(self) -> RunningMoments | None:
        """The same normaliser of observations, as policies carry it.

        Raises:
            ConfigError: it clips elsewhere than ours, which clips at 10 deviations.
        """
        if self.observations is None:
            return None
        if self.clip_obs != _CLIP:
            raise ConfigError(
                f"clip_obs is {self.clip_obs}; policies clip observations at {_CLIP:g} deviations"
            )
        seen = self.observations
        var = seen.var + (self.epsilon - _EPSILON)
        return RunningMoments(*(jnp.asarray(x, jnp.float32) for x in (seen.count, seen.mean, var)))

    def install(self, vec_normalize: Any) -> None:
        """Give a VecNormalize these numbers."""
        for rms, statistics in (
            ("obs_rms", self.observations),
            ("ret_rms", self.returns),
        ):
            if statistics is not None:
                target = getattr(vec_normalize, rms)
                target.mean, target.var = statistics.mean.copy(), statistics.var.copy()
                target.count = statistics.count
        for name in ("clip_obs", "clip_reward", "gamma", "epsilon"):
            setattr(vec_normalize, name, getattr(self, name))


def save_vec_normalize(path: Path | str, source: Any, *, gamma: float = 0.99) -> None:
    """Write statistics as JSON.

    Args:
        source: a VecNormalize, a `VecStatistics`, or the `moments` of one of our learners.
        gamma: discount of the returns, of a learner.

    Raises:
        ConfigError: a VecNormalize of dictionaries, or a learner without such statistics.
    """
    found = source if isinstance(source, VecStatistics) else _statistics(source, gamma)
    description = {"format": _FORMAT, "version": _VERSION, **found._asdict()}
    for name in ("observations", "returns"):
        if (one := description[name]) is not None:
            description[name] = {
                "mean": np.asarray(one.mean, float).tolist(),
                "var": np.asarray(one.var, float).tolist(),
                "count": float(one.count),
            }
    write_json(path, description)


def load_vec_normalize(path: Path | str) -> VecStatistics:
    """Read what `save_vec_normalize` wrote.

    Raises:
        ModelFileError: another file, or a damaged one.
    """
    path = Path(path)
    try:
        description = json_value(read_bytes(path, most=_MOST_BYTES), path)
        if description["format"] != _FORMAT:
            raise ValueError("its format is another")
        check_version(description["version"], _VERSION, path)
        observations = description["observations"]
        numbers = {
            k: float(description[k]) for k in ("clip_obs", "clip_reward", "gamma", "epsilon")
        }
        found = VecStatistics(
            None if observations is None else _read(observations, 1),
            _read(description["returns"], 0),
            **numbers,
        )
        if not all(np.isfinite(x) and x >= 0 for x in numbers.values()):
            raise ValueError("a number is not finite")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path}: not statistics of VecNormalize ({error})") from None
    return found


def _read(given: dict[str, Any], axes: int) -> Statistics:
    mean, var = (np.array(given[key], np.float64) for key in ("mean", "var"))
    count = float(given["count"])
    if mean.ndim != axes or mean.shape != var.shape:
        raise ValueError(f"mean and variance of shapes {mean.shape} and {var.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(var).all() and (var >= 0).all() and count > 0):
        raise ValueError("statistics are not finite, or a variance is negative")
    return Statistics(mean, var, count)


def _statistics(source: Any, gamma: float) -> VecStatistics:
    if hasattr(source, "ret_rms"):
        observations = getattr(source, "obs_rms", None) if source.norm_obs else None
        if isinstance(observations, dict):
            raise ConfigError("VecNormalize of dictionaries is not supported")
        kept = (source.clip_obs, source.clip_reward, source.gamma, source.epsilon)
        return VecStatistics(_of(observations), _of(source.ret_rms), *map(float, kept))
    returns = source.returns
    if returns is None:
        returns = RunningMoments.create(())
    return VecStatistics(_of(source.observations), _of(returns), gamma=float(gamma))


def _of(rms: Any) -> Any:
    if rms is None:
        return None
    return Statistics(
        np.asarray(rms.mean, np.float64), np.asarray(rms.var, np.float64), float(rms.count)
    )
