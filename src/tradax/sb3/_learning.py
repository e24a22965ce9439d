"""Where a model's learning stands: its updates one by one, or many in one compiled program."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax import host_updates, signals, training, updates
from tradax.errors import TrainingError
from tradax.host_envs import HostEnvs, HostStep
from tradax.host_source import HostSource
from tradax.protocols import Algorithm, Experience, Source, TrainState
from tradax.rows import culprit
from tradax.sb3._environments import Seen
from tradax.spaces import Factored


class Learning:
    """One model in one environment, between its updates."""

    def __init__(self, algorithm: Algorithm, source: Source, learner: Any, key: jax.Array):
        began = training.start(algorithm, source.outline, key, axes=None)
        # Copied, for updates overwrite it.
        self._state = began.state._replace(learner=jax.tree.map(jnp.copy, learner))
        self._sums = began.sums
        self._source, self._listening = source, None
        if isinstance(source, HostSource):
            self._listening = Listening(source.envs)
            self._source = source = dataclasses.replace(source, envs=self._listening)
        if source.jittable:
            carry = _reset(algorithm, source, learner, key)
            self._state = self._state._replace(carry=carry)
        else:
            self._state = host_updates.begin(algorithm, source, self._state)
        self._collected: Any = None
        self._began = time.perf_counter()
        self.updates_since_log = 0

    @property
    def learner(self) -> Any:
        return self._state.learner

    def run(self, algorithm: Algorithm, count: int) -> None:
        """Raises TrainingError where a number is not finite.

        An exception, Ctrl-C among them, leaves what was learned before: an update overwrites its
        input, so that none may come between it and where its result is kept.
        """
        if not self._source.jittable:
            for _ in range(count):
                self.collect(algorithm)
                self.learn(algorithm)
            return
        with signals.later():
            self._state, self._sums, _, finite, _ = updates.run(
                algorithm, self._source, self._state, self._sums, count
            )
        self.updates_since_log += count
        self._check(bool(finite))

    def collect(self, algorithm: Algorithm) -> Experience:
        """The steps of the next update, without learning from them yet."""
        state = self._state
        collect_key, learn_key, key = _split(state.key)
        collect = _collect if self._source.jittable else _collect_on_host
        before = state.carry
        if self._listening is not None:
            self._listening.infos.clear()
        carry, experience, finished = collect(
            algorithm, self._source, state.learner, before, collect_key
        )
        self._collected = (before, experience, finished, learn_key)
        self._state = state._replace(carry=carry, key=key)
        return experience

    def learn(self, algorithm: Algorithm) -> None:
        """The update from what was collected last."""
        _, experience, finished, learn_key = self._collected
        given = (algorithm, experience, finished, learn_key)
        state = self._state
        with signals.later():
            learner, self._sums, finite = host_updates.learn(given, state.learner, self._sums)
            self._state = TrainState(learner, state.carry, state.key, state.update + 1)
        self._check(bool(finite))
        self.updates_since_log += 1

    def steps(self, seen: Seen) -> Iterator[dict[str, Any]]:
        """What was collected last, step by step, by the names that callbacks look up."""
        before, e, *_ = self._collected
        obs, next_obs, after = (
            x.flat(e.table) if isinstance(x, Factored) else x
            for x in (e.obs, e.next_obs, self._state.carry.obs)
        )
        earned, length = np.array(before.episode_return), np.array(before.episode_length)
        e, obs, next_obs, after = jax.device_get((e._replace(table=None), obs, next_obs, after))
        space = self._source.spec.action
        taken = e.action if space.discrete else np.clip(e.action, space.low, space.high)
        for t in range(len(e.reward)):
            earned += e.reward[t]
            length += 1
            info = self._listening.infos[t] if self._listening is not None else _nothing
            infos = [info(i) for i in range(len(earned))]
            for i in np.flatnonzero(e.done[t]):
                seconds = round(time.perf_counter() - self._began, 6)
                episode = {"r": float(earned[i]), "l": int(length[i]), "t": seconds}
                infos[i] = {
                    "episode": episode,
                    "terminal_observation": next_obs[t, i],
                    "TimeLimit.truncated": bool(e.truncated[t, i]),
                    **infos[i],
                }
                earned[i] = length[i] = 0
            yield {
                "actions": e.action[t],
                "clipped_actions": seen.act(taken[t]),
                "rewards": e.reward[t],
                "dones": e.done[t],
                "infos": infos,
                "new_obs": obs[t + 1] if t + 1 < len(obs) else after,
            }

    @property
    def episodes_since_log(self) -> int:
        return int(self._sums.finished.episodes)

    def mean_episode(self) -> tuple[float, float] | None:
        """Return and length of the episodes that ended since the last log."""
        ended = jax.device_get(self._sums.finished)
        if not ended.episodes:
            return None
        return float(ended.return_sum / ended.episodes), float(ended.length_sum / ended.episodes)

    def metrics(self) -> dict[str, float]:
        """Means over the updates since the last log."""
        count = max(self.updates_since_log, 1)
        return {name: float(x) / count for name, x in jax.device_get(self._sums.metrics).items()}

    def forget_metrics(self) -> None:
        self._sums = jax.tree.map(jnp.zeros_like, self._sums)
        self.updates_since_log = 0

    def _check(self, finite: bool) -> None:
        if not finite:
            raise TrainingError(f"update {int(self._state.update)}: {culprit(self._sums)}")


class Listening(HostEnvs):
    """Environments on the host, and what they said of the steps since the last update."""

    def __init__(self, envs: HostEnvs):
        self._envs, self.spec, self.num_envs = envs, envs.spec, envs.num_envs
        self.observation_space = envs.observation_space
        self.infos: list[Callable[[int], dict[str, Any]]] = []

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        return self._envs.reset(seeds)

    def step(self, action: np.ndarray) -> HostStep:
        step = self._envs.step(action)
        self.infos.append(step.info)
        return step


def _nothing(i: int) -> dict[str, Any]:
    return {}


@jax.jit
def _split(key: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(jax.random.split(key, 3))


@eqx.filter_jit
def _reset(algorithm: Algorithm, source: Source, learner: Any, key: jax.Array) -> Any:
    return source.reset(key, algorithm.actor(learner))


def _collect_on_host(algorithm: Algorithm, source: Source, learner: Any, carry: Any, key: Any):
    return algorithm.collect(learner, source, carry, key)


@eqx.filter_jit
def _collect(algorithm: Algorithm, source: Source, learner: Any, carry: Any, key: jax.Array):
    return algorithm.collect(learner, source, carry, key)
