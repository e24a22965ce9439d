"""The validation returns of trials, kept so that the search for the best of them can be judged.

A run's or sweep's folder holds `validation_returns.parquet`: `timestamp`, and one float32 column a
trial, named by `ledger.Trial.id`, with simple returns of one deterministic walk over the validation
span. Selection is by validation, so this is the span on which it may have chosen luck; the test
span is left alone. A trial that was validated on other bars has nulls.
"""

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import jax
import numpy as np

from tradax.data.splits import Splits
from tradax.evaluation.backtest import walked
from tradax.files import renamed
from tradax.ledger import Entry
from tradax.protocols import Policy
from tradax.rollout import JaxSource

FILE = "validation_returns.parquet"


class Series(NamedTuple):
    """What one trial made of its validation span."""

    timestamps: np.ndarray
    """[n] datetime64[us], of the bars at whose end each return was known."""
    returns: np.ndarray
    """[n], simple."""


def on_validation(
    policy: Policy,
    module: ModuleType,
    source: JaxSource,
    splits: Splits,
    timestamps: np.ndarray,
) -> Series:
    """Walk the validation span once, deterministically.

    Args:
        module: the environment's, with `over_span`.
        timestamps: [T], of all bars.
    """
    span = splits.validation
    n = span.last - span.first
    # As many steps as the test has, where that is more: then there is one program for both.
    steps = max(n, splits.test.last - splits.test.first)
    params = module.over_span(source.params, span)
    _, info = walked(
        JaxSource(env=source.env, params=params, spec=policy.spec, num_envs=1),
        policy.actor(sample=False),
        jax.random.key(0),
        steps,
    )
    worth = np.asarray(info["net_worth"], np.float64)[:n]
    over = np.asarray(info["over"], bool)[:n]  # after ruin nothing happens any more
    worth = np.concatenate([[float(params.initial_cash)], worth])
    if over.any():
        worth[1:][over] = worth[1:][~over][-1]
    return Series(timestamps[span.first + 1 : span.last + 1], worth[1:] / worth[:-1] - 1.0)


def write_returns(folder: Path, kept: Mapping[str, Series]) -> None:
    """Write `FILE`; trials whose returns are not finite are left out.

    Args:
        kept: `Trial.id` -> its returns.
    """
    import polars as pl

    kept = {name: series for name, series in kept.items() if np.isfinite(series.returns).all()}
    if not kept:
        return
    stamps = [np.asarray(series.timestamps, "datetime64[us]") for series in kept.values()]
    every = np.unique(np.concatenate(stamps))
    columns: dict[str, np.ndarray] = {"timestamp": every}
    for own, (name, series) in zip(stamps, kept.items(), strict=True):
        column = np.full(len(every), np.nan, np.float32)
        column[np.searchsorted(every, own)] = series.returns
        columns[name] = column
    with renamed(folder / FILE) as temporary:
        pl.DataFrame(columns, nan_to_null=True).write_parquet(temporary)


def read_returns(folder: Path, names: Sequence[str]) -> dict[str, Series]:
    """Those of the named trials that a folder has; nothing where its file is gone or damaged."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(folder / FILE) as file:
            held = set(file.schema_arrow.names)
            chosen = [name for name in dict.fromkeys(names) if name in held]
            table = file.read(columns=["timestamp", *chosen])
        stamps = table["timestamp"].to_numpy().astype("datetime64[us]")
        columns = {name: table[name].to_numpy().astype(np.float64) for name in chosen}
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException):
        return {}
    found = {}
    for name, column in columns.items():
        there = np.isfinite(column)
        found[name] = Series(stamps[there], column[there])
    return found


def together(entries: Sequence[Entry]) -> np.ndarray:
    """Validation returns of those of the trials that still have them, on the bars they share.

    Those that share less than half of the span on which most were validated are left out, so that
    one trial with other spans does not hide the rest.

    Returns: [n, N] of N trials; [0, 0] where nothing was kept.
    """
    by_folder: dict[str, list[str]] = {}
    for entry in entries:
        by_folder.setdefault(entry.folder, []).append(entry.trial.id)
    found = [
        series
        for folder, names in by_folder.items()
        for series in read_returns(Path(folder), names).values()
        if len(series.returns)
    ]
    if not found:
        return np.zeros((0, 0))
    counted = collections.Counter(series.timestamps.tobytes() for series in found)
    usual = np.frombuffer(counted.most_common(1)[0][0], "datetime64[us]")
    common = usual
    chosen = []
    for series in found:
        shared = np.intersect1d(usual, series.timestamps)
        if 2 * len(shared) >= len(usual):
            chosen.append(series)
            common = np.intersect1d(common, shared)
    return np.stack([s.returns[np.isin(s.timestamps, common)] for s in chosen], axis=1)
