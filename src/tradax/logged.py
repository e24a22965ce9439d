"""Trajectories that a policy left behind: recording, a Parquet file, a source to learn from.

One row a step, episodes one after the other, in time order within each:

    episode                        number of the episode, equal in consecutive rows
    observation                    list of floats; or row and account, in markets
    action                         integer, or list of floats as the policy drew them, not clipped
    log_prob                       of the action, under the policy that acted
    reward, terminated, truncated
    next_observation               true next observation where an episode ends, null elsewhere;
                                   or next_row and next_account

An episode whose last row is neither terminated nor truncated was still running when recording
stopped. Learning takes it as truncated; estimates of a policy's value cannot use it.
"""

import hashlib
import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax.data.table import Problems, Table, read_table
from tradax.errors import DataError, TradaxError
from tradax.files import write_atomic
from tradax.protocols import Actor, Experience, Finished, Logged, Policy, Source
from tradax.rollout import JaxSource
from tradax.spaces import ActionSpec, Factored, Observation, Spec

if TYPE_CHECKING:
    import polars as pl

VERSION = 1
_SHOWN = 20
_KEY = "tradax"
_FINGERPRINT = 32  # numbers of a market table that tell it from another
_CHUNK = 128


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
    arrays = (log.obs, log.action, log.log_prob, log.reward, log.terminated, truncated, end)
    arrays = jax.tree.map(jnp.asarray, (*arrays, log.last_obs))
    return LoggedSource(
        *arrays,  # type: ignore[call-arg]
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
    row = lambda i: f"row {i + 1}"  # noqa: E731
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
                        f"{row(at)}, column {name}",
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
                f"{row(int(i))}, column action",
                f"{log.action[i]} is not an action; there are 0 to {spec.action.n - 1}",
            )
    elif log.action.shape[1] != spec.action.size:
        problems.add(
            "column action",
            f"has {log.action.shape[1]} numbers; the environment takes {spec.action.size}",
        )
    problems.raise_if_any()


def record(
    policy: Policy,
    source: JaxSource,
    *,
    n_steps: int | None = None,
    episodes: int | None = None,
    max_steps: int = 10_000,
    seed: int = 0,
    name: str = "",
) -> Log:
    """Let a policy act, sampling its actions, and keep every step.

    Args:
        n_steps: steps in all, side by side in the source's environments, rounded up to a multiple
            of their number. The last episode of each environment is usually unfinished.
        episodes: instead of `n_steps`, whole episodes; those longer than `max_steps` stay
            unfinished.
        name: of the environment, for the metadata.

    Raises:
        TradaxError: the policy was made for another environment, or has no probabilities.
    """
    if (n_steps is None) == (episodes is None):
        raise TradaxError("give n_steps or episodes, and not both")
    for word, value in (("n_steps", n_steps), ("episodes", episodes), ("max_steps", max_steps)):
        if value is not None and value < 1:
            raise TradaxError(f"{word} is {value}; it must be at least 1")
    if source.spec != policy.spec:
        raise TradaxError(
            f"the policy was made for {policy.spec}, the environment has {source.spec}"
        )
    if episodes is not None:
        source = replace(source, num_envs=episodes)
    length = max_steps if n_steps is None else -(-n_steps // source.num_envs)
    actor = policy.actor(sample=True)
    reset_key, key = jax.random.split(jax.random.key(seed))
    carry = _reset(source, reset_key, actor)
    chunks, steps, ended = [], 0, np.zeros(source.num_envs, bool)
    while steps < length and not (episodes is not None and ended.all()):
        chunk = min(_CHUNK if n_steps is None else 32 * _CHUNK, length - steps)
        carry, experience, _ = _collect(source, carry, actor, jax.random.fold_in(key, steps), chunk)
        if not isinstance(experience.extras, Logged):
            raise TradaxError(
                f"{type(policy).__name__} has no probabilities of actions, which learning from a "
                "log needs; record a stochastic policy"
            )
        chunks.append(jax.tree.map(np.asarray, experience._replace(table=None)))
        ended |= chunks[-1].done.any(axis=0)
        steps += chunk
    together = jax.tree.map(lambda *x: np.concatenate(x), *chunks)
    metadata = {
        "version": VERSION,
        "env": name,
        "spec": _spec_to_json(source.spec),
        "policy": {"kind": type(policy).__name__, "sha256": _hash(policy)},
        "seed": seed,
        "table": _describe_table(source.table()),
    }
    return _from_rollout(together, metadata, first_only=episodes is not None)


def write_log(log: Log, path: Path | str) -> None:
    """Write a Parquet file, at once or not at all.

    Raises:
        TradaxError: the name does not end in .parquet.
    """
    import polars as pl

    path = Path(path)
    check_name(path)

    def lists(values: Any) -> "pl.Series":
        return pl.Series(np.ascontiguousarray(values, np.float32)).arr.to_list()

    ends = log.ends
    at_end = np.full(len(log), -1)
    at_end[ends] = np.arange(len(ends))
    index = pl.Series([None if i < 0 else i for i in at_end.tolist()], dtype=pl.UInt32)
    columns: dict[str, Any] = {"episode": log.episode}
    if isinstance(log.obs, Factored):
        columns |= {"row": log.obs.row, "account": lists(log.obs.account)}
        following = {
            "next_row": pl.Series(log.last_obs.row).gather(index),
            "next_account": lists(log.last_obs.account).gather(index),
        }
    else:
        columns["observation"] = lists(log.obs)
        following = {"next_observation": lists(log.last_obs).gather(index)}
    columns |= {
        "action": log.action if log.action.ndim == 1 else lists(log.action),
        "log_prob": log.log_prob,
        "reward": log.reward,
        "terminated": log.terminated,
        "truncated": log.truncated,
        **following,
    }
    buffer = io.BytesIO()
    metadata = {_KEY: json.dumps(log.metadata, allow_nan=False)}
    pl.DataFrame(columns).write_parquet(buffer, metadata=metadata)
    write_atomic(path, buffer.getvalue())


def read_log(path: Path | str) -> Log:
    """Read and check a Parquet file of trajectories, from `write_log` or any other program.

    Columns beyond those that the module describes are left alone. Numbers become float32.

    Raises:
        DataError: all problems, at most 20, each with file, row and column.
    """
    path = Path(path)
    check_name(path)
    problems = Problems(str(path), _SHOWN)
    table = read_table(path, problems)
    problems.raise_if_any()
    assert table is not None
    reader = _Reader(table, problems)
    market = "row" in table.frame.columns and "observation" not in table.frame.columns
    seen = ("row", "account") if market else ("observation",)
    reader.require(seen, market)
    if len(table.frame) == 0:
        problems.add("", "has no rows; record some steps")
    problems.raise_if_any()

    episode = reader.integers("episode")
    log_prob, reward = reader.floats("log_prob"), reader.floats("reward")
    terminated, truncated = reader.flags("terminated"), reader.flags("truncated")
    action = reader.action()
    problems.raise_if_any()
    reader.check_episodes(episode, terminated, truncated)
    if action.ndim == 1:
        bad = np.flatnonzero(log_prob > 1e-4)
        problems.add_rows(
            table, bad, "log_prob", lambda i: f"{log_prob[i]:.6g} is above 0; give log, not P"
        )
    ends = np.flatnonzero(np.append(np.diff(episode) != 0, True))
    # Beyond a termination nothing is valued, so that there the observation itself will do.
    needed = ~terminated[ends]
    if market:
        row, account = reader.integers("row").astype(np.int32), reader.vectors("account")
        problems.raise_if_any()
        next_row: Any = reader.following("next_row", row, ends, needed)
        next_account: Any = reader.following("next_account", account, ends, needed)
        obs: Any = Factored(row, account)  # type: ignore[arg-type]
        last_obs: Any = Factored(next_row, next_account)
    else:
        obs = reader.vectors("observation")
        problems.raise_if_any()
        last_obs = reader.following("next_observation", obs, ends, needed)
    problems.raise_if_any()
    metadata = _read_metadata(path)
    return Log(
        obs,
        action,
        log_prob,
        reward,
        terminated,
        truncated,
        episode,
        last_obs,
        metadata,
        str(path),
    )


@eqx.filter_jit
def _reset(source: JaxSource, key: jax.Array, actor: Actor):
    return source.reset(key, actor)


@eqx.filter_jit
def _collect(source: JaxSource, carry: Any, actor: Actor, key: jax.Array, n_steps: int):
    return source.collect(carry, actor, key, n_steps)


def _from_rollout(experience: Experience, metadata: dict, *, first_only: bool) -> Log:
    """Args: experience: [T, B, ...]; `first_only` keeps one episode of each environment."""
    steps, envs = experience.reward.shape
    done = experience.done
    before = np.cumsum(done, axis=0) - done  # episodes that ended earlier, [T, B]
    kept = (before == 0) if first_only else np.ones_like(done)

    def in_order(x: np.ndarray) -> np.ndarray:
        return np.swapaxes(x, 0, 1)[kept.T]

    flat: Experience = jax.tree.map(in_order, experience)
    number = in_order(before + steps * np.arange(envs))
    episode = np.append(0, np.cumsum(np.diff(number) != 0)).astype(np.int64)
    ends = np.flatnonzero(np.append(np.diff(episode) != 0, True))
    return Log(
        obs=flat.obs,
        action=np.asarray(flat.action),
        log_prob=np.asarray(flat.extras.log_prob),
        reward=np.asarray(flat.reward),
        terminated=np.asarray(flat.terminated),
        truncated=np.asarray(flat.truncated),
        episode=episode,
        last_obs=jax.tree.map(lambda x: x[ends], flat.next_obs),
        metadata=metadata,
    )


class _Reader:
    """Cells of a table as arrays; what is wrong with them becomes a problem."""

    def __init__(self, table: Table, problems: Problems):
        self.table, self.frame, self.problems = table, table.frame, problems

    def require(self, seen: tuple[str, ...], market: bool) -> None:
        following = tuple(f"next_{name}" for name in seen)
        names = ("episode", *seen, "action", "reward", "terminated", "truncated", *following)
        for name in names:
            if name not in self.frame.columns:
                self.problems.add("", f"no column {name}; {_WHAT[name]}")
        if "log_prob" not in self.frame.columns:
            self.problems.add(
                "",
                "no column log_prob; it must hold the log-probability of each action under the "
                "policy that was logged, or nothing can be learned from it without bias: write it "
                "while recording (tradax.collect does), or compute it from that policy",
            )

    def floats(self, name: str) -> np.ndarray:
        series = self.frame[name]
        if not series.dtype.is_numeric():
            return self._wrong_kind(name, "numbers")
        values = _to_float32(series)
        self._finite(name, ~np.isfinite(values), lambda i: series[i])
        return values

    def integers(self, name: str) -> np.ndarray:
        import polars as pl

        series = self.frame[name]
        if not series.dtype.is_integer():
            return self._wrong_kind(name, "integers")
        missing = np.flatnonzero(series.is_null().to_numpy())
        self.problems.add_rows(self.table, missing, name, lambda i: "the value is missing")
        return series.fill_null(0).cast(pl.Int64).to_numpy()

    def flags(self, name: str) -> np.ndarray:
        import polars as pl

        series = self.frame[name]
        if series.dtype != pl.Boolean:
            return self._wrong_kind(name, "true or false").astype(bool)
        missing = np.flatnonzero(series.is_null().to_numpy())
        self.problems.add_rows(
            self.table, missing, name, lambda i: "the value is missing; write true or false"
        )
        return series.fill_null(False).to_numpy()

    def action(self) -> np.ndarray:
        series = self.frame["action"]
        if series.dtype.is_integer():
            return self.integers("action").astype(np.int32)
        return self.vectors("action", "integers, or lists of floats")

    def vectors(self, name: str, kind: str = "lists of numbers") -> np.ndarray:
        """[N, D] float32."""
        return self._vectors(self.frame[name], name, np.arange(len(self.frame)), kind)

    def following(self, name: str, here: np.ndarray, ends: np.ndarray, needed: np.ndarray):
        """[E, ...]: what comes after the episodes' last rows; `here` where it does not matter."""
        series = self.frame[name].gather(ends)
        missing = series.is_null().to_numpy()
        self.problems.add_rows(
            self.table,
            ends[missing & needed],
            name,
            lambda i: "is missing where an episode was cut off; its value is needed there",
        )
        given = np.flatnonzero(~missing)
        last = here[ends].copy()
        if len(given) == 0 or self.problems.count:
            return last
        if here.ndim == 1:
            if not series.dtype.is_integer():
                return self._wrong_kind(name, "integers")
            last[given] = series.gather(given).to_numpy()
            return last
        values = self._vectors(series.gather(given), name, ends[given], "lists of numbers")
        if self.problems.count == 0 and values.shape[1] != here.shape[1]:
            before = name.removeprefix("next_")
            self.problems.add(
                f"column {name}",
                f"has {values.shape[1]} numbers where {before} has {here.shape[1]}",
            )
        elif self.problems.count == 0:
            last[given] = values
        return last

    def check_episodes(self, episode, terminated, truncated) -> None:
        first = np.flatnonzero(np.append(True, np.diff(episode) != 0))
        _, earliest = np.unique(episode[first], return_index=True)
        again = np.setdiff1d(np.arange(len(first)), earliest)
        self.problems.add_rows(
            self.table,
            first[again],
            "episode",
            lambda i: (
                f"episode {episode[i]} was left and comes again; sort the rows by episode and time"
            ),
        )
        goes_on = np.append(np.diff(episode) == 0, False)
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            self.problems.add_rows(
                self.table,
                np.flatnonzero(flag & goes_on),
                name,
                lambda i: (
                    f"episode {episode[i]} goes on in the next row; give that one a new number"
                ),
            )
        self.problems.add_rows(
            self.table,
            np.flatnonzero(terminated & truncated),
            "truncated",
            lambda i: "is true beside terminated; an episode that ended was not cut off",
        )

    def _vectors(self, series: "pl.Series", name: str, rows: np.ndarray, kind: str) -> np.ndarray:
        import polars as pl

        nothing = np.zeros((len(rows), 1), np.float32)
        if isinstance(series.dtype, pl.Array) and len(series.dtype.shape) == 1:
            series = series.arr.to_list()
        if not isinstance(series.dtype, pl.List) or not series.dtype.inner.is_numeric():
            self._wrong_kind(name, kind)
            return nothing
        lengths = series.list.len().fill_null(0).to_numpy()
        size = int(np.bincount(lengths).argmax())
        wrong = np.flatnonzero((lengths != size) | (lengths == 0))
        self.problems.add_rows(
            self.table,
            rows[wrong],
            name,
            lambda i: (
                f"has {lengths[np.searchsorted(rows, i)]} numbers where most have {size}; all "
                "must have equally many"
            ),
        )
        if len(wrong):
            return nothing
        values = _to_float32(series.explode()).reshape(len(rows), size)
        bad = ~np.isfinite(values)
        if bad.any():
            where = {int(rows[i]): int(np.flatnonzero(bad[i])[0]) for i in np.where(bad)[0]}
            place = {int(row): i for i, row in enumerate(rows)}
            self._finite(
                name,
                bad.any(axis=1),
                lambda i: series[place[i]][where[i]],
                rows,
                lambda i: f" at place {where[i] + 1}",
            )
        return values

    def _finite(self, name, bad, original, rows=None, place=lambda i: "") -> None:
        rows = np.arange(len(bad)) if rows is None else rows

        def message(i: int) -> str:
            value = original(i)
            what = "is missing" if value is None else f"is {value}"
            return f"the value{place(i)} {what}; it must be a finite float32 number"

        self.problems.add_rows(self.table, rows[bad], name, message)

    def _wrong_kind(self, name: str, kind: str) -> np.ndarray:
        self.problems.add(f"column {name}", f"holds {self.frame[name].dtype}; it must hold {kind}")
        return np.zeros(len(self.frame), np.int64)


_WHAT = {
    "episode": "number the episodes, equal in all rows of one",
    "observation": "it must hold lists of numbers (or give row and account, in markets)",
    "row": "it must hold the row of the market's table that was seen",
    "account": "it must hold what was seen beside the market's row, as lists of numbers",
    "action": "it must hold what the policy drew: integers, or lists of numbers",
    "reward": "it must hold the reward of each step",
    "terminated": "it must be true where an episode ended by itself",
    "truncated": "it must be true where an episode was cut off",
    "next_observation": "it must hold what was seen after an episode's last step, null elsewhere",
    "next_row": "it must hold the row that was seen after an episode's last step, null elsewhere",
    "next_account": "it must hold what was seen after an episode's last step, null elsewhere",
}


def _to_float32(series: "pl.Series") -> np.ndarray:
    import polars as pl

    with np.errstate(over="ignore"):
        return series.cast(pl.Float64).to_numpy().astype(np.float32)


def check_name(path: Path | str) -> None:
    """Raises DataError where `path` does not end in .parquet."""
    path = Path(path)
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise DataError(f"{path}: trajectories are kept as Parquet; name the file .parquet")


def _read_metadata(path: Path) -> dict[str, Any]:
    """What `write_log` noted; {} in files of other programs."""
    import polars as pl

    text = pl.read_parquet_metadata(path).get(_KEY)
    if text is None:
        return {}
    try:
        metadata = json.loads(text)
        version = int(metadata["version"])
        if version <= VERSION:
            raw = metadata["spec"]
            sizes = [raw["market"], raw["account"], *([] if raw["n"] is None else [raw["n"]])]
            numbers = [*raw["low"], *raw["high"]]
            table = metadata["table"]
            numbers += [] if table is None else [*table["shape"], *table["sample"]]
            if not all(isinstance(x, int) for x in sizes) or not np.isfinite(numbers).all():
                raise ValueError("sizes that are no numbers")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: its metadata ({_KEY}) cannot be read ({error}); record it anew"
        ) from None
    if version > VERSION:
        raise DataError(f"{path}: format {version} is newer than this tradax reads; upgrade tradax")
    return metadata


def _spec_to_json(spec: Spec) -> dict[str, Any]:
    action = spec.action
    return {
        "market": spec.market,
        "account": spec.account,
        "n": action.n,
        "low": list(action.low),
        "high": list(action.high),
    }


def _describe_table(table: jax.Array | None) -> dict[str, Any] | None:
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


def _hash(policy: Policy) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(policy):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
