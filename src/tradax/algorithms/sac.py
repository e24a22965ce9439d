"""Soft actor-critic with a learned temperature (Haarnoja et al. 2018b, algorithm 1)."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.algorithms import _off_policy
from tradax.algorithms._exploration import squashed_normal
from tradax.algorithms._off_policy import Batch, OffPolicy, check_actions
from tradax.algorithms._q_networks import Net
from tradax.config import config, setting
from tradax.errors import ConfigError
from tradax.optimise import descend
from tradax.spaces import Spec

CONTINUOUS_ACTIONS_ONLY = True


@config
class Config(_off_policy.Config):
    """SAC: a stochastic policy that is paid for its entropy."""

    noise: Literal["none", "gaussian", "ou", "parameter"] = "none"
    """Exploration beside the policy's own: independent, Ornstein-Uhlenbeck, or of its weights."""
    learn_temperature: bool = True
    """Adapt the temperature, so that the policy keeps the target entropy."""
    temperature: float = setting(default=1.0, above=0)
    """Weight of the entropy, in units of scaled rewards; at the start if learned."""
    temperature_learning_rate: float = setting(default=1e-3, above=0)
    """Adam step size of the temperature's logarithm."""
    target_entropy: float | None = None
    """Entropy to keep, in nats, of actions between -1 and 1. None: minus their number."""
    log_std_min: float = setting(default=-20.0, static=True)
    """Least log standard deviation of the policy before tanh."""
    log_std_max: float = setting(default=2.0, static=True)
    """Greatest log standard deviation of the policy before tanh."""
    critics: int = setting(default=2, least=1)
    """Action values; targets and the policy take the least of them."""

    def validate(self):
        _off_policy.Config.validate(self)
        if self.log_std_min >= self.log_std_max:
            raise ConfigError(
                f"sac.log_std_min is {self.log_std_min}; it must be below log_std_max, "
                f"{self.log_std_max}"
            )


class Networks(NamedTuple):
    """What is learned."""

    actor: Net
    critic: Net
    target_critic: Net
    log_temperature: jax.Array
    actor_opt: Any
    critic_opt: Any
    temperature_opt: Any


class SAC(OffPolicy):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array

    @property
    def log_std_bounds(self) -> tuple[float, ...]:
        return (self.config.log_std_min, self.config.log_std_max)

    @property
    def draws(self) -> int:
        return 2

    def networks(self, key: jax.Array) -> Networks:
        actor_key, critic_key = jax.random.split(key)
        actor = self.new_actor(actor_key)
        critic = self.new_critic(critic_key, self.config.critics)
        log_temperature = jnp.log(jnp.asarray(self.config.temperature, jnp.float32))
        adam: Any = self.optimiser(0.0, jnp.int32(0))
        return Networks(
            actor,
            critic,
            critic,
            log_temperature,
            adam.init(actor),
            adam.init(critic),
            adam.init(log_temperature),
        )

    def improve(self, networks: Networks, batches: Batch, steps: jax.Array, noise: jax.Array):
        def one(carry, given):
            (networks, steps), (batch, noise) = carry, given
            networks, metrics = self.gradient_step(networks, batch, noise, steps)
            return (networks, steps + 1), metrics

        (networks, _), metrics = jax.lax.scan(one, (networks, steps), (batches, noise))
        return networks, metrics

    def gradient_step(self, networks: Networks, batch: Batch, noise: jax.Array, steps: jax.Array):
        n = networks
        target = self.target(n, batch, noise[0])
        critic, critic_opt, metrics = self.fit_critic(n.critic, n.critic_opt, batch, target, steps)
        temperature = jnp.exp(n.log_temperature)

        def actor_loss(actor: Net):
            """E[alpha log pi(a|s) - min_i Q_i(s, a)], a ~ pi (eq. 7)."""
            outputs, moments = actor.train(batch.obs)
            policy = squashed_normal(outputs, self.log_std_bounds)
            action, log_prob = policy.transform(noise[1])
            q = critic(batch.obs, action)[..., 0].min(axis=0)
            return jnp.mean(temperature * log_prob - q), (moments, -log_prob.mean())

        actor, actor_opt, (value, entropy) = self.fit_actor(n.actor, n.actor_opt, actor_loss, steps)
        log_temperature, temperature_opt = n.log_temperature, n.temperature_opt
        if self.config.learn_temperature:
            gradient = jax.grad(self.temperature_loss)(log_temperature, entropy)
            optimiser = self.optimiser(self.config.temperature_learning_rate, steps)
            log_temperature, temperature_opt = descend(
                optimiser, gradient, temperature_opt, log_temperature
            )
        networks = Networks(
            actor,
            critic,
            self.towards(n.target_critic, critic, steps + 1),
            log_temperature,
            actor_opt,
            critic_opt,
            temperature_opt,
        )
        own = {"actor_loss": value, "entropy": entropy, "temperature": temperature}
        return networks, metrics | own

    def target(self, networks: Networks, batch: Batch, noise: jax.Array) -> jax.Array:
        """y = r + gamma (min_i Q'_i(s', a') - alpha log pi(a'|s')), a' ~ pi (eq. 5)."""
        policy = squashed_normal(networks.actor(batch.next_obs), self.log_std_bounds)
        action, log_prob = policy.transform(noise)
        q = networks.target_critic(batch.next_obs, action)[..., 0].min(axis=0)
        soft = q - jnp.exp(networks.log_temperature) * log_prob
        return batch.reward + batch.discount * soft

    def temperature_loss(self, log_temperature: jax.Array, entropy: jax.Array) -> jax.Array:
        """log alpha (H - H_target): falls where there is more entropy than asked for (eq. 18)."""
        wanted = self.config.target_entropy
        wanted = -float(self.spec.action.size) if wanted is None else wanted
        return log_temperature * jax.lax.stop_gradient(entropy - wanted)


def make(config: Config, spec: Spec, horizon: jax.Array) -> SAC:
    """Raises ConfigError where the options do not fit the action space."""
    check_actions(spec, "sac")
    return SAC(config=config, spec=spec, horizon=horizon)
