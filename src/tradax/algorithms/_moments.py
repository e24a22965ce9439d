"""Running statistics of what is observed and earned, by which environments that are not markets
are normalised."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tradax.networks import RunningMoments
from tradax.protocols import Experience
from tradax.spaces import Spec


class Moments(NamedTuple):
    """What is known so far; None where nothing is normalised by it."""

    observations: RunningMoments | None
    returns: RunningMoments | None
    discounted_return: jax.Array
    """Running discounted return [num_envs], of which `returns` keeps the variance."""

    @staticmethod
    def create(config: Any, spec: Spec) -> "Moments":
        """Of an algorithm's options; markets bring their own normaliser of observations."""
        seen = config.normalize_observations and spec.market == 0
        return Moments(
            RunningMoments.create((spec.account,)) if seen else None,
            RunningMoments.create(()) if config.normalize_rewards else None,
            jnp.zeros(config.num_envs),
        )

    def update(self, experience: Experience, gamma: Any, *, afresh: bool = False) -> "Moments":
        """With more experience [T, B].

        Args:
            afresh: it begins with new episodes everywhere.
        """
        observations, returns, last = self
        if observations is not None:
            assert isinstance(experience.obs, jax.Array)
            observations = observations.update(experience.obs)
        if returns is not None:

            def accumulate(running, step):
                reward, done = step
                running = reward + gamma * running
                return running * (1.0 - done), running

            last = jnp.zeros_like(last) if afresh else last
            last, running = jax.lax.scan(accumulate, last, (experience.reward, experience.done))
            returns = returns.update(running)
        return Moments(observations, returns, last)

    def scaled(self, reward: jax.Array) -> jax.Array:
        """Rewards in standard deviations of the discounted return."""
        return reward if self.returns is None else reward / jnp.sqrt(self.returns.var + 1e-8)
