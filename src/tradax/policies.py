"""Policies made of a network: what the algorithms learn and what users deploy."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from tradax.distributions import Categorical, DiagGaussian, Distribution, Point, TanhGaussian
from tradax.draws import is_key
from tradax.networks import MLP, RunningMoments
from tradax.protocols import Actor, Logged, Policy
from tradax.sharing import ALONE, Share
from tradax.spaces import Observation, Spec

Head = Literal["categorical", "gaussian", "squashed", "tanh_gaussian"]


def head_of(spec: Spec) -> Head:
    """The distribution that fits a stochastic policy over the action space."""
    return "categorical" if spec.action.discrete else "gaussian"


def distribution(
    head: Head, outputs: jax.Array, log_std: jax.Array | None
) -> Categorical | DiagGaussian:
    """The distribution of actions that network outputs [..., n] parameterise."""
    if head == "categorical":
        return Categorical.from_logits(outputs)
    assert log_std is not None
    return DiagGaussian(outputs, log_std)


class NetworkPolicy(Policy):
    """An MLP, the distribution that its outputs parameterise, and its observation normaliser."""

    network: MLP
    log_std: jax.Array | None
    """State-independent log standard deviation [d], for Gaussian policies."""
    normalizer: RunningMoments | None
    """First layer of policies for environments that are not markets."""
    spec: Spec = eqx.field(static=True)
    head: Head = eqx.field(static=True)
    log_std_bounds: tuple[float, ...] = eqx.field(static=True, default=())
    """Least and greatest log standard deviation, for squashed Gaussians; part of the outputs."""

    def distribution(
        self, obs: Observation, table: jax.Array | None = None
    ) -> Distribution | TanhGaussian:
        """Args: obs: flat [..., D], or factored with the market table."""
        if self.normalizer is not None:
            assert isinstance(obs, jax.Array)
            obs = self.normalizer(obs)
        outputs = self.network(obs, table)
        if self.head == "squashed":
            return Point(self.spec.action.squash(outputs))
        if self.head == "tanh_gaussian":
            low, high = self.spec.action.low, self.spec.action.high
            return TanhGaussian.from_outputs(outputs, self.log_std_bounds, low, high)
        return distribution(self.head, outputs, self.log_std)

    def act(self, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """The action for observations as the environment gives them, clipped to the bounds.

        Args:
            obs: [..., D].
            key: without it the deterministic action (the mode), with it a sample.
        """
        obs = jnp.asarray(obs, jnp.float32)
        if obs.shape[-1:] != (self.spec.size,):
            raise ValueError(
                f"observations have shape {obs.shape}; the policy takes [..., {self.spec.size}]"
            )
        actions = self.distribution(obs)
        action = actions.mode() if key is None else actions.sample(key)
        return self.spec.action.clip(action)

    def actor(self, *, sample: bool) -> "PolicyActor":
        return PolicyActor(self, sample)


def flatten_policy(policy: NetworkPolicy) -> jax.Array:
    """All that is learned of a policy as one vector float32 [D]: weights, biases, deviations.

    Its observation normaliser is a statistic of what was seen, and no part of it.
    """
    return ravel_pytree((policy.network, policy.log_std))[0]


def unflatten_policy(like: NetworkPolicy, parameters: Any) -> NetworkPolicy:
    """`like` with other parameters [D], in the order of `flatten_policy`.

    Raises:
        ValueError: the vector has another length.
    """
    flat, unflatten = ravel_pytree((like.network, like.log_std))
    parameters = jnp.asarray(parameters, jnp.float32)
    if parameters.shape != flat.shape:
        raise ValueError(
            f"parameters have shape {parameters.shape}; this policy takes {flat.shape}"
        )
    network, log_std = unflatten(parameters)
    return eqx.tree_at(
        lambda p: (p.network, p.log_std), like, (network, log_std), is_leaf=lambda x: x is None
    )


class PolicyActor(Actor):
    """A policy that acts; where it samples, it notes the log-probability. For evaluation, logs."""

    policy: NetworkPolicy
    sample: bool = eqx.field(static=True)

    def tabulate(self, table: jax.Array) -> "PolicyActor":
        network = self.policy.network.tabulate(table)
        return PolicyActor(eqx.tree_at(lambda p: p.network, self.policy, network), self.sample)

    def __call__(self, obs: Observation, memory: Any, key: jax.Array):
        actions = self.policy.distribution(obs)
        if not self.sample:
            return actions.mode(), memory, ()
        action = actions.sample(key)
        return action, memory, Logged(actions.log_prob(action))


class ActorCritic(eqx.Module):
    """A policy network and a value network, or one network with an output more for both."""

    actor: MLP
    critic: MLP | None
    """None where the actor's last output is the value."""
    log_std: jax.Array | None

    def __call__(
        self, obs: Observation, table: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns: parameters of the action distribution [..., n], value [...]."""
        outputs = self.actor(obs, table)
        if self.critic is None:
            return outputs[..., :-1], outputs[..., -1]
        return outputs, self.critic(obs, table)[..., 0]

    def outputs(self, obs: Observation, table: jax.Array | None = None) -> jax.Array:
        """Parameters of the action distribution alone."""
        return self.actor(obs, table) if self.critic is not None else self(obs, table)[0]

    def value(self, obs: Observation, table: jax.Array | None = None) -> jax.Array:
        if self.critic is None:
            return self(obs, table)[1]
        return self.critic(obs, table)[..., 0]

    def tabulate(self, table: jax.Array) -> "ActorCritic":
        critic = self.critic.tabulate(table) if self.critic is not None else None
        return ActorCritic(self.actor.tabulate(table), critic, self.log_std)

    def policy(self, spec: Spec, normalizer: RunningMoments | None) -> NetworkPolicy:
        """What remains to deploy once training is over: the policy network alone."""
        network = self.actor
        if self.critic is None:
            last = network.rest[-1]
            last = type(last)(last.weight[:, :-1], last.bias[:-1])
            network = eqx.tree_at(lambda n: n.rest[-1], network, last)
        return NetworkPolicy(
            network=network,
            log_std=self.log_std,
            normalizer=normalizer,
            spec=spec,
            head=head_of(spec),
        )


class Choice(NamedTuple):
    """What a stochastic actor notes beside its action."""

    log_prob: jax.Array
    value: jax.Array | None
    """None where a network of its own gives it: faster for all steps at once, afterwards."""


class StochasticActor(Actor):
    """Samples from an actor-critic and notes what it knows then."""

    network: ActorCritic
    normalizer: RunningMoments | None
    spec: Spec = eqx.field(static=True)
    share: Share = ALONE

    def tabulate(self, table: jax.Array) -> "StochasticActor":
        network = self.network.tabulate(table)
        return StochasticActor(network, self.normalizer, self.spec, self.share)

    def shared(self, share: Share) -> "StochasticActor":
        return StochasticActor(self.network, self.normalizer, self.spec, share)

    def ahead(self, keys: jax.Array, batch: int) -> jax.Array:
        """Noise [T, B, n]."""
        return jax.vmap(lambda key: self._noise(key, batch))(keys)

    def __call__(self, obs: Observation, memory: Any, drawn: jax.Array):
        if self.normalizer is not None:
            assert isinstance(obs, jax.Array)
            obs = self.normalizer(obs)
        network, value = self.network, None
        if network.critic is None:
            outputs, value = network(obs)
        else:
            outputs = network.outputs(obs)
        actions = distribution(head_of(self.spec), outputs, network.log_std)
        noise = self._noise(drawn, outputs.shape[0]) if is_key(drawn) else drawn
        action = actions.transform(noise)
        return action, memory, Choice(actions.log_prob(action), value)

    def _noise(self, key: jax.Array, batch: int) -> jax.Array:
        kind = Categorical if self.spec.action.discrete else DiagGaussian
        return kind.noise(key, (batch, self.spec.action.size), self.share)
