"""Proximal policy optimisation (Schulman et al. 2017), clipped or with a KL penalty.

Details after Huang et al. 2022, "The 37 implementation details of PPO".
"""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from tradax.config import config, setting
from tradax.errors import ConfigError
from tradax.networks import RunningMoments, mlp
from tradax.optimise import adam, check_minibatches, linear_anneal, minibatch_epochs
from tradax.policies import ActorCritic, NetworkPolicy, StochasticActor, distribution, head_of
from tradax.protocols import Algorithm, Experience, Metrics
from tradax.returns import explained_variance, gae, standardise
from tradax.spaces import Observation, Spec


@config
class Config:
    """PPO, clipped or with a KL penalty."""

    num_envs: int = setting(default=64, least=1)
    """Environments stepped side by side."""
    n_steps: int = setting(default=64, least=1)
    """Steps of every environment between updates."""
    epochs: int = setting(default=4, least=1)
    """Passes over the collected steps in one update."""
    minibatches: int = setting(default=8, least=1)
    """Gradient steps in one pass; must divide num_envs x n_steps."""
    learning_rate: float = setting(default=1e-3, above=0)
    """Adam step size at the first update."""
    final_learning_rate_fraction: float = setting(default=0.0, least=0, most=1)
    """What is left of the learning rate at the last update, annealed linearly. 1: constant."""
    gamma: float = setting(default=0.99, least=0, most=1)
    """Discount a step."""
    gae_lambda: float = setting(default=0.95, least=0, most=1)
    """Lambda of generalised advantage estimation: 0 the TD error, 1 the Monte Carlo return."""
    objective: Literal["clip", "kl"] = "clip"
    """Clipped surrogate, or a penalty on the divergence from the old policy."""
    clip_range: float = setting(default=0.2, above=0)
    """The probability ratio counts up to 1 +- this."""
    kl_coefficient: float = setting(default=1.0, least=0)
    """Weight of the KL penalty, at the start if adaptive."""
    kl_adaptive: bool = True
    """Double or halve the KL weight when the KL leaves [target / 1.5, target x 1.5]."""
    kl_penalty_target: float = setting(default=0.01, above=0)
    """KL an update that the adaptive weight steers to, in nats."""
    target_kl: float | None = setting(default=None, above=0)
    """Stop an update once its KL exceeds 1.5 times this, in nats. None: never."""
    value_coefficient: float = setting(default=0.5, least=0)
    """Weight of the value loss."""
    value_clip_range: float | None = setting(default=None, above=0)
    """Limit a value's change in one update to this, in reward units. None: no limit."""
    entropy_coefficient: float = setting(default=0.0, least=0)
    """Weight of the entropy bonus."""
    max_grad_norm: float = setting(default=0.5, above=0)
    """Gradients are scaled down to this global norm."""
    normalize_advantages: bool = True
    """Zero mean and unit variance of advantages in every minibatch."""
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
    shared_network: bool = False
    """One network for policy and value instead of two."""
    initial_log_std: float = setting(default=0.0, least=-5, most=2)
    """Log standard deviation of continuous actions at the start."""

    def validate(self):
        check_minibatches(self.n_steps, self.num_envs, self.minibatches)
        if self.shared_network and not self.hidden_sizes:
            raise ConfigError("ppo.shared_network needs at least one hidden layer to share")


class Learner(NamedTuple):
    """Everything that is learned."""

    network: ActorCritic
    opt_state: optax.OptState
    observations: RunningMoments | None
    returns: RunningMoments | None
    discounted_return: jax.Array
    """Running discounted return [num_envs], of which `returns` keeps the variance."""
    kl_weight: jax.Array
    updates: jax.Array


class Batch(NamedTuple):
    """What the loss needs of each step; [N, ...]."""

    obs: Observation
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    value_target: jax.Array


class PPO(Algorithm):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array

    def init(self, key: jax.Array) -> Learner:
        c, spec = self.config, self.spec
        actor_key, critic_key = jax.random.split(key)
        # Small last weights make the first policy nearly uniform; values start at scale 1.
        scale = (0.01,) * spec.action.size
        if c.shared_network:
            scale, sizes = (*scale, 1.0), spec.action.size + 1
            critic = None
        else:
            sizes = spec.action.size
            critic = mlp(critic_key, spec, c.hidden_sizes, 1, c.activation)
        actor = mlp(actor_key, spec, c.hidden_sizes, sizes, c.activation, output_scale=scale)
        log_std = None
        if not spec.action.discrete:
            log_std = jnp.full(spec.action.size, c.initial_log_std, jnp.float32)
        network = ActorCritic(actor, critic, log_std)
        flat = spec.market == 0
        return Learner(
            network=network,
            opt_state=self._optimiser(jnp.int32(0)).init(network),  # type: ignore[arg-type]
            observations=RunningMoments.create((spec.account,))
            if flat and c.normalize_observations
            else None,
            returns=RunningMoments.create(()) if c.normalize_rewards else None,
            discounted_return=jnp.zeros(c.num_envs),
            kl_weight=jnp.asarray(c.kl_coefficient, jnp.float32),
            updates=jnp.int32(0),
        )

    def actor(self, learner: Learner) -> StochasticActor:
        return StochasticActor(learner.network, learner.observations, self.spec)

    def policy(self, learner: Learner) -> NetworkPolicy:
        return learner.network.policy(self.spec, learner.observations)

    @property
    def steps_per_update(self) -> int:
        return self.config.num_envs * self.config.n_steps

    def learn(
        self, learner: Learner, experience: Experience, key: jax.Array
    ) -> tuple[Learner, Metrics]:
        c, network = self.config, learner.network
        learner, experience = self._normalize(learner, experience)
        value = experience.extras.value
        advantage = gae(
            experience.reward,
            value,
            network.value(experience.next_obs, experience.table),
            experience.terminated,
            experience.done,
            gamma=c.gamma,
            lam=c.gae_lambda,
        )
        batch = Batch(
            experience.obs,
            experience.action,
            experience.extras.log_prob,
            value,
            advantage,
            advantage + value,
        )
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
        optimiser = self._optimiser(learner.updates)

        def update(carry, minibatch):
            network, opt_state, stopped = carry
            gradient, metrics = jax.grad(self._loss, has_aux=True)(
                network, minibatch, experience.table, learner.kl_weight
            )
            metrics["gradient_norm"] = optax.tree.norm(gradient)
            step, new_opt_state = optimiser.update(gradient, opt_state)
            new = (optax.apply_updates(network, step), new_opt_state)
            if c.target_kl is not None:
                stopped = stopped | (metrics["kl"] > 1.5 * c.target_kl)
                new = jax.tree.map(
                    lambda new, old: jnp.where(stopped, old, new), new, (network, opt_state)
                )
            return (*new, stopped), metrics

        (network, opt_state, _), metrics = minibatch_epochs(
            update,
            (network, learner.opt_state, jnp.bool_(False)),
            batch,
            key,
            epochs=c.epochs,
            minibatches=c.minibatches,
        )
        last_kl = metrics["kl"][-1].mean()
        metrics = {name: value.mean() for name, value in metrics.items()}
        metrics["explained_variance"] = explained_variance(batch.value, batch.value_target)
        metrics["learning_rate"] = self._learning_rate(learner.updates)
        if c.objective == "kl":
            metrics["kl_weight"] = learner.kl_weight
        return learner._replace(
            network=network,
            opt_state=opt_state,
            kl_weight=self._adapted_kl_weight(learner.kl_weight, last_kl),
            updates=learner.updates + 1,
        ), metrics

    def _loss(self, network: ActorCritic, batch: Batch, table, kl_weight):
        """Minus the surrogate (eq. 7 clipped, eq. 8 with KL), plus value loss, minus entropy."""
        c = self.config
        outputs, value = network(batch.obs, table)
        actions = distribution(head_of(self.spec), outputs, network.log_std)
        log_ratio = actions.log_prob(batch.action) - batch.log_prob
        ratio = jnp.exp(log_ratio)
        # Unbiased and never negative estimate of KL(old || new): (r - 1) - log r.
        kl = jnp.mean(ratio - 1.0 - log_ratio)

        advantage = batch.advantage
        if c.normalize_advantages:
            advantage = standardise(advantage)
        if c.objective == "clip":
            clipped = jnp.clip(ratio, 1.0 - c.clip_range, 1.0 + c.clip_range)
            policy_loss = -jnp.mean(jnp.minimum(ratio * advantage, clipped * advantage))
        else:
            policy_loss = -jnp.mean(ratio * advantage) + kl_weight * kl

        error = (value - batch.value_target) ** 2
        if c.value_clip_range is not None:
            near = batch.value + jnp.clip(
                value - batch.value, -c.value_clip_range, c.value_clip_range
            )
            error = jnp.maximum(error, (near - batch.value_target) ** 2)
        value_loss = 0.5 * jnp.mean(error)
        entropy = jnp.mean(actions.entropy())

        loss = policy_loss + c.value_coefficient * value_loss - c.entropy_coefficient * entropy
        return loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "kl": kl,
            "clip_fraction": jnp.mean(jnp.abs(ratio - 1.0) > c.clip_range),
        }

    def _normalize(self, learner: Learner, experience: Experience):
        """Observations and rewards as the statistics of collection time scale them.

        The statistics move on afterwards, so that the ratio of new to old policy starts at 1.
        """
        c = self.config
        if learner.observations is not None:
            raw, scale = experience.obs, learner.observations
            following = experience.next_obs
            assert isinstance(raw, jax.Array)
            assert isinstance(following, jax.Array)
            experience = experience._replace(obs=scale(raw), next_obs=scale(following))
            learner = learner._replace(observations=scale.update(raw))
        if learner.returns is not None:

            def accumulate(running, step):
                reward, done = step
                running = reward + c.gamma * running
                return running * (1.0 - done), running

            last, running = jax.lax.scan(
                accumulate, learner.discounted_return, (experience.reward, experience.done)
            )
            returns = learner.returns.update(running)
            scaled = experience.reward / jnp.sqrt(returns.var + 1e-8)
            experience = experience._replace(reward=scaled)
            learner = learner._replace(returns=returns, discounted_return=last)
        if c.reward_clip is not None:
            clipped = jnp.clip(experience.reward, -c.reward_clip, c.reward_clip)
            experience = experience._replace(reward=clipped)
        return learner, experience

    def _adapted_kl_weight(self, weight: jax.Array, kl: jax.Array) -> jax.Array:
        """Section 4 of the paper."""
        c = self.config
        if not c.kl_adaptive:
            return weight
        weight = jnp.where(kl > c.kl_penalty_target * 1.5, weight * 2.0, weight)
        weight = jnp.where(kl < c.kl_penalty_target / 1.5, weight / 2.0, weight)
        return jnp.clip(weight, 1e-4, 1e4)

    def _learning_rate(self, updates: jax.Array) -> jax.Array:
        c = self.config
        return linear_anneal(c.learning_rate, c.final_learning_rate_fraction, updates, self.horizon)

    def _optimiser(self, updates: jax.Array) -> optax.GradientTransformation:
        return adam(self._learning_rate(updates), max_grad_norm=self.config.max_grad_norm)


def make(config: Config, spec: Spec, horizon: jax.Array) -> PPO:
    """Raises ConfigError where the options do not fit the action space."""
    return PPO(config=config, spec=spec, horizon=horizon)
