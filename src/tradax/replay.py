"""Experience replay: a ring buffer as a pytree, filled and sampled inside the compiled program.

A step of every environment is a row of 32-bit words, so that adding is one write and sampling one
gather, whatever an observation consists of. Factored observations stay (row, account): the market's
features are never copied into the buffer. The true next observation is stored, and termination and
truncation apart, so that a value is bootstrapped after the one and not after the other.
"""

import os
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.draws import random_words
from tradax.errors import ConfigError
from tradax.optimise import draw_distinct
from tradax.protocols import Experience
from tradax.spaces import Factored, Observation, Spec


class Transitions(NamedTuple):
    """What follows n steps of an episode, or fewer where it ends or the buffer does; [N, ...]."""

    obs: Observation
    action: jax.Array
    reward: jax.Array
    """Discounted sum over the steps."""
    next_obs: Observation
    """After the last of them."""
    discount: jax.Array
    """Of the value of `next_obs`: gamma to the number of steps, 0 where the episode terminated."""


class Stored(NamedTuple):
    """One step as it is kept; [..., ...]."""

    obs: Observation
    action: jax.Array
    reward: jax.Array
    next_obs: Observation
    terminated: jax.Array
    truncated: jax.Array


class Ring(eqx.Module):
    """The last `capacity` steps of every environment."""

    words: jax.Array
    """uint32 [capacity, B, W]"""
    cursor: jax.Array
    """int32: slot of the next step; the oldest one is there once the ring is full."""
    filled: jax.Array
    """int32: slots in use."""
    spec: Spec = eqx.field(static=True)

    @staticmethod
    def create(spec: Spec, capacity: int, num_envs: int) -> "Ring":
        """An empty ring of `capacity` slots of `num_envs` steps each."""
        words = jnp.zeros((capacity, num_envs, _width(spec)), jnp.uint32)
        return Ring(words, jnp.int32(0), jnp.int32(0), spec)

    @property
    def capacity(self) -> int:
        return self.words.shape[0]

    @property
    def size(self) -> jax.Array:
        """Steps that can be drawn."""
        return self.filled * self.words.shape[1]

    def add(self, experience: Experience | Stored) -> "Ring":
        """Append steps [T, B] in time order; the oldest make room.

        Actions are stored as they are given, as floats.
        """
        steps = self._pack(experience)
        count = steps.shape[0]
        if count > self.capacity:
            raise ConfigError(f"{count} steps do not fit into a buffer of {self.capacity}")
        if count == 1:
            words = jax.lax.dynamic_update_slice(self.words, steps, (self.cursor, 0, 0))
        else:
            words = self.words.at[(self.cursor + jnp.arange(count)) % self.capacity].set(steps)
        cursor = (self.cursor + count) % self.capacity
        return Ring(words, cursor, jnp.minimum(self.filled + count, self.capacity), self.spec)

    def sample(
        self,
        key: jax.Array,
        count: int,
        *,
        gamma: float | jax.Array,
        return_steps: int = 1,
        replacement: bool = True,
    ) -> Transitions:
        """Draw transitions uniformly from all steps that are stored.

        Args:
            return_steps: n of n-step returns. Steps follow each other across the seam of the ring;
                a return is shorter where its episode or the stored experience ends.
            replacement: may a step be drawn twice; if not, at least `count` must be stored.
        """
        if replacement:
            # The remainder favours none by more than size / 2^32.
            index = random_words(key, count) % self.size.astype(jnp.uint32)
            index = index.astype(jnp.int32)
        else:
            index = draw_distinct(key, count, self.size)
        return self.transitions(index, gamma=gamma, return_steps=return_steps)

    def transitions(
        self, index: jax.Array, *, gamma: float | jax.Array, return_steps: int = 1
    ) -> Transitions:
        """Those that begin at steps `index` [N] = slot x B + environment."""
        flat = self.words.reshape(-1, self.words.shape[-1])
        step = first = self._unpack(flat[index])
        reward, discount = first.reward, jnp.full_like(first.reward, gamma)
        if return_steps > 1:
            batch = self.words.shape[1]
            slot, env = index // batch, index % batch
            to_newest = (self.cursor - 1 - slot) % self.capacity
            for n in range(1, return_steps):
                goes_on = ~(step.terminated | step.truncated) & (n <= to_newest)
                later = self._unpack(flat[(slot + n) % self.capacity * batch + env])
                # Once it has stopped, `step` stays the last one, which is done or the newest.
                step = _where(goes_on, later, step)
                reward = reward + jnp.where(goes_on, discount * later.reward, 0.0)
                discount = jnp.where(goes_on, discount * gamma, discount)
        discount = jnp.where(step.terminated, 0.0, discount)
        return Transitions(first.obs, first.action, reward, step.next_obs, discount)

    def _pack(self, e: Experience | Stored) -> jax.Array:
        """[T, B, W]"""

        def words(x):
            x = x if x.ndim > 2 else x[..., None]
            kind = jnp.int32 if x.dtype == jnp.int32 else jnp.float32
            return jax.lax.bitcast_convert_type(x.astype(kind), jnp.uint32)

        flags = e.terminated.astype(jnp.int32) + 2 * e.truncated.astype(jnp.int32)
        fields = (e.obs, e.next_obs, e.action.astype(jnp.float32), e.reward, flags)
        return jnp.concatenate([words(x) for x in jax.tree.leaves(fields)], axis=-1)

    def _unpack(self, words: jax.Array) -> Stored:
        """Args: words [..., W]."""
        spec, start = self.spec, 0

        def take(width: int, kind=jnp.float32):
            nonlocal start
            start += width
            return jax.lax.bitcast_convert_type(words[..., start - width : start], kind)

        def observation() -> Observation:
            if not spec.market:
                return take(spec.account)
            return Factored(take(1, jnp.int32)[..., 0], take(spec.account))

        obs, next_obs = observation(), observation()
        action, reward = take(_action_width(spec)), take(1)[..., 0]
        flags = take(1, jnp.int32)[..., 0]
        return Stored(obs, action, reward, next_obs, (flags & 1) > 0, (flags & 2) > 0)


def memory(spec: Spec, capacity: int, num_envs: int) -> int:
    """Bytes of a ring."""
    return 4 * capacity * num_envs * _width(spec)


def check_memory(needed: int, *, free: int | None = None) -> str:
    """What a buffer takes of the memory that is free, in words.

    Args:
        needed: bytes.
        free: bytes; by default what the device, or the machine, has left.

    Raises:
        ConfigError: it does not fit.
    """
    free = free_memory() if free is None else free
    size = f"the replay buffer takes {_bytes(needed)}"
    if free is None:
        return size
    if needed > free:
        raise ConfigError(
            f"{size}, and {_bytes(free)} are free; lower replay_size, or train fewer members "
            "at once"
        )
    return f"{size} of {_bytes(free)} that are free"


def free_memory() -> int | None:
    """Bytes that the default device can still allocate; None where nothing tells."""
    stats = jax.local_devices()[0].memory_stats()  # another process owns others
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return free_host_memory()


def free_host_memory() -> int | None:
    """Bytes that this process can still allocate; None where nothing tells."""
    found = []
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            found.append(1024 * int(line.split()[1]))
    # A container may have less than its machine.
    limit, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        found.append(int(limit) - int(used))
    if not found and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(found, default=None)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"


def _width(spec: Spec) -> int:
    """Words of one step: two observations, action, reward, flags."""
    return 2 * (spec.account + bool(spec.market)) + _action_width(spec) + 2


def _action_width(spec: Spec) -> int:
    return 1 if spec.action.discrete else spec.action.size


def _where(condition: jax.Array, new: Stored, old: Stored) -> Stored:
    def choose(new, old):
        return jnp.where(condition.reshape(condition.shape + (1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, new, old)
