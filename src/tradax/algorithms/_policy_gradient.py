"""What all policy gradients share: options, networks, statistics, credit, diagnostics.

An update of any of them is

    experience -> normalised -> Batch: advantages, value targets, weights -> improve

and an algorithm's own file says how it improves. From logged trajectories (`Logged`) advantages
and losses carry clipped importance weights, and the policy stays within a divergence of the one
that was logged.
"""

import abc
import math
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from tradax.algorithms._moments import Moments
from tradax.config import config, section, setting
from tradax.distributions import Distribution
from tradax.errors import ConfigError
from tradax.networks import mlp
from tradax.optimise import adam, in_parts, linear_anneal, where_needed
from tradax.policies import ActorCritic, NetworkPolicy, StochasticActor, distribution, head_of
from tradax.protocols import Actor, Algorithm, Experience, Logged, Metrics, Source
from tradax.returns import explained_variance, gae, importance_weight, standardise
from tradax.sharing import ALONE, Share
from tradax.spaces import Observation, Spec

_HALVINGS = 10
_BLOCK = 64  # observations at least, whose values are computed at once


@config
class Config:
    """Options that all policy gradients share."""

    num_envs: int = setting(default=64, least=1)
    """Environments stepped side by side."""
    n_steps: int = setting(default=64, least=1)
    """Steps of every environment between updates."""
    update_every: Literal["steps", "episodes"] = "steps"
    """Update after n_steps, or after one episode of every environment, of n_steps at most."""
    learning_rate: float = setting(default=1e-3, above=0)
    """Step size of the optimiser at the first update."""
    final_learning_rate_fraction: float = setting(default=0.0, least=0, most=1)
    """What is left of the learning rate at the last update, annealed linearly. 1: constant."""
    gamma: float = setting(default=0.99, least=0, most=1)
    """Discount a step."""
    gae_lambda: float = setting(default=0.95, least=0, most=1)
    """Lambda of generalised advantage estimation: 0 the TD error, 1 the Monte Carlo return."""
    max_grad_norm: float = setting(default=0.5, above=0)
    """Gradients are scaled down to this global norm."""
    normalize_advantages: bool = True
    """Zero mean and unit variance of the advantages of a gradient step."""
    normalize_observations: bool = True
    """Running mean and variance of observations; markets bring their own normaliser."""
    normalize_rewards: bool = True
    """Divide rewards by the running standard deviation of the discounted return."""
    reward_clip: float | None = setting(default=None, above=0)
    """Clip (normalised) rewards to +- this before learning."""
    hidden_sizes: tuple[int, ...] = setting(default=(64, 64), least=1)
    """Width of each hidden layer."""
    activation: Literal["tanh", "relu", "elu", "gelu", "silu"] = "tanh"
    """Activation of hidden layers."""
    initial_log_std: float = setting(default=0.0, least=-5, most=2)
    """Log standard deviation of continuous actions at the start."""
    importance_clip: float = setting(default=2.0, above=0)
    """From logged data: largest importance weight of a step."""
    behaviour_kl: float = setting(default=0.5, above=0)
    """From logged data: largest divergence from the logged policy, in nats."""


class Learner(NamedTuple):
    """Everything that is learned."""

    network: ActorCritic
    opt_state: Any
    moments: Moments
    own: Any
    """What one algorithm keeps beside."""
    updates: jax.Array


class Batch(NamedTuple):
    """What the losses need of each step; [T, B, ...], or [N, ...] once flat."""

    obs: Observation
    action: jax.Array
    log_prob: jax.Array
    """Of the policy before the update."""
    value: jax.Array
    advantage: jax.Array
    value_target: jax.Array
    weight: jax.Array | None
    """Factor of each step in the losses, with mean 1 or so; None where all count alike."""
    share: Share = ALONE
    """How devices share the work on these rows, or on those of which these are one's share."""

    def flat(self) -> "Batch":
        """Time and environments as one axis."""
        return _rows(self)

    def mean(self, x: jax.Array) -> jax.Array:
        """The mean over steps, weighted."""
        return jnp.mean(x if self.weight is None else self.weight * x)


class PolicyGradient(Algorithm):
    """Base: collects, normalises, assigns credit; subclasses define how they improve."""

    config: eqx.AbstractVar[Any]
    spec: eqx.AbstractVar[Spec]
    horizon: eqx.AbstractVar[jax.Array]

    def optimiser(self, learning_rate: Any) -> optax.GradientTransformation:
        """How networks follow gradients."""
        return adam(learning_rate, max_grad_norm=self.config.max_grad_norm)

    def optimiser_state(self, network: Any) -> Any:
        """`Learner.opt_state` at the start."""
        return self.optimiser(self.config.learning_rate).init(network)

    @abc.abstractmethod
    def improve(
        self, learner: Learner, batch: Batch, table: jax.Array | None, key: jax.Array
    ) -> tuple[Learner, Metrics]:
        """One update of the networks from a batch [T, B, ...]."""

    def own(self, network: ActorCritic) -> Any:
        """`Learner.own` at the start."""
        return ()

    @property
    def shared_network(self) -> bool:
        """One network for policy and value instead of two."""
        return False

    def network(self, key: jax.Array) -> ActorCritic:
        """Policy and value before the first update."""
        c, spec = self.config, self.spec
        actor_key, critic_key = jax.random.split(key)
        # Small last weights make the first policy nearly uniform; values start at scale 1.
        scale = (0.01,) * spec.action.size
        if self.shared_network:
            scale, sizes = (*scale, 1.0), spec.action.size + 1
            critic = None
        else:
            sizes = spec.action.size
            critic = mlp(critic_key, spec, c.hidden_sizes, 1, c.activation)
        actor = mlp(actor_key, spec, c.hidden_sizes, sizes, c.activation, output_scale=scale)
        log_std = None
        if not spec.action.discrete:
            log_std = jnp.full(spec.action.size, c.initial_log_std, jnp.float32)
        return ActorCritic(actor, critic, log_std)

    def init(self, key: jax.Array) -> Learner:
        c, spec = self.config, self.spec
        network = self.network(key)
        state = self.optimiser_state(network)
        moments = Moments.create(c, spec)
        return Learner(network, state, moments, self.own(network), jnp.int32(0))

    def actor(self, learner: Learner) -> Actor:
        return StochasticActor(learner.network, learner.moments.observations, self.spec)

    def policy(self, learner: Learner) -> NetworkPolicy:
        return learner.network.policy(self.spec, learner.moments.observations)

    @property
    def splits_over_devices(self) -> bool:
        return True

    def check_devices(self, devices: int) -> None:
        num_envs = self.config.num_envs
        if num_envs % devices:
            down = num_envs // devices * devices
            fitting = " or ".join(str(n) for n in (down, down + devices) if n)
            raise ConfigError(
                f"{section(type(self.config))}.num_envs is {num_envs}, which does not divide by "
                f"{devices} devices; use {fitting}"
            )

    @property
    def steps_per_update(self) -> int:
        return self.config.num_envs * self.config.n_steps

    def collect(self, learner: Learner, source: Source, carry: Any, key: jax.Array):
        actor = self.actor(learner)
        if self.config.update_every == "episodes":
            reset_key, key = jax.random.split(key)
            carry = source.reset(reset_key, actor)
        return source.collect(carry, actor, key, self.config.n_steps)

    def learn(
        self, learner: Learner, experience: Experience, key: jax.Array
    ) -> tuple[Learner, Metrics]:
        before = learner
        learner, experience = self._normalize(learner, experience)
        batch = self._batch(learner, experience)
        learner, metrics = self.improve(learner, batch, experience.table, key)
        if isinstance(experience.extras, Logged):
            learner, bound = self._near_behaviour(before, learner, experience)
            metrics |= bound
        metrics["explained_variance"] = explained_variance(batch.value, batch.value_target)
        return learner._replace(updates=learner.updates + 1), metrics

    def actions(self, network: ActorCritic, obs: Observation, table) -> Distribution:
        """What the policy may do at observations [..., D]."""
        return distribution(head_of(self.spec), network.outputs(obs, table), network.log_std)

    def evaluate(
        self, network: ActorCritic, obs: Observation, table
    ) -> tuple[Distribution, jax.Array]:
        """Actions and values [...] at observations."""
        outputs, value = network(obs, table)
        return distribution(head_of(self.spec), outputs, network.log_std), value

    def value(self, learner: Learner, obs: Observation, table, share: Share) -> jax.Array:
        """Values [T, B] of observations as the statistics of `learner` scaled them; of this
        device's share of the environments only.
        """
        obs = share.of(obs, axis=1)
        shape = jax.tree.leaves(obs)[0].shape[:2]
        network = _tabulated(learner.network, math.prod(shape), table)
        return in_parts(lambda part: network.value(part, table), _rows(obs)).reshape(shape)

    def next_value(self, learner: Learner, experience: Experience, value: jax.Array) -> jax.Array:
        """Values [T, B] of the true next observations where the episode did not terminate; of this
        device's share of the environments only.

        Where an episode goes on it is the value of the next step. What is left, at truncations and
        after the last step, is computed in blocks.

        Args:
            value: of the observations, [T, B].
        """
        table = experience.table
        value, truncated, terminated, next_obs = experience.share.of(
            (value, experience.truncated, experience.terminated, experience.next_obs), axis=1
        )
        steps, envs = value.shape
        network = _tabulated(learner.network, steps * envs, table)
        return where_needed(
            (truncated & ~terminated).at[-1].set(True).ravel(),
            lambda part: network.value(part, table),
            _rows(next_obs),
            jnp.roll(value, -1, axis=0).ravel(),
            block=min(max(envs, _BLOCK), steps * envs),
        ).reshape(steps, envs)

    def advantage(self, experience: Experience, value, next_value, weight) -> jax.Array:
        """Credit [T, B] of every action, over the value of its state.

        Args:
            next_value: of the true next observation.
            weight: importance weights, from logged data.
        """
        return gae(
            experience.reward,
            value,
            next_value,
            experience.terminated,
            experience.done,
            gamma=self.config.gamma,
            lam=self.config.gae_lambda,
            weight=weight,
        )

    def part(self, batch: Batch) -> Batch:
        """What one gradient is computed from: this device's share of a flat batch.

        Returns: with advantages as the losses take them, standardised over the rows of all
            devices (all equal: zeros), or as they are.
        """
        credit = batch.advantage
        if self.config.normalize_advantages:
            credit = standardise(credit, batch.weight)
        return batch.share.of(batch._replace(advantage=credit))

    def diagnose(self, network: ActorCritic, batch: Batch, table: jax.Array | None) -> Metrics:
        """Entropy of a policy, and its divergence from the one that collected the batch.

        Args:
            batch: this device's share; the metrics are of all.
        """
        actions = self.actions(network, batch.obs, table)
        log_ratio = actions.log_prob(batch.action) - batch.log_prob
        return batch.share.mean(
            {
                "entropy": batch.mean(actions.entropy()),
                "kl": batch.mean(kl_estimate(log_ratio)),
            }
        )

    def learning_rate(self, learner: Learner) -> jax.Array:
        c = self.config
        return linear_anneal(
            c.learning_rate, c.final_learning_rate_fraction, learner.updates, self.horizon
        )

    def _batch(self, learner: Learner, experience: Experience) -> Batch:
        table, noted = experience.table, experience.extras
        weight = None
        if isinstance(noted, Logged):
            actions, value = self.evaluate(learner.network, experience.obs, table)
            log_prob = actions.log_prob(experience.action)
            weight = importance_weight(log_prob, noted.log_prob, clip=self.config.importance_clip)
        else:
            log_prob, value = noted.log_prob, noted.value
        share = experience.share

        if value is None:
            value = share.gathered(self.value(learner, experience.obs, table, share), axis=1)
        next_value = share.gathered(self.next_value(learner, experience, value), axis=1)
        advantage = self.advantage(experience, value, next_value, weight)
        target = advantage + value if weight is None else weight * advantage + value
        if self.config.update_every == "episodes":
            ended = jnp.cumsum(experience.done, axis=0) - experience.done
            first = (ended == 0).astype(jnp.float32)
            first = first / first.mean()
            weight = first if weight is None else weight * first
        return Batch(
            experience.obs, experience.action, log_prob, value, advantage, target, weight, share
        )

    def _normalize(self, learner: Learner, experience: Experience):
        """Observations and rewards as the statistics of collection time scale them.

        The statistics move on afterwards, so that the ratio of new to old policy starts at 1.
        """
        c = self.config
        moments, seen = learner.moments, learner.moments.observations
        moments = moments.update(experience, c.gamma, afresh=c.update_every == "episodes")
        experience = experience._replace(reward=moments.scaled(experience.reward))
        if seen is not None:
            experience = experience._replace(
                obs=seen(_flat(experience.obs)), next_obs=seen(_flat(experience.next_obs))
            )
        if c.reward_clip is not None:
            clipped = jnp.clip(experience.reward, -c.reward_clip, c.reward_clip)
            experience = experience._replace(reward=clipped)
        return learner._replace(moments=moments), experience

    def _near_behaviour(self, before: Learner, after: Learner, experience: Experience):
        """Halve the policy's step until it is within `behaviour_kl` of the log's, or no further
        than before. A value network of its own keeps its step.
        """
        # The observations were scaled by the statistics of `before`.
        old, new = before.network, after.network

        def divergence(size):
            network = jax.tree.map(lambda a, b: a + size * (b - a), old, new)
            actions = self.actions(network, experience.obs, experience.table)
            log_ratio = actions.log_prob(experience.action) - experience.extras.log_prob
            return jnp.mean(kl_estimate(log_ratio))

        def halve(state):
            size, _, halvings = state
            size = jnp.where(halvings + 1 == _HALVINGS, 0.0, size / 2.0)
            return size, divergence(size), halvings + 1

        bound = jnp.maximum(self.config.behaviour_kl, divergence(0.0))
        size, kl, _ = jax.lax.while_loop(
            lambda s: (s[1] > bound) & (s[2] < _HALVINGS),
            halve,
            (jnp.float32(1), divergence(1.0), 0),
        )
        network = jax.tree.map(lambda a, b: a + size * (b - a), old, new)
        if network.critic is not None:
            network = eqx.tree_at(lambda n: n.critic, network, new.critic)
        return after._replace(network=network), {"behaviour_kl": kl, "behaviour_step": size}


def _tabulated(network: ActorCritic, rows: int, table: jax.Array | None) -> ActorCritic:
    """Its market part tabulated once, where there are more rows than in the table."""
    return network if table is None or rows <= table.shape[0] else network.tabulate(table)


def _rows(tree: Any) -> Any:
    """Arrays [T, B, ...] as [T B, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def _flat(obs: Observation) -> jax.Array:
    assert isinstance(obs, jax.Array)
    return obs


def kl_estimate(log_ratio: jax.Array) -> jax.Array:
    """Per-step estimate of KL(old || new), unbiased and never negative: (r - 1) - log r."""
    return jnp.expm1(log_ratio) - log_ratio
