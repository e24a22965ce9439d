"""What searches without gradients share: a population of networks, and its fitness.

The fitness of an individual is the mean return of its episodes. All individuals play side by side
in one program that ends as soon as their last episode does; with `same_episodes` they all meet
the same starts and the same noise, so that luck does not choose between them.
"""

import abc
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from tradax.config import config, setting
from tradax.networks import MLP, mlp
from tradax.policies import NetworkPolicy
from tradax.protocols import Actor, Algorithm, Finished, Metrics, Source
from tradax.spaces import Observation, Spec


@config
class Config:
    """Options that all searches without gradients share."""

    population_size: int = setting(default=64, least=1)
    """Networks that are tried in a generation."""
    episodes: int = setting(default=4, least=1)
    """Episodes of each of them."""
    episode_limit: int = setting(default=500, least=1)
    """Most steps of an episode."""
    same_episodes: bool = True
    """All networks of a generation meet the same episodes."""
    hidden_sizes: tuple[int, ...] = setting(default=(64, 64), least=1)
    """Width of each hidden layer."""
    activation: Literal["tanh", "relu", "elu", "gelu", "silu"] = "tanh"
    """Activation of hidden layers."""

    @property
    def num_envs(self) -> int:
        """Environments stepped side by side."""
        return self.population_size * self.episodes


class Learner(NamedTuple):
    """Everything that is learned."""

    parameters: jax.Array
    """[D]: what one deploys."""
    fitness: jax.Array
    """Of `parameters` when they were last tried; -inf before."""
    own: Any
    """What one algorithm keeps beside."""
    updates: jax.Array


class Generation(NamedTuple):
    """What `collect` gives to `learn`."""

    population: jax.Array
    """[P, D]"""
    fitness: jax.Array
    """[P]"""
    steps: jax.Array
    """Environment steps until each episode's end, in all."""


class PopulationActor(Actor):
    """Each individual acts in environments of its own: individual p in p E .. p E + E - 1."""

    networks: MLP
    """Every leaf [P, ...]."""
    spec: Spec = eqx.field(static=True)

    def tabulate(self, table: jax.Array) -> "PopulationActor":
        return PopulationActor(jax.vmap(lambda n: n.tabulate(table))(self.networks), self.spec)

    def __call__(self, obs: Observation, memory: Any, key: jax.Array):
        count = jax.tree.leaves(self.networks)[0].shape[0]
        split = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), obs)
        outputs = jax.vmap(lambda network, obs: network(obs))(self.networks, split)
        outputs = outputs.reshape(-1, outputs.shape[-1])
        if self.spec.action.discrete:
            return jnp.argmax(outputs, axis=-1), memory, ()
        return self.spec.action.squash(outputs), memory, ()


class Evolution(Algorithm):
    """Base: evaluates a population; subclasses say whom to try and what to make of it."""

    config: eqx.AbstractVar[Any]
    spec: eqx.AbstractVar[Spec]
    horizon: eqx.AbstractVar[jax.Array]

    @abc.abstractmethod
    def ask(self, learner: Learner, key: jax.Array) -> jax.Array:
        """Parameters [P, D] of the networks to try."""

    @abc.abstractmethod
    def tell(
        self, learner: Learner, generation: Generation, key: jax.Array
    ) -> tuple[Learner, Metrics]:
        """Returns: learner, metrics of its own."""

    def own(self, parameters: jax.Array, key: jax.Array) -> Any:
        """`Learner.own` at the start."""
        return ()

    def init(self, key: jax.Array) -> Learner:
        network_key, own_key = jax.random.split(key)
        parameters = ravel_pytree(self.network(network_key))[0]
        own = self.own(parameters, own_key)
        return Learner(parameters, jnp.float32(-jnp.inf), own, jnp.int32(0))

    def network(self, key: jax.Array) -> MLP:
        """A network before the search: a small last layer, so that no action is preferred."""
        c = self.config
        return mlp(
            key, self.spec, c.hidden_sizes, self.spec.action.size, c.activation, output_scale=0.01
        )

    def unflatten(self, parameters: jax.Array) -> MLP:
        """The network of flat parameters [D]."""
        shapes = jax.eval_shape(self.network, jax.random.key(0))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return ravel_pytree(zeros)[1](parameters)

    def actor(self, learner: Learner) -> PopulationActor:
        population = jnp.broadcast_to(
            learner.parameters, (self.config.population_size, learner.parameters.size)
        )
        return PopulationActor(jax.vmap(self.unflatten)(population), self.spec)

    def policy(self, learner: Learner) -> NetworkPolicy:
        return NetworkPolicy(
            network=self.unflatten(learner.parameters),
            log_std=None,
            normalizer=None,
            spec=self.spec,
            head="categorical" if self.spec.action.discrete else "squashed",
        )

    @property
    def steps_per_update(self) -> int:
        """The most that a generation can take; episodes that end early take less."""
        return self.config.num_envs * self.config.episode_limit

    def collect(self, learner: Learner, source: Source, carry: Any, key: jax.Array):
        c = self.config
        ask_key, play_key = jax.random.split(key)
        population = self.ask(learner, ask_key)
        actor = PopulationActor(jax.vmap(self.unflatten)(population), self.spec)
        copies = c.population_size if c.same_episodes else 1
        returns, lengths = source.episodes(actor, play_key, c.episode_limit, copies=copies)
        fitness = returns.reshape(c.population_size, c.episodes).mean(axis=1)
        finished = Finished(jnp.float32(returns.size), returns.sum(), lengths.sum())
        return carry, Generation(population, fitness, lengths.sum()), finished

    def learn(self, learner: Learner, experience: Any, key: jax.Array) -> tuple[Learner, Metrics]:
        learner, metrics = self.tell(learner, experience, key)
        metrics |= {
            "fitness_mean": experience.fitness.mean(),
            "fitness_best": experience.fitness.max(),
            "fitness_sd": experience.fitness.std(),
            "steps_played": experience.steps,
        }
        return learner._replace(updates=learner.updates + 1), metrics
