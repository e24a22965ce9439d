"""Deep deterministic policy gradient (Lillicrap et al. 2016), algorithm 1."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.algorithms import _off_policy
from tradax.algorithms._off_policy import Batch, OffPolicy, check_actions
from tradax.algorithms._q_networks import Net
from tradax.algorithms.td3 import Networks
from tradax.config import config
from tradax.spaces import Spec

CONTINUOUS_ACTIONS_ONLY = True


@config
class Config(_off_policy.Config):
    """DDPG: a deterministic policy and one action value."""


class DDPG(OffPolicy):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array

    @property
    def draws(self) -> int:
        return 0

    def networks(self, key: jax.Array) -> Networks:
        actor_key, critic_key = jax.random.split(key)
        actor, critic = self.new_actor(actor_key), self.new_critic(critic_key, 1)
        adam: Any = self.optimiser(0.0, jnp.int32(0))
        return Networks(actor, critic, actor, critic, adam.init(actor), adam.init(critic))

    def improve(self, networks: Networks, batches: Batch, steps: jax.Array, noise: jax.Array):
        def one(carry, batch):
            networks, steps = carry
            networks, metrics = self.gradient_step(networks, batch, steps)
            return (networks, steps + 1), metrics

        (networks, _), metrics = jax.lax.scan(one, (networks, steps), batches)
        return networks, metrics

    def gradient_step(self, networks: Networks, batch: Batch, steps: jax.Array):
        n = networks
        target = self.target(n, batch)
        critic, critic_opt, metrics = self.fit_critic(n.critic, n.critic_opt, batch, target, steps)

        def loss(actor: Net):
            """Minus Q(s, pi(s)), whose gradient is the deterministic policy's (eq. 6)."""
            outputs, moments = actor.train(batch.obs)
            return -critic.first()(batch.obs, jnp.tanh(outputs)).mean(), (moments, ())

        actor, actor_opt, (value, _) = self.fit_actor(n.actor, n.actor_opt, loss, steps)
        target_actor, target_critic = self.towards(
            (n.target_actor, n.target_critic), (actor, critic), steps + 1
        )
        networks = Networks(actor, critic, target_actor, target_critic, actor_opt, critic_opt)
        return networks, metrics | {"actor_loss": value}

    def target(self, networks: Networks, batch: Batch) -> jax.Array:
        """y = r + gamma Q'(s', pi'(s'))."""
        action = jnp.tanh(networks.target_actor(batch.next_obs))
        q = networks.target_critic(batch.next_obs, action)[0, :, 0]
        return batch.reward + batch.discount * q


def make(config: Config, spec: Spec, horizon: jax.Array) -> DDPG:
    """Raises ConfigError where the options do not fit the action space."""
    check_actions(spec, "ddpg")
    return DDPG(config=config, spec=spec, horizon=horizon)
