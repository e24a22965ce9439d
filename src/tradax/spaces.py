"""Static, hashable descriptions of what an agent sees and does."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tradax.errors import TradaxError


class Factored(NamedTuple):
    """An observation of a price-taker market: the market's part does not depend on the agent.

    The flat observation, as other libraries see it, is `concat(table[row], account)`.
    """

    row: jax.Array
    """int32 [...]: row of the market table [T, F]."""
    account: jax.Array
    """float32 [..., K]: what depends on the agent: position, cash, time left."""

    def flat(self, table: jax.Array) -> jax.Array:
        """The observation as one vector, [..., F + K]."""
        return jnp.concatenate([table[self.row], self.account], axis=-1)


Observation = Factored | jax.Array


@dataclass(frozen=True)
class ActionSpec:
    """Either `n` discrete actions or a box `[low, high]` (tuples, one element a dimension)."""

    n: int | None = None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __str__(self) -> str:
        if self.discrete:
            return f"{self.n} discrete actions"
        bounds = dict.fromkeys(zip(self.low, self.high, strict=True))  # mostly the same for all
        within = ", ".join(f"[{low:g}, {high:g}]" for low, high in bounds)
        return f"actions of {len(self.low)} numbers in {within}"

    @property
    def discrete(self) -> bool:
        return self.n is not None

    @property
    def size(self) -> int:
        """Number of network outputs that parameterise a distribution's mean or logits."""
        return self.n if self.n is not None else len(self.low)

    def clip(self, action: jax.Array) -> jax.Array:
        """The action that the environment is given, for one that an unbounded policy chose."""
        if self.discrete:
            return action
        return jnp.clip(action, jnp.array(self.low), jnp.array(self.high))

    @property
    def unit(self) -> "ActionSpec":
        """The same with every bound -1 or 1."""
        return ActionSpec(self.n, (-1.0,) * len(self.low), (1.0,) * len(self.high))

    def to_unit(self, x: jax.Array) -> jax.Array:
        """From within the bounds to within [-1, 1]."""
        low, high = jnp.array(self.low), jnp.array(self.high)
        return 2.0 * (x - low) / (high - low) - 1.0

    def from_unit(self, x: jax.Array) -> jax.Array:
        """From within [-1, 1] to within the bounds."""
        low, high = jnp.array(self.low), jnp.array(self.high)
        return low + (high - low) * (x + 1.0) / 2.0

    def squash(self, x: jax.Array) -> jax.Array:
        """Any number to within the bounds, by tanh."""
        return self.from_unit(jnp.tanh(x))


@dataclass(frozen=True)
class Spec:
    """Sizes of observation and action.

    A flat observation of D numbers is `market=0, account=D`.
    """

    market: int
    account: int
    action: ActionSpec

    def __str__(self) -> str:
        return f"observations of {self.size} numbers and {self.action}"

    @property
    def size(self) -> int:
        """Length of the flat observation."""
        return self.market + self.account


def action_spec(space) -> ActionSpec:
    """The description of a gymnax or Gymnasium action space.

    Raises:
        TradaxError: for spaces other than Discrete and one-dimensional Box.
    """
    if type(space).__name__ == "Discrete":
        return ActionSpec(n=int(space.n))
    if type(space).__name__ == "Box":
        shape = tuple(space.shape)
        if len(shape) > 1:
            raise TradaxError(f"actions of shape {shape} are not supported; flatten them to 1 axis")
        # By numpy: each operation of jax.numpy outside of a program is compiled by itself.
        low = np.broadcast_to(np.asarray(space.low, np.float32), shape or (1,))
        high = np.broadcast_to(np.asarray(space.high, np.float32), shape or (1,))
        if not (np.isfinite(low) & np.isfinite(high)).all():
            raise TradaxError("unbounded action spaces are not supported; rescale them to a box")
        return ActionSpec(low=tuple(map(float, low)), high=tuple(map(float, high)))
    raise TradaxError(
        f"action space {type(space).__name__} is not supported; use Discrete or a 1-dimensional Box"
    )
