"""Logged trajectories as arrays, and a source of random windows to learn from."""

from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax.data.table import Problems
from tradax.errors import DataError, TradaxError
from tradax.protocols import Actor, Experience, Finished, Logged, Source
from tradax.rollout import JaxSource
from tradax.sharing import Share
from tradax.spaces import ActionSpec, Factored, Observation, Spec

METADATA_VERSION = 1
_SHOWN = 20
_FINGERPRINT = 32  # numbers of a market table that tell it from another


@dataclass(frozen=True)
class Log:
    """N steps of whole trajectories, episode after episode; numpy arrays."""

    obs: Any
    """float32 [N, D], or `Factored` of row int32 [N] and account float32 [N, K]."""
    action: np.ndarray
    """int32 [N] or float32 [N, A]; as the policy drew it."""
    log_prob: np.ndarray
    """float32 [N]: of the action, under the policy that acted."""
    reward: np.ndarray
    """float32 [N]"""
    terminated: np.ndarray
    """bool [N]"""
    truncated: np.ndarray
    """bool [N]"""
    episode: np.ndarray
    """int64 [N]: equal within an episode."""
    last_obs: Any
    """True next observation after each episode's last step, [E, ...] like `obs`."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Environment, spec, policy, seed; empty for files of other programs."""
    source: str = "log"
    """File name, for messages."""

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def ends(self) -> np.ndarray:
        """[E]: index of each episode's last step."""
        return np.flatnonzero(np.append(np.diff(self.episode) != 0, True))

    @property
    def finished(self) -> np.ndarray:
        """bool [E]: whether an episode ended before recording stopped."""
        return (self.terminated | self.truncated)[self.ends]

    @property
    def returns(self) -> np.ndarray:
        """float64 [E]: undiscounted return of each episode, as far as it was recorded."""
        return np.add.reduceat(self.reward.astype(np.float64), self._starts)

    @property
    def spec(self) -> Spec | None:
        """Of observations and actions, as recorded; None for files of other programs."""
        raw = self.metadata.get("spec")
        if raw is None:
            return None
        action = ActionSpec(raw["n"], tuple(raw["low"]), tuple(raw["high"]))
        return Spec(raw["market"], raw["account"], action)

    @property
    def _starts(self) -> np.ndarray:
        return np.append(0, self.ends[:-1] + 1)


class LoggedSource(Source):
    """Random windows of a log, whatever the actor would have done.

    Every step of the log is equally likely to begin a window; windows run over ends of episodes
    as rollouts do. Steps of the log are leaves, so `collect` is traced and can be mapped.
    """

    obs: Observation
    """[N, ...], like the next five fields."""
    action: jax.Array
    log_prob: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    end: jax.Array
    """int32 [N]: the row of `last_obs` where an episode ends, -1 elsewhere."""
    last_obs: Observation
    """[E, ...]: true next observations where episodes end."""
    table: jax.Array | None
    spec: Spec = eqx.field(static=True)
    num_envs: int = eqx.field(static=True)
    axis: str | None = eqx.field(static=True, default=None)

    def reset(self, key: jax.Array, actor: Actor) -> tuple:
        return ()

    def collect(
        self, carry: tuple, actor: Actor, key: jax.Array, n_steps: int
    ) -> tuple[tuple, Experience, Finished]:
        """Windows [n_steps, num_envs]. No episode is counted as finished: nobody played one."""
        start = jax.random.randint(key, (self.num_envs,), 0, len(self.reward))
        return (), self.window(start, n_steps), Finished(*[jnp.float32(0)] * 3)

    def window(self, start: jax.Array, n_steps: int) -> Experience:
        """The steps [n_steps, B] from `start` [B] on; after the last comes the first."""
        index = (start + jnp.arange(n_steps)[:, None]) % len(self.reward)
        end = self.end[index]

        def following(obs, last_obs):
            after, last = obs[(index + 1) % len(obs)], last_obs[end]
            return jnp.where((end >= 0).reshape(end.shape + (1,) * (obs.ndim - 1)), last, after)

        return Experience(
            obs=jax.tree.map(lambda x: x[index], self.obs),
            action=self.action[index],
            reward=self.reward[index],
            next_obs=jax.tree.map(following, self.obs, self.last_obs),
            terminated=self.terminated[index],
            truncated=self.truncated[index],
            extras=Logged(self.log_prob[index]),
            table=self.table,
            share=Share(self.axis),
        )

    def episodes(
        self, actor: Actor, key: jax.Array, limit: int, *, copies: int = 1, first: Any = 0
    ) -> tuple[jax.Array, jax.Array]:
        raise TradaxError(
            "a log cannot be played; evaluate the policy in an environment, or estimate its value "
            "with tradax.off_policy_value"
        )


def logged_source(
    log: Log, *, like: JaxSource | None = None, spec: Spec | None = None, num_envs: int = 1
) -> LoggedSource:
    """A source of the log's steps.

    Args:
        like: the environment that was logged; gives the spec, and a market's table. Without it
            observations must be flat.
        spec: instead of `like`; the log's own by default.
        num_envs: windows at a time.

    Raises:
        DataError: log and environment do not fit each other, or the log says too little.
    """
    if num_envs < 1:
        raise TradaxError(f"num_envs is {num_envs}; it must be at least 1")
    table = None
    if like is not None:
        spec, table = like.spec, like.table()
    elif isinstance(log.obs, Factored):
        raise DataError(
            f"{log.source}: observations are rows of a market table, which the file does not hold; "
            "give the environment with the data that was logged"
        )
    elif spec is None and log.spec is not None:
        # Flat observations of a market are those of any environment.
        spec = Spec(0, log.spec.size, log.spec.action)
    if spec is None:
        raise DataError(
            f"{log.source}: the file does not say what it was recorded in; give the environment "
            "(like) or the spec"
        )
    check_fit(log, spec, table)
    truncated = log.truncated.copy()
    truncated[log.ends] |= ~log.finished
    end = np.full(len(log), -1, np.int32)
    end[log.ends] = np.arange(len(log.ends))
    return LoggedSource(
        obs=jax.tree.map(jnp.asarray, log.obs),
        action=jnp.asarray(log.action),
        log_prob=jnp.asarray(log.log_prob),
        reward=jnp.asarray(log.reward),
        terminated=jnp.asarray(log.terminated),
        truncated=jnp.asarray(truncated),
        end=jnp.asarray(end),
        last_obs=jax.tree.map(jnp.asarray, log.last_obs),
        table=table if isinstance(log.obs, Factored) else None,
        spec=spec,
        num_envs=num_envs,
    )


def check_fit(log: Log, spec: Spec, table: jax.Array | np.ndarray | None = None) -> None:
    """Whether a log's observations and actions are those of `spec`, and its rows `table`'s.

    Raises:
        DataError: they are not; the message says what differs.
    """
    problems = Problems(log.source, _SHOWN)
    if log.spec is not None and log.spec.action != spec.action:
        problems.add("", f"was recorded with {log.spec.action}; the environment has {spec.action}")
    if isinstance(log.obs, Factored):
        account = log.obs.account.shape[1]
        if spec.market == 0 or table is None:
            problems.add(
                "column row", "the environment is no market; give the one that was recorded"
            )
        elif account != spec.account:
            problems.add(
                "column account", f"has {account} numbers; the environment has {spec.account}"
            )
        else:
            for name, rows in (("row", log.obs.row), ("next_row", log.last_obs.row)):
                outside = np.flatnonzero((rows < 0) | (rows >= len(table)))
                for i in outside[:1]:
                    at = int(i) if name == "row" else int(log.ends[i])
                    problems.add(
                        f"row {at + 1}, column {name}",
                        f"{rows[i]} is not a row of the market's table of {len(table)}; give the "
                        "data that was recorded",
                    )
            known = log.metadata.get("table")
            if known is not None and not problems.count and not _same_table(known, table):
                problems.add(
                    "", "was recorded on other market data or features; give the same data"
                )
    elif log.obs.shape[1] != spec.size:
        problems.add(
            "column observation",
            f"has {log.obs.shape[1]} numbers; the environment has {spec.size}",
        )
    if spec.action.discrete != (log.action.ndim == 1):
        kind = "integers" if spec.action.discrete else f"lists of {spec.action.size} floats"
        problems.add("column action", f"must hold {kind} for this environment")
    elif spec.action.n is not None:
        for i in np.flatnonzero((log.action < 0) | (log.action >= spec.action.n))[:_SHOWN]:
            problems.add(
                f"row {i + 1}, column action",
                f"{log.action[i]} is not an action; there are 0 to {spec.action.n - 1}",
            )
    elif log.action.shape[1] != spec.action.size:
        problems.add(
            "column action",
            f"has {log.action.shape[1]} numbers; the environment takes {spec.action.size}",
        )
    problems.raise_if_any()


def describe_spec(spec: Spec) -> dict[str, Any]:
    action = spec.action
    return {
        "market": spec.market,
        "account": spec.account,
        "n": action.n,
        "low": list(action.low),
        "high": list(action.high),
    }


def describe_table(table: jax.Array | None) -> dict[str, Any] | None:
    """Shape and some numbers of a market table, to know it again."""
    if table is None:
        return None
    return {"shape": list(table.shape), "sample": [float(x) for x in _sample(np.asarray(table))]}


def _same_table(known: dict[str, Any], table: Any) -> bool:
    # Features may differ in their last digits from machine to machine.
    return list(table.shape) == known["shape"] and np.allclose(
        _sample(np.asarray(table)), known["sample"], rtol=1e-3, atol=1e-3
    )


def _sample(table: np.ndarray) -> np.ndarray:
    return table.ravel()[np.linspace(0, table.size - 1, _FINGERPRINT).astype(int)]
