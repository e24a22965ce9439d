"""A source whose environments are stepped on the host, outside of compiled programs.

The actor is one compiled call a step. What an environment holds lies outside of the training
state, so that such a source cannot resume in the middle of an episode: it begins new ones.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax.errors import TradaxError
from tradax.host_envs import HostEnvs
from tradax.protocols import Actor, Experience, Finished, Source
from tradax.rollout import Carry
from tradax.spaces import Spec

_KEYS_AHEAD = 128


class HostSource(Source):
    """Environments of another library, stepped side by side on the host."""

    envs: HostEnvs = eqx.field(static=True)
    spec: Spec = eqx.field(static=True)
    num_envs: int = eqx.field(static=True)
    another: Callable[[int], HostEnvs] | None = eqx.field(static=True, default=None)
    """Makes so many new environments of the same kind; None: there are only these."""
    name: str = eqx.field(static=True, default="host")
    fixed: bool = eqx.field(static=True, default=False)
    """Whether the number of environments was chosen by whoever gave them."""
    axis: str | None = eqx.field(static=True, default=None)

    @property
    def jittable(self) -> bool:
        return False

    @property
    def outline(self) -> "Outline":
        return Outline(self.spec, self.num_envs)

    def of(self, num_envs: int) -> "HostSource":
        return self if num_envs == self.num_envs else self.fresh(num_envs)

    def fresh(self, num_envs: int) -> "HostSource":
        """New environments of the same kind, apart from these.

        Raises:
            TradaxError: these were given ready-made, and cannot be made again.
        """
        if num_envs < 1:
            raise TradaxError(f"num_envs is {num_envs}; it must be at least 1")
        if self.another is None:
            raise TradaxError(
                f"{num_envs} environments of {self.name} are needed beside the {self.num_envs} "
                "that were given, and they cannot be made again; give an id, an environment, or a "
                "function that makes one"
            )
        return host_source(self.another(num_envs), self.another, name=self.name)

    def reset(self, key: jax.Array, actor: Actor) -> Carry:
        return self._reset(key, actor, np.arange(self.num_envs))

    def _reset(self, key: jax.Array, actor: Actor, number: np.ndarray) -> Carry:
        """Args: number: int [B]; environments with equal numbers begin alike."""
        obs = self.envs.reset(_seeds(key, number).tolist()).copy()
        zeros = np.zeros(self.num_envs, np.float32)
        return Carry(*jax.device_put(((), obs, actor.initial_memory(self.num_envs), zeros, zeros)))

    def collect(
        self, carry: Carry, actor: Actor, key: jax.Array, n_steps: int
    ) -> tuple[Carry, Experience, Finished]:
        shape = (n_steps, self.num_envs)
        obs = np.empty((n_steps + 1, *np.shape(carry.obs)), np.float32)
        next_obs = np.empty_like(obs[1:])
        reward = np.empty(shape, np.float32)
        terminated, truncated = np.empty(shape, bool), np.empty(shape, bool)
        earned, length = np.array(carry.episode_return), np.array(carry.episode_length)
        sums = np.zeros(3, np.float32)
        actions, extras = [], []
        obs[0] = carry.obs
        agent = _Agent(self.spec, actor, key, carry.memory, self.num_envs)
        for t in range(n_steps):
            action, noted = agent.act(obs[t])
            step = self.envs.step(agent.within_bounds(action))
            obs[t + 1], next_obs[t] = step.obs, step.next_obs
            reward[t], terminated[t], truncated[t] = step.reward, step.terminated, step.truncated
            actions.append(action)
            extras.append(noted)
            earned += reward[t]
            length += 1
            done = step.terminated | step.truncated
            if done.any():
                for i in np.flatnonzero(done).tolist():
                    sums += (1, *step.episode(i, earned[i], length[i]))
                earned[done] = length[done] = 0
                agent.forget(done)
        record = (
            obs[:-1],
            np.stack(actions),
            reward,
            next_obs,
            terminated,
            truncated,
            jax.tree.map(lambda *steps: np.stack([np.asarray(x) for x in steps]), *extras),
        )
        after = ((), obs[-1], agent.memory, earned, length)
        record, after, sums = jax.device_put((record, after, tuple(sums)))
        return Carry(*after), Experience(*record, table=None), Finished(*sums)

    def episodes(
        self, actor: Actor, key: jax.Array, limit: int, *, copies: int = 1, first: Any = 0
    ) -> tuple[jax.Array, jax.Array]:
        reset_key, key = jax.random.split(key)
        number = int(first) + np.tile(np.arange(self.num_envs // copies), copies)
        carry = self._reset(reset_key, actor, number)
        returns, lengths = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, np.float32)
        alive, obs = np.ones(self.num_envs, bool), np.asarray(carry.obs)
        agent = _Agent(self.spec, actor, key, carry.memory, self.num_envs)
        for _ in range(limit):
            action, _ = agent.act(obs)
            step = self.envs.step(agent.within_bounds(action))
            returns += np.where(alive, step.reward, 0.0).astype(np.float32)
            lengths += alive
            done = step.terminated | step.truncated
            for i in np.flatnonzero(alive & done).tolist():
                returns[i], lengths[i] = step.episode(i, returns[i], lengths[i])
            alive &= ~done
            if not alive.any():
                break
            if done.any():
                agent.forget(done)
            obs = step.obs.copy()
        return jnp.asarray(returns), jnp.asarray(lengths)


def host_source(
    envs: HostEnvs,
    another: Callable[[int], HostEnvs] | None = None,
    *,
    name: str = "host",
    fixed: bool = False,
) -> HostSource:
    """A source of these environments; see the fields of `HostSource`."""
    return HostSource(
        envs=envs,
        spec=envs.spec,
        num_envs=envs.num_envs,
        another=another,
        name=name,
        fixed=fixed,
    )


class Outline(Source):
    """The shapes of what a `HostSource` gives, as something that can be traced: all zeros."""

    spec: Spec = eqx.field(static=True)
    num_envs: int = eqx.field(static=True)
    axis: str | None = eqx.field(static=True, default=None)

    def reset(self, key: jax.Array, actor: Actor) -> Carry:
        zeros = jnp.zeros(self.num_envs)
        obs = jnp.zeros((self.num_envs, self.spec.size))
        return Carry((), obs, actor.initial_memory(self.num_envs), zeros, zeros)

    def collect(
        self, carry: Carry, actor: Actor, key: jax.Array, n_steps: int
    ) -> tuple[Carry, Experience, Finished]:
        action, memory, extras = actor(carry.obs, carry.memory, key)
        zero = jnp.zeros(self.num_envs)
        step = (carry.obs, action, zero, carry.obs, zero > 0, zero > 0, extras)
        steps = jax.tree.map(lambda x: jnp.zeros((n_steps, *x.shape), x.dtype), step)
        carry = carry._replace(memory=memory)
        return carry, Experience(*steps, table=None), Finished(*[jnp.float32(0)] * 3)

    def episodes(
        self, actor: Actor, key: jax.Array, limit: int, *, copies: int = 1, first: Any = 0
    ) -> tuple[jax.Array, jax.Array]:
        return jnp.zeros(self.num_envs), jnp.zeros(self.num_envs)


class _Agent:
    """An actor between compiled code and the host: one call a step, numpy in and out."""

    def __init__(self, spec: Spec, actor: Actor, key: jax.Array, memory: Any, batch: int):
        leaves, structure = jax.tree.flatten(actor)
        self._act = _compiled(structure)
        self._leaves, self._key, self.memory = tuple(leaves), key, memory
        self._keys: list[np.ndarray] = []
        self._begun = actor.initial_memory(batch)
        self._discrete = spec.action.discrete
        self._low, self._high = (
            np.asarray(bound, np.float32) for bound in (spec.action.low, spec.action.high)
        )

    def act(self, obs: np.ndarray) -> tuple[np.ndarray, Any]:
        """Returns: action [B, ...], and what the actor noted, on the device."""
        if not self._keys:
            self._key, ahead = _keys_ahead(self._key)
            self._keys = list(np.asarray(ahead))
        action, self.memory, extras = self._act(self._leaves, self._keys.pop(), obs, self.memory)
        return np.asarray(action), extras

    def within_bounds(self, action: np.ndarray) -> np.ndarray:
        if self._discrete:
            return action
        return np.minimum(np.maximum(action, self._low), self._high)

    def forget(self, done: np.ndarray) -> None:
        """What the actor remembers of episodes that have ended."""

        def begun(new, old):
            return np.where(done.reshape(done.shape + (1,) * (old.ndim - 1)), new, old)

        self.memory = jax.tree.map(begun, self._begun, self.memory)


@functools.cache
def _compiled(structure: Any) -> Callable:
    """The actor of that structure as a compiled function of its leaves."""

    @jax.jit
    def act(leaves, key, obs, memory):
        return jax.tree.unflatten(structure, leaves)(obs, memory, jax.random.wrap_key_data(key))

    return act


@jax.jit
def _keys_ahead(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A key, and words [128, 2] of as many: typed keys pass through a compiled call slowly."""
    key, ahead_key = jax.random.split(key)
    return key, jax.random.key_data(jax.random.split(ahead_key, _KEYS_AHEAD))


@jax.jit
def _seeds(key: jax.Array, number: jax.Array) -> jax.Array:
    """A seed below 2^31 for each environment, by its number."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(number)
    return jax.vmap(lambda k: jax.random.bits(k, dtype=jnp.uint32))(keys) >> 1
