"""What searches without gradients share: a population of networks, and its fitness.

The fitness of an individual is the mean return of its episodes. All individuals play side by side
in one program that ends as soon as their last episode does; with `same_episodes` they all meet
the same starts and the same noise, so that luck does not choose between them.

An individual is a function of the learner, a key and its number. Where the population is split
over devices, each draws its own part, and draws again whichever individual turns out to be needed:
what travels between devices is the fitness, whatever the size of the networks.
"""

import abc
import math
import warnings
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from tradax.config import config, section, setting
from tradax.errors import ConfigError
from tradax.model_file import load_policy
from tradax.networks import MLP, NarrowDense, mlp
from tradax.policies import NetworkPolicy
from tradax.protocols import Actor, Algorithm, Finished, Metrics, Source
from tradax.spaces import Observation, Spec

_CACHED_PARAMETERS = 256 * 1024  # a megabyte: what a core of a usual processor keeps nearby


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
    actions: Literal["greedy", "sampled"] = "greedy"
    """While searching: the best action, or one drawn at random around it."""
    action_noise: float = setting(default=0.3, least=0)
    """Deviation of sampled continuous actions, before tanh."""
    initial_policy: str | None = None
    """A policy.zip of the same network to start from. None: random weights."""
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
    """Of `parameters` when they were last tried, or of what they were fitted to; -inf before."""
    best: jax.Array
    """[D]: the best individual ever; of equals the latest, which comes of a better population."""
    best_fitness: jax.Array
    own: Any
    """What one algorithm keeps beside."""
    updates: jax.Array


class Generation(NamedTuple):
    """What `collect` gives to `learn`."""

    fitness: jax.Array
    """[P]"""
    steps: jax.Array
    """Environment steps until each episode's end, in all."""
    key: jax.Array
    """With which the individuals were drawn."""
    population: jax.Array | None
    """[P, D], where one device has drawn them all."""


class PopulationActor(Actor):
    """Each individual acts in environments of its own: the p-th in p E .. p E + E - 1."""

    networks: MLP
    """Every leaf [P, ...]."""
    index: jax.Array
    """[P]: the individuals' numbers in the whole population."""
    noise: jax.Array | None
    """Scale of what is added to a network's outputs; None: act greedily."""
    spec: Spec = eqx.field(static=True)

    @property
    def tabulations(self) -> int:
        return self.index.shape[0]

    def tabulate(self, table: jax.Array) -> "PopulationActor":
        networks = jax.vmap(lambda n: n.tabulate(table))(self.networks)
        return PopulationActor(networks, self.index, self.noise, self.spec)

    def __call__(self, obs: Observation, memory: Any, key: jax.Array):
        split = jax.tree.map(lambda x: x.reshape(self.index.shape[0], -1, *x.shape[1:]), obs)
        outputs = jax.vmap(lambda network, obs: network(obs))(self.networks, split)
        if self.noise is not None:
            # The largest of logits with Gumbel noise is a draw from their softmax.
            draw = jax.random.gumbel if self.spec.action.discrete else jax.random.normal
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(self.index)
            outputs += self.noise * jax.vmap(lambda k: draw(k, outputs.shape[1:]))(keys)
        outputs = outputs.reshape(-1, outputs.shape[-1])
        if self.spec.action.discrete:
            return jnp.argmax(outputs, axis=-1), memory, ()
        return self.spec.action.squash(outputs), memory, ()


class Evolution(Algorithm):
    """Base: evaluates a population; subclasses say whom to try and what to make of it."""

    config: eqx.AbstractVar[Any]
    spec: eqx.AbstractVar[Spec]
    horizon: eqx.AbstractVar[jax.Array]
    start: eqx.AbstractVar[jax.Array | None]
    """Parameters [D] to begin with; None: random ones."""

    @abc.abstractmethod
    def individual(self, learner: Learner, key: jax.Array, index: jax.Array) -> jax.Array:
        """Parameters [D] of one network to try; the same for the same key and number."""

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
        parameters = self.start
        if parameters is None:
            parameters = ravel_pytree(self.network(network_key))[0]
        worst = jnp.float32(-jnp.inf)
        own = self.own(parameters, own_key)
        return Learner(parameters, worst, parameters, worst, own, jnp.int32(0))

    def network(self, key: jax.Array) -> MLP:
        """A network before the search: a small last layer, so that no action is preferred."""
        return _network(self.config, self.spec, key)

    def unflatten(self, parameters: jax.Array) -> MLP:
        """The network of flat parameters [D]."""
        shapes = jax.eval_shape(self.network, jax.random.key(0))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return ravel_pytree(zeros)[1](parameters)

    def individuals(self, learner: Learner, key: jax.Array, index: jax.Array) -> jax.Array:
        """Parameters [N, D] of the individuals with these numbers [N]."""
        return jax.vmap(lambda i: self.individual(learner, key, i))(index)

    def chosen(self, learner: Learner, generation: Generation, index: jax.Array) -> jax.Array:
        """Parameters [..., D] of individuals that were tried; `learner` is that which drew them."""
        if generation.population is not None:
            return generation.population[index]
        drawn = self.individuals(learner, generation.key, jnp.ravel(index))
        return drawn.reshape(*index.shape, -1)

    def population_actor(self, population: jax.Array, index: jax.Array) -> PopulationActor:
        """Args: population: [N, D]; index: their numbers [N]."""
        noise = None
        if self.config.actions == "sampled":
            scale = 1.0 if self.spec.action.discrete else self.config.action_noise
            noise = jnp.asarray(scale, jnp.float32)
        networks = jax.vmap(self.unflatten)(population)
        if networks.rest:
            *hidden, last = networks.rest
            narrow = NarrowDense(jnp.swapaxes(last.weight, 1, 2), last.bias)
            networks = eqx.tree_at(lambda n: n.rest, networks, (*hidden, narrow))
        return PopulationActor(networks, index, noise, self.spec)

    def actor(self, learner: Learner) -> PopulationActor:
        index = jnp.arange(self.config.population_size)
        same = jnp.broadcast_to(learner.parameters, (index.size, learner.parameters.size))
        return self.population_actor(same, index)

    def policy(self, learner: Learner) -> NetworkPolicy:
        return self.policy_of(learner.parameters)

    def policy_of(self, parameters: jax.Array) -> NetworkPolicy:
        """The policy of flat parameters [D]."""
        return NetworkPolicy(
            network=self.unflatten(parameters),
            log_std=None,
            normalizer=None,
            spec=self.spec,
            head="categorical" if self.spec.action.discrete else "squashed",
        )

    def best(self, learner: Learner) -> tuple[jax.Array, NetworkPolicy]:
        return learner.best_fitness, self.policy_of(learner.best)

    @property
    def splits_over_devices(self) -> bool:
        return True

    def check_devices(self, devices: int) -> None:
        """Any population can be split; warns where it is padded."""
        population = self.config.population_size
        if idle := -population % devices:
            warnings.warn(
                f"a population of {population} does not divide by {devices} devices; it is padded "
                f"to {population + idle}, and what the {idle} do is thrown away",
                stacklevel=4,
            )

    @property
    def steps_per_update(self) -> int:
        """The most that a generation can take; episodes that end early take less."""
        return self.config.num_envs * self.config.episode_limit

    def collect(self, learner: Learner, source: Source, carry: Any, key: jax.Array):
        c, axis = self.config, source.axis
        draw_key, play_key = jax.random.split(key)
        size, first = c.population_size, 0
        if axis is not None:
            # Of a population that does not divide, the last individual plays more than once.
            size = -(-size // jax.lax.axis_size(axis))
            first = jax.lax.axis_index(axis) * size
        number = first + jnp.arange(size)
        index = jnp.minimum(number, c.population_size - 1)
        population = self.individuals(learner, draw_key, index)
        returns, lengths = self.play(population, index, number * c.episodes, source, play_key)
        counted = jnp.repeat(number < c.population_size, c.episodes)
        fitness = returns.reshape(size, c.episodes).mean(axis=1)
        played = Finished(*(jnp.sum(counted * x) for x in (1.0, returns, lengths)))
        if axis is not None:
            fitness = jax.lax.all_gather(fitness, axis, tiled=True)[: c.population_size]
            played = jax.lax.psum(played, axis)
        generation = Generation(
            fitness, played.length_sum, draw_key, population if axis is None else None
        )
        return carry, generation, played

    def play(
        self,
        population: jax.Array,
        index: jax.Array,
        first: jax.Array,
        source: Source,
        key: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Play all episodes of individuals [N, D]; their numbers and first environments are [N].

        Blocks of them play one after the other, each of a size that the processor's own memory
        holds: every step reads all weights.

        Returns: return and length [N episodes].
        """
        c, (size, width) = self.config, population.shape
        # The market part of the first layer is multiplied before the episodes.
        width -= self.spec.market * (*c.hidden_sizes, self.spec.action.size)[0]
        blocks = max(1, round(size * width / _block_parameters())) if source.jittable else 1
        block = -(-size // blocks)
        inner = source.of(block * c.episodes)

        def one(start):
            population, index, first = jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, start, block), everyone
            )
            return inner.episodes(
                self.population_actor(population, index),
                key,
                c.episode_limit,
                copies=block if c.same_episodes else 1,
                first=0 if c.same_episodes else first[0],
            )

        everyone = (population, index, first)
        if block == size:
            return one(0)
        # Where they do not divide, the last block begins earlier and plays some again.
        blocks = -(-size // block)
        played = jax.lax.map(one, jnp.minimum(jnp.arange(blocks) * block, size - block))
        again = (blocks * block - size) * c.episodes

        def joined(x):
            return jnp.append(x[:-1].ravel(), x[-1, again:])

        return jax.tree.map(joined, played)

    def learn(self, learner: Learner, experience: Any, key: jax.Array) -> tuple[Learner, Metrics]:
        fitness = experience.fitness
        winner = jnp.argmax(fitness)
        improved = fitness[winner] >= learner.best_fitness
        best = jnp.where(improved, self.chosen(learner, experience, winner), learner.best)
        learner = learner._replace(
            best=best, best_fitness=jnp.maximum(fitness[winner], learner.best_fitness)
        )
        learner, metrics = self.tell(learner, experience, key)
        metrics |= {
            "fitness_mean": fitness.mean(),
            "fitness_best": fitness[winner],
            "fitness_sd": fitness.std(),
            "best_ever": learner.best_fitness,
            "steps_played": experience.steps,
        }
        return learner._replace(updates=learner.updates + 1), metrics


def _block_parameters() -> float:
    """How many parameters of a population to work with at a time."""
    return _CACHED_PARAMETERS if jax.default_backend() == "cpu" else math.inf


def start_of(config: Config, spec: Spec) -> jax.Array | None:
    """Parameters of `initial_policy`, flat; None where there is none.

    Raises:
        ConfigError: its network is not the one that is searched.
        ModelFileError: no policy can be read from the file.
    """
    if config.initial_policy is None:
        return None
    policy = load_policy(config.initial_policy)
    if policy.spec != spec:
        raise ConfigError(
            f"initial_policy {config.initial_policy} was made for {policy.spec}; this environment "
            f"has {spec}"
        )
    wanted = jax.eval_shape(lambda: _network(config, spec, jax.random.key(0)))
    shapes = [jax.tree.map(jnp.shape, jax.tree.leaves(n)) for n in (policy.network, wanted)]
    if shapes[0] != shapes[1] or policy.network.activation != config.activation:
        network = policy.network
        hidden = [network.first.account.shape[1], *(x.bias.shape[0] for x in network.rest[:-1])]
        raise ConfigError(
            f"initial_policy {config.initial_policy} has hidden layers {hidden} with "
            f"{network.activation}; take the same hidden_sizes and activation"
        )
    if policy.normalizer is not None:
        raise ConfigError(
            f"initial_policy {config.initial_policy} normalises its observations, and this search "
            "does not; train it with normalize_observations off"
        )
    return ravel_pytree(policy.network)[0]


def elite_count(config: Any, least: int, why: str) -> int:
    """How many of `population_size` are in `elite_fraction`, rounded up.

    Raises:
        ConfigError: fewer than `least`; the message says why that is too few.
    """
    count = math.ceil(config.elite_fraction * config.population_size)
    if count < least:
        raise ConfigError(
            f"{section(type(config))}.elite_fraction {config.elite_fraction:g} of "
            f"{config.population_size} leaves fewer than {least} {why}"
        )
    return count


def _network(config: Config, spec: Spec, key: jax.Array) -> MLP:
    return mlp(
        key, spec, config.hidden_sizes, spec.action.size, config.activation, output_scale=0.01
    )
