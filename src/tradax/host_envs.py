"""Environments that other libraries step on the host, behind one small interface.

`GymnasiumEnvs` wraps a Gymnasium vector environment, `StableBaselinesEnvs` a vector environment as
Stable-Baselines3 has them, known by its methods alone: neither library is imported for the other.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from tradax.errors import TradaxError
from tradax.spaces import ActionSpec, Spec, action_spec


class HostStep(NamedTuple):
    """A step of B environments, in which those that ended were reset at once."""

    obs: np.ndarray
    """float32 [B, D], after resets."""
    reward: np.ndarray
    """[B]"""
    terminated: np.ndarray
    """bool [B]; never where `truncated`."""
    truncated: np.ndarray
    next_obs: np.ndarray
    """The true next observations; `obs` itself where no episode ended."""
    info: Callable[[int], dict[str, Any]]
    """What the environment says beside them, by its number; of the step, not of the reset."""

    def episode(self, i: int, earned: float, length: int) -> tuple[float, int]:
        """Return and length of an episode that ended, as Monitor counts them where there is one.

        Wrappers around it may scale rewards, so that what was earned here is another number.
        """
        told = self.info(i).get("episode")
        if not isinstance(told, dict) or "r" not in told or "l" not in told:
            return float(earned), int(length)
        return float(told["r"]), int(told["l"])


class HostEnvs(Protocol):
    """B environments side by side."""

    spec: Spec
    num_envs: int
    observation_space: Any
    """Gymnasium's, of one of them."""

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Begin B episodes with these seeds. Returns: observations float32 [B, D]."""
        ...

    def step(self, action: np.ndarray) -> HostStep:
        """Args: action: int [B] or float32 [B, A], within the bounds."""
        ...


class GymnasiumEnvs:
    """A Gymnasium vector environment that resets in the step in which an episode ends."""

    def __init__(self, envs: Any):
        from gymnasium.vector import AutoresetMode

        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise TradaxError(
                f"the vector environment resets in mode {getattr(mode, 'name', mode)}, in which "
                "some steps are no steps; make it with autoreset_mode="
                "gymnasium.vector.AutoresetMode.SAME_STEP"
            )
        self.envs, self.num_envs = envs, int(envs.num_envs)
        self.observation_space = envs.single_observation_space
        self._see = Observations(self.observation_space)
        self._act = Actions(envs.single_action_space)
        self.spec = Spec(0, self._see.size, self._act.spec)

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        return self._see(self.envs.reset(seed=list(seeds))[0], self.num_envs)

    def step(self, action: np.ndarray) -> HostStep:
        raw, reward, terminated, truncated, infos = self.envs.step(self._act(action))
        obs = next_obs = self._see(raw, self.num_envs)
        if "final_obs" in infos:
            next_obs = obs.copy()
            for i in np.flatnonzero(terminated | truncated):
                next_obs[i] = self._see(infos["final_obs"][i], 1)[0]
        done = terminated | truncated

        def info(i: int) -> dict[str, Any]:
            ended = infos.get("final_info") if done[i] else None
            return _of_one(infos if ended is None else ended, i)

        return HostStep(obs, reward, terminated, truncated & ~terminated, next_obs, info)


def _of_one(infos: dict[str, Any], i: int) -> dict[str, Any]:
    """What Gymnasium's vector environments put side by side, of one of them.

    Under "_name" stands which of them have it.
    """
    found = {}
    for name, values in infos.items():
        given = infos.get(f"_{name}")
        if (name.startswith("_") and name[1:] in infos) or (given is not None and not given[i]):
            continue
        if isinstance(values, dict):
            found[name] = _of_one(values, i)
        else:
            found[name] = values[i] if isinstance(values, np.ndarray) else values
    return found


class StableBaselinesEnvs:
    """A vector environment with `step_async` and `step_wait`, as Stable-Baselines3 has them."""

    def __init__(self, envs: Any):
        self.envs, self.num_envs = envs, int(envs.num_envs)
        self.observation_space = envs.observation_space
        self._see = Observations(self.observation_space)
        self._act = Actions(envs.action_space)
        self.spec = Spec(0, self._see.size, self._act.spec)

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        if seeds[0] in seeds[1:]:
            raise TradaxError(
                "a Stable-Baselines3 vector environment cannot begin several episodes alike; turn "
                "same_episodes off, or give Gymnasium environments"
            )
        if hasattr(self.envs, "seed"):
            self.envs.seed(int(seeds[0]))
        return self._see(self.envs.reset(), self.num_envs)

    def step(self, action: np.ndarray) -> HostStep:
        self.envs.step_async(self._act(action))
        raw, reward, done, infos = self.envs.step_wait()
        obs = next_obs = self._see(raw, self.num_envs)
        truncated = np.zeros(self.num_envs, bool)
        if done.any():
            next_obs = obs.copy()
            for i in np.flatnonzero(done):
                next_obs[i] = self._see(infos[i]["terminal_observation"], 1)[0]
                truncated[i] = infos[i].get("TimeLimit.truncated", False)
        return HostStep(obs, reward, done & ~truncated, truncated, next_obs, lambda i: infos[i])


class Observations:
    """How observations of one space become vectors: a Box flattened, a Discrete number one-hot."""

    def __init__(self, space: Any):
        kind = type(space).__name__
        if kind not in ("Box", "Discrete"):
            raise TradaxError(
                f"observation space {kind} is not supported; use Box or Discrete "
                "(gymnasium.wrappers.FlattenObservation makes a Box of many others)"
            )
        self._one_hot = np.eye(space.n, dtype=np.float32) if kind == "Discrete" else None
        self._start = int(space.start) if kind == "Discrete" else 0
        self.size = int(space.n) if kind == "Discrete" else int(np.prod(space.shape, dtype=int))

    def __call__(self, raw: Any, batch: int) -> np.ndarray:
        """Observations of `batch` environments -> float32 [batch, D]; may share memory."""
        if self._one_hot is not None:
            return self._one_hot[np.asarray(raw).reshape(batch) - self._start]
        return np.asarray(raw, np.float32).reshape(batch, self.size)


class Actions:
    """How actions of a policy become those of a space."""

    spec: ActionSpec

    def __init__(self, space: Any):
        self.spec = action_spec(space)
        self._space = space
        if not self.spec.discrete and not np.issubdtype(space.dtype, np.floating):
            raise TradaxError(
                f"actions of a Box of {space.dtype} are not supported; use Discrete, or floats"
            )

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """int [B] or float32 [B, A] -> the same in the space's type, shape and offset."""
        if self.spec.discrete:
            return action.astype(self._space.dtype) + self._space.start
        return action.astype(self._space.dtype).reshape(-1, *self._space.shape)
