"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018), algorithm 1."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.algorithms import _off_policy
from tradax.algorithms._off_policy import Batch, OffPolicy, check_actions
from tradax.algorithms._q_networks import Net
from tradax.config import config, setting
from tradax.errors import ConfigError
from tradax.spaces import Spec

CONTINUOUS_ACTIONS_ONLY = True


@config
class Config(_off_policy.Config):
    """TD3: two action values, a delayed policy, smoothed targets."""

    n_steps: int = setting(default=2, least=1)
    """Steps of every environment between updates."""
    policy_delay: int = setting(default=2, least=1)
    """Gradient steps of the action values for one of the policy."""
    critics: int = setting(default=2, least=1)
    """Action values; targets take the least of them."""
    target_noise: float = setting(default=0.2, least=0)
    """Deviation of the noise on the actions of targets, in half widths of their bounds."""
    target_noise_clip: float = setting(default=0.5, least=0)
    """The largest such noise."""

    def validate(self):
        _off_policy.Config.validate(self)
        if self.gradient_steps % self.policy_delay:
            raise ConfigError(
                f"td3.policy_delay is {self.policy_delay}, which does not divide the "
                f"{self.gradient_steps} gradient steps after {self.num_envs} x {self.n_steps} steps"
            )


class Networks(NamedTuple):
    """What is learned."""

    actor: Net
    critic: Net
    target_actor: Net
    target_critic: Net
    actor_opt: Any
    critic_opt: Any


class TD3(OffPolicy):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array

    @property
    def draws(self) -> int:
        return 1

    def networks(self, key: jax.Array) -> Networks:
        actor_key, critic_key = jax.random.split(key)
        actor = self.new_actor(actor_key)
        critic = self.new_critic(critic_key, self.config.critics)
        adam: Any = self.optimiser(0.0, jnp.int32(0))
        return Networks(actor, critic, actor, critic, adam.init(actor), adam.init(critic))

    def improve(self, networks: Networks, batches: Batch, steps: jax.Array, noise: jax.Array):
        """Groups of `policy_delay` steps of the critics and one of the policy.

        A branch on a counter would become a selection under `vmap`, which computes both sides.
        """
        delay = self.config.policy_delay

        def group(carry, given):
            def critic_step(carry, given):
                (networks, steps), (batch, noise) = carry, given
                networks, metrics = self.improve_critic(networks, batch, noise, steps)
                return (networks, steps + 1), metrics

            carry, metrics = jax.lax.scan(critic_step, carry, given, unroll=True)
            networks, steps = carry
            last = jax.tree.map(lambda x: x[-1], given[0])
            networks, own = self.improve_actor(networks, last, steps)
            return (networks, steps), metrics | own

        split = jax.tree.map(lambda x: x.reshape(-1, delay, *x.shape[1:]), (batches, noise))
        (networks, _), metrics = jax.lax.scan(group, (networks, steps), split)
        return networks, metrics

    def target(self, networks: Networks, batch: Batch, noise: jax.Array) -> jax.Array:
        """y = r + gamma min_i Q'_i(s', clip(pi'(s') + clip(noise, -c, c), -1, 1)) (eq. 14)."""
        c = self.config
        action = jnp.tanh(networks.target_actor(batch.next_obs))
        noise = jnp.clip(c.target_noise * noise[0], -c.target_noise_clip, c.target_noise_clip)
        action = jnp.clip(action + noise, -1.0, 1.0)
        q = networks.target_critic(batch.next_obs, action)[..., 0]
        return batch.reward + batch.discount * q.min(axis=0)

    def improve_critic(self, networks: Networks, batch: Batch, noise: jax.Array, steps: jax.Array):
        target = self.target(networks, batch, noise)
        critic, opt_state, metrics = self.fit_critic(
            networks.critic, networks.critic_opt, batch, target, steps
        )
        return networks._replace(critic=critic, critic_opt=opt_state), metrics

    def improve_actor(self, networks: Networks, batch: Batch, steps: jax.Array):
        """Up the first action value; then the targets follow."""
        n = networks
        judge = n.critic.first()

        def loss(actor: Net):
            outputs, moments = actor.train(batch.obs)
            return -judge(batch.obs, jnp.tanh(outputs)).mean(), (moments, ())

        actor, actor_opt, (value, _) = self.fit_actor(n.actor, n.actor_opt, loss, steps)
        target_actor, target_critic = self.towards(
            (n.target_actor, n.target_critic),
            (actor, n.critic),
            steps // self.config.policy_delay,
        )
        networks = Networks(actor, n.critic, target_actor, target_critic, actor_opt, n.critic_opt)
        return networks, {"actor_loss": value}


def make(config: Config, spec: Spec, horizon: jax.Array) -> TD3:
    """Raises ConfigError where the options do not fit the action space."""
    check_actions(spec, "td3")
    return TD3(config=config, spec=spec, horizon=horizon)
