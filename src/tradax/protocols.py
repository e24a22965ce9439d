"""The few interfaces on which everything else stands.

A `Source` steps environments and returns `Experience`; an `Algorithm` says how to act
(`actor`) and learns from experience (`learn`); one loop (`tradax.training`) composes them. All
of them are equinox modules or NamedTuples whose leaves are arrays, so they pass through `jit`
as arguments, and `vmap` over them trains many seeds, symbols or settings at once.
"""

import abc
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax

from tradax.sharing import ALONE, Share
from tradax.spaces import Observation, Spec

Metrics = dict[str, jax.Array]


class Experience(NamedTuple):
    """Transitions in time order; every field is [T, B, ...]."""

    obs: Observation
    action: jax.Array
    """As the policy chose it; the environment was given `spec.action.clip(action)`."""
    reward: jax.Array
    next_obs: Observation
    """The true next observation, never that of the reset which may have followed."""
    terminated: jax.Array
    truncated: jax.Array
    extras: Any
    """What the actor noted beside the action, such as its log-probability and value."""
    table: jax.Array | None
    """Market table [M, F] to which `Factored.row` points; None for flat observations."""
    share: Share = ALONE
    """How devices that all hold this experience share the learning from it."""

    @property
    def done(self) -> jax.Array:
        return self.terminated | self.truncated


class Logged(NamedTuple):
    """`Experience.extras` of trajectories that another policy made."""

    log_prob: jax.Array
    """Of the action, under the policy that was logged."""


class Finished(NamedTuple):
    """Sums over the episodes that ended while experience was collected."""

    episodes: jax.Array
    return_sum: jax.Array
    length_sum: jax.Array
    bad_rewards: jax.Array | None = None
    """NaN or infinite ones that the environments gave, ended or not; `checked` counts them."""
    bad_observations: jax.Array | None = None

    @property
    def sound(self) -> jax.Array:
        """Whether the environments gave finite numbers only."""
        assert self.bad_rewards is not None
        assert self.bad_observations is not None
        return self.bad_rewards + self.bad_observations == 0.0


class Actor(eqx.Module):
    """Behaviour while collecting, for a batch of environments at once."""

    def tabulate(self, table: jax.Array) -> "Actor":
        """The same behaviour with the market part of its networks computed for every table row.

        Weights do not change during a rollout, so this is paid once, not at every step.
        """
        return self

    @property
    def tabulations(self) -> int:
        """For how many networks `tabulate` works."""
        return 1

    def initial_memory(self, batch: int) -> Any:
        """What the actor carries from step to step (exploration noise), for `batch` episodes."""
        return ()

    def shared(self, share: Share) -> "Actor":
        """The same behaviour for this device's share of a batch: its draws are rows of those that
        the whole batch would have on one device.
        """
        if share.axis is None:
            return self
        raise NotImplementedError(f"{type(self).__name__} does not act for a share of a batch")

    def ahead(self, keys: jax.Array, batch: int) -> jax.Array:
        """What steps draw whatever they observe, [T, ...], from their keys [T]: the keys, or noise.

        Drawn for a whole rollout at once it costs a fraction of what it does step by step.
        """
        return keys

    @abc.abstractmethod
    def __call__(
        self, obs: Observation, memory: Any, drawn: jax.Array
    ) -> tuple[jax.Array, Any, Any]:
        """Returns: action [B, ...], memory, extras.

        Args:
            drawn: a key, or what `ahead` made of it, which gives the same.
        """


class Policy(eqx.Module):
    """What one deploys. Takes observations exactly as the environment gives them."""

    spec: eqx.AbstractVar[Spec]

    @abc.abstractmethod
    def act(self, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """The action for flat observations [..., D]: the deterministic one without a key."""

    @abc.abstractmethod
    def actor(self, *, sample: bool) -> Actor:
        """The same policy as an actor, for evaluation and logging."""


class Source(eqx.Module):
    """Where experience comes from: the only code that steps environments."""

    spec: eqx.AbstractVar[Spec]
    num_envs: eqx.AbstractVar[int]
    axis: eqx.AbstractVar[str | None]
    """Mesh axis over whose devices the work of an update is split; None on one device."""

    def of(self, num_envs: int) -> "Source":
        """The same with another number of environments."""
        return replace(self, num_envs=num_envs)

    @property
    def jittable(self) -> bool:
        """Whether `collect` may be traced together with `learn`."""
        return True

    @property
    def outline(self) -> "Source":
        """A source of the same shapes that may be traced: itself where it is jittable."""
        return self

    @abc.abstractmethod
    def reset(self, key: jax.Array, actor: Actor) -> Any:
        """The carry from which `collect` goes on."""

    @abc.abstractmethod
    def collect(
        self, carry: Any, actor: Actor, key: jax.Array, n_steps: int
    ) -> tuple[Any, Experience, Finished]:
        """Act for `n_steps` steps in every environment."""

    @abc.abstractmethod
    def episodes(
        self, actor: Actor, key: jax.Array, limit: int, *, copies: int = 1, first: Any = 0
    ) -> tuple[jax.Array, jax.Array]:
        """Play one episode in every environment, at most `limit` steps; stop when all have ended.

        Args:
            copies: so many times in a row the same chances come again: environment i and
                environment i + num_envs / copies start alike and meet the same noise.
            first: number of the first environment, where others are played elsewhere: chances
                belong to a number.

        Returns: returns [B], lengths [B].
        """


class Algorithm(eqx.Module):
    """How to learn: a frozen `Config`, a `Spec`, and four pure functions of them."""

    config: eqx.AbstractVar[Any]
    spec: eqx.AbstractVar[Spec]
    horizon: eqx.AbstractVar[jax.Array]
    """float32: number of updates of the whole run, for annealing. The loop sets it."""

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Any:
        """Everything that is learned: parameters, optimiser state, statistics."""

    @abc.abstractmethod
    def actor(self, learner: Any) -> Actor:
        """Behaviour while collecting."""

    @abc.abstractmethod
    def learn(self, learner: Any, experience: Experience, key: jax.Array) -> tuple[Any, Metrics]:
        """One update; pure."""

    @abc.abstractmethod
    def policy(self, learner: Any) -> Policy:
        """What one deploys."""

    def best(self, learner: Any) -> tuple[jax.Array, Policy] | None:
        """Fitness and policy of the best ever tried, of an algorithm that keeps it."""
        return None

    @property
    def splits_over_devices(self) -> bool:
        """Whether its updates share work between the devices of `Source.axis`."""
        return False

    def check_devices(self, devices: int) -> None:
        """Of an algorithm that splits its work: whether it divides by so many devices.

        Raises:
            ConfigError: it does not, and cannot be padded; the message names numbers that fit.
        """

    @property
    def in_turn(self) -> bool:
        """Whether members train one after the other rather than abreast, in the same program.

        Faster on a CPU, whose caches hold one member, and whose library multiplies matrices
        faster one by one than stacked.
        """
        return jax.default_backend() == "cpu"

    @property
    @abc.abstractmethod
    def steps_per_update(self) -> int:
        """Environment steps that one update consumes, over all environments."""

    def memory(self) -> int:
        """Bytes of the experience that a learner keeps."""
        return 0

    def collect(
        self, learner: Any, source: Source, carry: Any, key: jax.Array
    ) -> tuple[Any, Any, Finished]:
        """Gather what one update needs: what `learn` takes, for most algorithms `Experience`."""
        return source.collect(carry, self.actor(learner), key, self.config.n_steps)


class TrainState(NamedTuple):
    """All that resuming needs."""

    learner: Any
    carry: Any
    key: jax.Array
    update: jax.Array
    """int32: updates done."""


def init(algorithm: Algorithm, source: Source, key: jax.Array) -> TrainState:
    """The state before the first update."""
    learner_key, carry_key, key = jax.random.split(key, 3)
    learner = algorithm.init(learner_key)
    carry = source.reset(carry_key, algorithm.actor(learner))
    return TrainState(learner, carry, key, jax.numpy.int32(0))


def step(
    algorithm: Algorithm, source: Source, state: TrainState
) -> tuple[TrainState, Metrics, Finished]:
    """Collect, then learn: one update of any algorithm from any source."""
    collect_key, learn_key, key = jax.random.split(state.key, 3)
    carry, experience, finished = algorithm.collect(state.learner, source, state.carry, collect_key)
    learner, metrics = algorithm.learn(state.learner, experience, learn_key)
    finished = checked(finished, experience)
    return TrainState(learner, carry, key, state.update + 1), metrics, finished


def checked(finished: Finished, experience: Any) -> Finished:
    """With the rewards and observations counted that are NaN or infinite.

    Once they have gone into a network, or wait in a replay buffer, nobody can tell where they
    came from.

    Args:
        experience: `Experience`, or what else `collect` gave.
    """

    def count(tree: Any) -> jax.Array:
        kind = jax.numpy.floating
        floats = [x for x in jax.tree.leaves(tree) if jax.numpy.issubdtype(x.dtype, kind)]
        bad = [jax.numpy.sum(~jax.numpy.isfinite(x), dtype=jax.numpy.float32) for x in floats]
        return jax.numpy.float32(sum(bad))

    if not isinstance(experience, Experience):  # of whole episodes, only their returns are known
        return finished._replace(
            bad_rewards=count(finished.return_sum), bad_observations=jax.numpy.float32(0)
        )
    return finished._replace(
        bad_rewards=count(experience.reward),
        bad_observations=count((experience.obs, experience.next_obs)),
    )
