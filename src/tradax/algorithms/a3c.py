"""Asynchronous advantage actor-critic (Mnih et al. 2016), with its staleness made reproducible.

Every worker acts and computes gradients with its own copy of the networks; gradients are applied
to the shared ones in turn, with shared RMSprop statistics (section 4); then the worker copies the
shared networks. What is asynchronous in the paper is a race; here the order is fixed: in one
update each worker contributes one gradient, worker after worker, so that worker i's copy lacks
what workers i+1, i+2, ... added since it was made, and with `sync_every` k it is up to k updates
old. The numbers are those of workers that take turns, not those of threads that overtake each
other, and they are the same at every run. With one worker and `sync_every` 1 this is A2C.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from tradax.algorithms import a2c
from tradax.algorithms._policy_gradient import Batch, Learner
from tradax.config import config, setting
from tradax.draws import is_key
from tradax.errors import ConfigError
from tradax.optimise import descend
from tradax.policies import ActorCritic, StochasticActor
from tradax.protocols import Actor, Experience, Metrics
from tradax.sharing import ALONE, Share
from tradax.spaces import Observation, Spec


@config
class Config(a2c.Config):
    """A3C: workers with copies of the networks that grow stale, in a fixed order."""

    workers: int = setting(default=4, least=1)
    """Workers; must divide num_envs."""
    sync_every: int = setting(default=1, least=1)
    """Updates between a worker's copies of the shared networks."""
    learning_rate: float = setting(default=1e-3, above=0)
    """RMSprop step size of each worker's gradient at the first update."""

    def validate(self):
        if self.num_envs % self.workers:
            raise ConfigError(
                f"a3c.workers is {self.workers}, which does not divide the {self.num_envs} "
                "environments; change one of them"
            )
        if self.update_every != "steps":
            raise ConfigError("a3c.update_every must be steps; workers do not wait for episodes")
        super().validate()


class WorkerActor(Actor):
    """Each worker's environments act by the worker's own copy."""

    workers: StochasticActor
    """Every leaf but the observations' statistics with a leading axis [workers]."""
    count: int = eqx.field(static=True)
    share: Share = ALONE
    """Of the workers."""

    @property
    def tabulations(self) -> int:
        return self.count

    def tabulate(self, table: jax.Array) -> "WorkerActor":
        networks = jax.vmap(lambda network: network.tabulate(table))(self.workers.network)
        actor = StochasticActor(networks, self.workers.normalizer, self.workers.spec)
        return WorkerActor(actor, self.count, self.share)

    def shared(self, share: Share) -> "WorkerActor":
        networks = share.of(self.workers.network)
        actor = StochasticActor(networks, self.workers.normalizer, self.workers.spec)
        return WorkerActor(actor, self.count // share.devices, share)

    def ahead(self, keys: jax.Array, batch: int) -> jax.Array:
        """Noise [T, workers, B / workers, n]."""
        each = batch // self.count
        noise = jax.vmap(lambda keys: self.workers.ahead(keys, each))
        return noise(jax.vmap(self._keys)(keys))

    def __call__(self, obs: Observation, memory: Any, drawn: jax.Array):
        def act(network, obs, drawn):
            return StochasticActor(network, self.workers.normalizer, self.workers.spec)(
                obs, memory, drawn
            )

        drawn = self._keys(drawn) if is_key(drawn) else drawn
        split = jax.tree.map(lambda x: x.reshape(self.count, -1, *x.shape[1:]), obs)
        action, _, extras = jax.vmap(act)(self.workers.network, split, drawn)
        joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (action, extras))
        return joined[0], memory, joined[1]

    def _keys(self, key: jax.Array) -> jax.Array:
        """One of each worker; one worker alone draws what the actor of A2C would."""
        everyone = self.count * self.share.devices
        return self.share.of(jax.random.split(key, everyone) if everyone > 1 else key[None])


class A3C(a2c.AdvantageActorCritic):
    config: Config
    spec: Spec = eqx.field(static=True)
    horizon: jax.Array

    def own(self, network: ActorCritic) -> ActorCritic:
        """The workers' copies, [workers, ...]."""
        count = self.config.workers
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), network)

    def actor(self, learner: Learner) -> WorkerActor:
        actor = StochasticActor(learner.own, learner.moments.observations, self.spec)
        return WorkerActor(actor, self.config.workers)

    def check_devices(self, devices: int) -> None:
        if self.config.workers % devices:
            raise ConfigError(
                f"a3c.workers is {self.config.workers}, which does not divide by {devices} "
                f"devices; use a multiple of {devices}"
            )

    def value(self, learner: Learner, obs: Observation, table, share: Share) -> jax.Array:
        values = jax.vmap(lambda network, obs: network.value(obs, table))
        found = values(*share.of((learner.own, self._split(obs))))
        # [workers, T, B / workers] to [T, B]
        return jnp.moveaxis(found, 0, 1).reshape(found.shape[1], -1)

    def next_value(self, learner: Learner, experience: Experience, value: jax.Array) -> jax.Array:
        # Of all: rows that are picked out would need the network of their worker.
        return self.value(learner, experience.next_obs, experience.table, experience.share)

    def improve(
        self, learner: Learner, batch: Batch, table: jax.Array | None, key: jax.Array
    ) -> tuple[Learner, Metrics]:
        c = self.config
        learning_rate = self.learning_rate(learner)
        optimiser = self.optimiser(learning_rate)
        share, split = batch.share, self._split(batch._replace(share=ALONE))
        flat = jax.tree.map(lambda x: x.reshape(c.workers, -1, *x.shape[3:]), split)
        compute = jax.vmap(lambda own, batch: self.gradient(own, self.part(batch), table))
        gradients, metrics = share.gathered(compute(*share.of((learner.own, flat))))
        synchronise = (learner.updates + 1) % c.sync_every == 0

        def apply(shared, worker):
            gradient, own = worker
            network, opt_state = descend(optimiser, gradient, shared[1], shared[0])
            copy = jax.tree.map(lambda new, old: jnp.where(synchronise, new, old), network, own)
            return (network, opt_state), copy

        (network, opt_state), copies = jax.lax.scan(
            apply, (learner.network, learner.opt_state), (gradients, learner.own)
        )
        staleness = jax.tree.map(lambda own, now: own - now, copies, network)
        metrics = {name: value.mean() for name, value in metrics.items()}
        metrics |= self.diagnose(network, self.part(batch.flat()), table)
        metrics |= {
            "gradient_norm": jax.vmap(optax.tree.norm)(gradients).mean(),
            "staleness": jax.vmap(optax.tree.norm)(staleness).mean(),
            "learning_rate": learning_rate,
        }
        return learner._replace(network=network, opt_state=opt_state, own=copies), metrics

    def _split(self, tree: Any) -> Any:
        """[T, B, ...] to [workers, T, B / workers, ...]."""
        count = self.config.workers
        return jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(x.shape[0], count, -1, *x.shape[2:]), 1, 0), tree
        )


def make(config: Config, spec: Spec, horizon: jax.Array) -> A3C:
    """Raises ConfigError where the options do not fit the action space."""
    return A3C(config=config, spec=spec, horizon=horizon)
