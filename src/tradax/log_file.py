"""Trajectories as a Parquet file: writing, reading, checking.

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

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tradax.data.table import Problems, Table, read_table
from tradax.errors import DataError
from tradax.files import write_atomic
from tradax.logged import METADATA_VERSION, Log
from tradax.reading import check_version, json_value
from tradax.spaces import Factored

if TYPE_CHECKING:
    import polars as pl

_SHOWN = 20
_KEY = "tradax"


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
        row: Any = reader.integers("row").astype(np.int32)
        account: Any = reader.vectors("account")
        problems.raise_if_any()
        next_row: Any = reader.following("next_row", row, ends, needed)
        next_account: Any = reader.following("next_account", account, ends, needed)
        obs: Any = Factored(row, account)
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


def check_name(path: Path | str) -> None:
    """Raises DataError where `path` does not end in .parquet."""
    path = Path(path)
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise DataError(f"{path}: trajectories are kept as Parquet; name the file .parquet")


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


def _read_metadata(path: Path) -> dict[str, Any]:
    """What `write_log` noted; {} in files of other programs."""
    import pyarrow.parquet

    text = (pyarrow.parquet.read_metadata(path).metadata or {}).get(_KEY.encode())
    if text is None:
        return {}
    try:
        metadata = json_value(text, path, error=DataError)
        check_version(metadata["version"], METADATA_VERSION, path, error=DataError)
        raw = metadata["spec"]
        sizes = [raw["market"], raw["account"], *([] if raw["n"] is None else [raw["n"]])]
        numbers = [*raw["low"], *raw["high"]]
        table = metadata["table"]
        numbers += [] if table is None else [*table["shape"], *table["sample"]]
        if not all(isinstance(x, int) for x in sizes) or not np.isfinite(numbers).all():
            raise ValueError("sizes that are no numbers")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: its metadata ({_KEY}) cannot be read ({error}); record it anew"
        ) from None
    return metadata
