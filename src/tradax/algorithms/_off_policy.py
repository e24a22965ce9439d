"""What the off-policy actor-critics share: options, replay, exploration, targets.

An update of any of them is

    n_steps of every environment -> replay buffer -> minibatches -> gradient steps

and an algorithm's own file says what a gradient step is. Actions are in [-1, 1] for the networks
and the buffer, in the environment's units outside.
"""

import abc
import itertools
import math
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from tradax import discovery, replay
from tradax.algorithms._exploration import (
    Explorer,
    Perturbation,
    normal_like,
    perturbed,
)
from tradax.algorithms._moments import Moments
from tradax.algorithms._q_networks import Net, net, stacked
from tradax.config import config, setting
from tradax.draws import normals
from tradax.errors import ConfigError
from tradax.optimise import descend, in_step, linear_anneal
from tradax.policies import NetworkPolicy
from tradax.protocols import Algorithm, Experience, Metrics
from tradax.replay import Ring
from tradax.spaces import Factored, Observation, Spec

_LARGE = 2**14  # weights of a network; 128 x 128 are as fast either way


@config
class Config:
    """Options that all off-policy actor-critics share."""

    num_envs: int = setting(default=1, least=1)
    """Environments stepped side by side."""
    n_steps: int = setting(default=1, least=1)
    """Steps of every environment between updates."""
    update_to_data: float = setting(default=1.0, above=0, static=True)
    """Gradient steps for every step of an environment."""
    learning_starts: int = setting(default=1_000, least=1)
    """Steps with random actions, over all environments, before the first update."""
    batch_size: int = setting(default=256, least=1)
    """Transitions of a gradient step."""
    replay_size: int = setting(default=200_000, least=1)
    """Steps that are kept, over all environments."""
    sample_with_replacement: bool = True
    """Whether a step may be drawn twice for one gradient step."""
    return_steps: int = setting(default=1, least=1)
    """Rewards in a target before a value stands for the rest."""
    gamma: float = setting(default=0.99, least=0, most=1)
    """Discount a step."""
    tau: float = setting(default=0.005, above=0, most=1)
    """Share of the way that target networks go to the learned ones; 1 copies them."""
    target_update_every: int = setting(default=1, least=1)
    """Gradient steps of the policy between moves of the target networks."""
    actor_learning_rate: float = setting(default=1e-3, above=0)
    """Adam step size of the policy at the first update."""
    critic_learning_rate: float = setting(default=1e-3, above=0)
    """Adam step size of the action values at the first update."""
    final_learning_rate_fraction: float = setting(default=1.0, least=0, most=1)
    """What is left of the learning rates at the last update, annealed linearly. 1: constant."""
    max_grad_norm: float | None = setting(default=None, above=0)
    """Gradients are scaled down to this global norm. None: never."""
    noise: Literal["none", "gaussian", "ou", "parameter"] = "gaussian"
    """Exploration: nothing, independent, Ornstein-Uhlenbeck, or noise of the policy's weights."""
    noise_scale: float = setting(default=0.1, least=0)
    """Standard deviation of actions by noise, in half widths of their bounds."""
    ou_theta: float = setting(default=0.15, above=0, most=1)
    """How fast Ornstein-Uhlenbeck noise forgets; it lasts about 1 / theta steps."""
    normalize_observations: bool = True
    """Running mean and variance of observations; markets bring their own normaliser."""
    normalize_rewards: bool = True
    """Divide rewards by the running standard deviation of the discounted return."""
    reward_scale: float = setting(default=10.0, above=0)
    """Factor of (normalised) rewards; action values of size 1 would drown in Adam's noise."""
    hidden_sizes: tuple[int, ...] = setting(default=(64, 64), least=1)
    """Width of each hidden layer."""
    activation: Literal["tanh", "relu", "elu", "gelu", "silu"] = "relu"
    """Activation of hidden layers."""
    normalization: Literal["none", "layer", "batch"] = "none"
    """Normalise hidden layers before their activation, over units or over the batch."""
    action_layer: Literal["input", "second"] = "input"
    """Where the action enters the action values: with the observation, or one layer later."""

    def validate(self):
        if self.action_layer == "second" and not self.hidden_sizes:
            raise ConfigError("action_layer second needs at least one hidden layer")
        exact = self.num_envs * self.n_steps * self.update_to_data
        if exact < 1 or abs(exact - round(exact)) > 1e-6:
            raise ConfigError(
                f"update_to_data is {self.update_to_data}, which makes {exact:g} gradient steps "
                f"after {self.num_envs} x {self.n_steps} steps; it must make a whole number"
            )
        if self.slots < self.n_steps:
            raise ConfigError(
                f"replay_size is {self.replay_size}, which does not hold the {self.num_envs} x "
                f"{self.n_steps} steps between updates"
            )
        least = self.batch_size
        if not self.sample_with_replacement and min(self.learning_starts, self.replay_size) < least:
            raise ConfigError(
                f"without replacement a batch of {least} needs learning_starts and replay_size of "
                f"{least} at least"
            )

    @property
    def gradient_steps(self) -> int:
        """In one update."""
        return round(self.num_envs * self.n_steps * self.update_to_data)

    @property
    def slots(self) -> int:
        """Of the ring."""
        return self.replay_size // self.num_envs


class Batch(NamedTuple):
    """Transitions as the networks see them: flat, normalised, actions in [-1, 1]; [B, ...]."""

    obs: jax.Array
    action: jax.Array
    reward: jax.Array
    next_obs: jax.Array
    discount: jax.Array
    """Of the value of `next_obs`; 0 where the episode terminated."""


class Learner(NamedTuple):
    """Everything that is learned, and what is remembered."""

    networks: Any
    """What the algorithm improves; has `actor`."""
    steps: jax.Array
    """int32: gradient steps done."""
    updates: jax.Array
    moments: Moments
    perturbation: Perturbation | None
    replay: Ring


class OffPolicy(Algorithm):
    """Base: remembers, samples and explores; subclasses define a gradient step."""

    config: eqx.AbstractVar[Any]
    spec: eqx.AbstractVar[Spec]
    horizon: eqx.AbstractVar[jax.Array]

    @abc.abstractmethod
    def networks(self, key: jax.Array) -> Any:
        """`Learner.networks` at the start."""

    @abc.abstractmethod
    def improve(
        self, networks: Any, batches: Batch, steps: jax.Array, noise: jax.Array
    ) -> tuple[Any, Metrics]:
        """Gradient steps on minibatches [U, B, ...].

        Args:
            steps: gradient steps done before.
            noise: standard normal [U, draws, B, A].

        Returns: networks, metrics stacked.
        """

    @property
    @abc.abstractmethod
    def draws(self) -> int:
        """Noises of actions in a gradient step."""

    @property
    def log_std_bounds(self) -> tuple[float, ...]:
        """Of a stochastic policy; empty for a deterministic one."""
        return ()

    def init(self, key: jax.Array) -> Learner:
        c, spec = self.config, self.spec
        networks_key, noise_key = jax.random.split(key)
        networks = self.networks(networks_key)
        moments = Moments.create(c, spec)
        perturbation = None
        if c.noise == "parameter":
            scale = jnp.asarray(c.noise_scale, jnp.float32)
            perturbation = Perturbation(normal_like(networks.actor, noise_key), scale)
        ring = Ring.create(spec, c.slots, c.num_envs)
        return Learner(networks, jnp.int32(0), jnp.int32(0), moments, perturbation, ring)

    def memory(self) -> int:
        return replay.memory(self.spec, self.config.slots, self.config.num_envs)

    @property
    def steps_per_update(self) -> int:
        return self.config.num_envs * self.config.n_steps

    def actor(self, learner: Learner) -> Explorer:
        c = self.config
        network = learner.networks.actor
        if learner.perturbation is not None:
            network = perturbed(network, learner.perturbation)
        return Explorer(
            network=network.deployed(self.spec),
            normalizer=learner.moments.observations,
            random=learner.updates * self.steps_per_update < c.learning_starts,
            scale=jnp.asarray(c.noise_scale, jnp.float32),
            theta=jnp.asarray(c.ou_theta, jnp.float32),
            noise=c.noise,
            log_std_bounds=self.log_std_bounds,
            spec=self.spec,
        )

    def policy(self, learner: Learner) -> NetworkPolicy:
        return NetworkPolicy(
            network=learner.networks.actor.deployed(self.spec),
            log_std=None,
            normalizer=learner.moments.observations,
            spec=self.spec,
            head="tanh_gaussian" if self.log_std_bounds else "squashed",
            log_std_bounds=self.log_std_bounds,
        )

    def learn(
        self, learner: Learner, experience: Experience, key: jax.Array
    ) -> tuple[Learner, Metrics]:
        c = self.config
        sample_key, step_key = jax.random.split(key)
        learner = self._remember(learner, experience)
        batches = self._sample(learner, experience.table, sample_key)

        def improve(networks):
            shape = (c.gradient_steps, self.draws, c.batch_size, self.spec.action.size)
            noise = normals(step_key, math.prod(shape)).reshape(shape)
            networks, metrics = self.improve(networks, batches, learner.steps, noise)
            return networks, jax.tree.map(jnp.mean, metrics)

        def wait(networks):
            _, metrics = jax.eval_shape(improve, networks)
            return networks, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)

        ready = in_step(learner.updates * self.steps_per_update >= c.learning_starts)
        networks, metrics = jax.lax.cond(ready, improve, wait, learner.networks)
        learner = learner._replace(
            networks=networks, steps=learner.steps + ready * c.gradient_steps
        )
        if learner.perturbation is not None:
            noise_key = jax.random.fold_in(key, 1)
            learner, noise = self._perturb(learner, batches, experience.done, noise_key)
            metrics |= noise
        elif c.noise != "none":
            metrics["noise_scale"] = jnp.asarray(c.noise_scale, jnp.float32)
        return learner, metrics

    def new_actor(self, key: jax.Array) -> Net:
        """A policy that starts near the middle of the bounds."""
        c = self.config
        outputs = self.spec.action.size * (2 if self.log_std_bounds else 1)
        return net(
            key,
            self.spec.size,
            c.hidden_sizes,
            outputs,
            c.activation,
            c.normalization,
            output_scale=0.01,
        )

    def new_critic(self, key: jax.Array, count: int) -> Net:
        """So many action values of different weights."""
        c = self.config
        return stacked(
            [
                net(
                    k,
                    self.spec.size,
                    c.hidden_sizes,
                    1,
                    c.activation,
                    c.normalization,
                    action_size=self.spec.action.size,
                    action_layer=int(c.action_layer == "second"),
                )
                for k in jax.random.split(key, count)
            ]
        )

    def optimiser(self, learning_rate: Any, steps: jax.Array) -> optax.GradientTransformation:
        """Adam, after clipping where that is asked for."""
        c = self.config
        horizon = self.horizon * c.gradient_steps
        rate = linear_anneal(learning_rate, c.final_learning_rate_fraction, steps, horizon)
        adam = optax.adam(rate)
        if c.max_grad_norm is not None:
            adam = optax.chain(optax.clip_by_global_norm(c.max_grad_norm), adam)
        # A kernel for each layer makes small networks 1.3 times slower. Of large ones the copy into
        # one vector costs more, on CPU now and then 80 times as much (docs/performance.md).
        sizes = [self.spec.size, *c.hidden_sizes]
        small = sum(n * m for n, m in itertools.pairwise(sizes)) < _LARGE
        return optax.flatten(adam) if small else adam

    def fit_critic(
        self, critic: Net, opt_state: Any, batch: Batch, target: jax.Array, steps: jax.Array
    ) -> tuple[Net, Any, Metrics]:
        """One step of all K action values towards the target [B]."""

        def loss(critic: Net):
            q, moments = critic.train(batch.obs, batch.action)
            error = q[..., 0] - target
            # Summed over critics, so that each learns as it would alone.
            return 0.5 * jnp.mean(error**2, axis=-1).sum(), (moments, q.mean(), error)

        (value, (moments, q, error)), gradient = jax.value_and_grad(loss, has_aux=True)(critic)
        optimiser = self.optimiser(self.config.critic_learning_rate, steps)
        critic, opt_state = descend(optimiser, gradient, opt_state, critic)
        metrics = {"critic_loss": value, "q": q, "td_error": jnp.abs(error).mean()}
        return critic.observed(moments), opt_state, metrics

    def fit_actor(
        self, actor: Net, opt_state: Any, loss: Any, steps: jax.Array
    ) -> tuple[Net, Any, Any]:
        """One step of the policy down a loss (actor -> loss, (moments, rest))."""
        (value, (moments, rest)), gradient = jax.value_and_grad(loss, has_aux=True)(actor)
        optimiser = self.optimiser(self.config.actor_learning_rate, steps)
        actor, opt_state = descend(optimiser, gradient, opt_state, actor)
        return actor.observed(moments), opt_state, (value, rest)

    def towards(self, target: Any, online: Any, steps: jax.Array) -> Any:
        """The target networks after gradient step number `steps`, counted from 1.

        target + tau (online - target), every `target_update_every` steps
        """
        c = self.config
        tau = jnp.asarray(c.tau, jnp.float32)
        if c.target_update_every > 1:
            tau = jnp.where(steps % c.target_update_every == 0, tau, 0.0)
        # Not online - target: so that tau 1 copies exactly.
        return jax.tree.map(lambda t, o: (1.0 - tau) * t + tau * o, target, online)

    def _remember(self, learner: Learner, experience: Experience) -> Learner:
        """Store the experience, and let the running statistics see it."""
        moments = learner.moments.update(experience, self.config.gamma)
        # The cursor is the same in all members: written so, adding stays one write of a slice.
        ring = eqx.tree_at(lambda r: r.cursor, learner.replay, in_step(learner.replay.cursor))
        ring = ring.add(experience._replace(action=self.spec.action.to_unit(experience.action)))
        return learner._replace(moments=moments, replay=ring, updates=learner.updates + 1)

    def _sample(self, learner: Learner, table: jax.Array | None, key: jax.Array) -> Batch:
        """Minibatches [U, B, ...]."""
        c = self.config

        def draw(key, count):
            return learner.replay.sample(
                key,
                count,
                gamma=c.gamma,
                return_steps=c.return_steps,
                replacement=c.sample_with_replacement,
            )

        def seen(obs: Observation) -> jax.Array:
            if isinstance(obs, Factored):
                assert table is not None
                return obs.flat(table)
            normalizer = learner.moments.observations
            return obs if normalizer is None else normalizer(obs)

        if c.sample_with_replacement:
            drawn = draw(key, c.gradient_steps * c.batch_size)
            drawn = jax.tree.map(lambda x: x.reshape(-1, c.batch_size, *x.shape[1:]), drawn)
        else:
            keys = jax.random.split(key, c.gradient_steps)
            drawn = jax.vmap(lambda key: draw(key, c.batch_size))(keys)
        reward = learner.moments.scaled(c.reward_scale * drawn.reward)
        return Batch(seen(drawn.obs), drawn.action, reward, seen(drawn.next_obs), drawn.discount)

    def _perturb(self, learner: Learner, batches: Batch, done: jax.Array, key: jax.Array):
        """New noise of the weights where an episode has ended, sized by what it does to actions.

        The scale grows by 1% while actions move by less than `noise_scale`, and else shrinks.
        """
        noise, actor = learner.perturbation, learner.networks.actor
        assert noise is not None
        obs = batches.obs[-1]
        size = self.spec.action.size  # means come first
        plain, moved = (
            jnp.tanh(network(obs)[..., :size]) for network in (actor, perturbed(actor, noise))
        )
        distance = jnp.sqrt(jnp.mean((moved - plain) ** 2))
        factor = jnp.where(distance < self.config.noise_scale, 1.01, 1.0 / 1.01)
        over = jnp.any(done)
        direction = jax.tree.map(
            lambda new, old: jnp.where(over, new, old), normal_like(actor, key), noise.direction
        )
        noise = Perturbation(direction, jnp.where(over, noise.scale * factor, noise.scale))
        return learner._replace(perturbation=noise), {"noise_scale": distance}


def check_actions(spec: Spec, name: str) -> None:
    """Raises ConfigError for discrete actions; it names algorithms that take them."""
    if spec.action.discrete:
        fitting = [
            other
            for other in discovery.algorithms()
            if not discovery.flag("algorithms", other, "CONTINUOUS_ACTIONS_ONLY")
        ]
        raise ConfigError(
            f"{name} needs continuous actions, and this environment has {spec.action.n} discrete "
            f"ones; take one of {', '.join(fitting)}"
        )
