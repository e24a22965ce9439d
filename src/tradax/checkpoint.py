"""Everything that resuming needs, saved by orbax: arrays only, no pickle.

    checkpoints/
      format.json
      7/arrays/          by orbax
      7/checkpoint.json  update, whether it was the best so far, SHA-256 of every file
      .8/                being written

A checkpoint gets its name when all of it is on the disk. The newest two stay, and the newest that
was the best on validation.
"""

import hashlib
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tradax.errors import ModelFileError, TradaxError
from tradax.files import clear_errors, sync, write_json
from tradax.reading import check_version, json_value, read_bytes

_VERSION = 2
_KEPT = 2
_MOST_JSON = 2**24  # a file in it takes 100 bytes


def save_checkpoint(folder: Path, tree: Any) -> None:
    """Add a checkpoint. A crash in the middle leaves the older ones readable."""
    write_checkpoint(folder, to_host(tree))


def to_host(tree: Any) -> dict[str, np.ndarray]:
    """Name -> a copy in the host's memory, which training does not overwrite."""
    return {name: np.array(value) for name, value in _flatten(tree).items()}


def write_checkpoint(
    folder: Path,
    arrays: Mapping[str, np.ndarray],
    *,
    update: int | None = None,
    best: bool = False,
    beside: Sequence[Path] = (),
) -> None:
    """Add a checkpoint of what `to_host` gave, and remove those that are no longer needed.

    Args:
        update: how many updates were done, to be read by people.
        best: the policy is the best so far on validation.
        beside: files that must be on the disk before it counts.

    Raises:
        TradaxError: it cannot be written, or the folder around `folder` has gone.
    """
    step = max(_steps(folder), default=-1) + 1
    temporary = folder / f".{step}"
    with clear_errors(folder):
        try:
            folder.mkdir(exist_ok=True)
            if _version(folder) != _VERSION:
                write_json(folder / "format.json", _format(_VERSION))
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            _write_arrays(temporary / "arrays", arrays)
            sums = {name: _sha256(temporary / name) for name in _files(temporary)}
            facts = {"update": update, "best": best, "sha256": sums}
            write_json(temporary / "checkpoint.json", facts)
            for path in [*temporary.rglob("*"), temporary, *beside]:
                sync(path)
            temporary.rename(folder / str(step))
            sync(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    for old in _steps(folder)[:-_KEPT]:
        if old != _newest_best(folder):
            shutil.rmtree(folder / str(old), ignore_errors=True)


def load_checkpoint(folder: Path, like: Any) -> Any:
    """The newest saved tree; a damaged one is passed over, with a warning.

    Args:
        like: a tree of the same structure, shapes and types.

    Raises:
        ModelFileError: there is no checkpoint, or none is whole, or it belongs to other settings;
            the message names the first difference.
    """
    return _as_tree(folder, read_newest(folder), like)


def read_newest(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of the newest checkpoint that is whole, by name; errors as `load_checkpoint`."""
    if (version := _version(folder)) is not None:
        check_version(version, _VERSION, folder)
    steps = _steps(folder)
    if not steps:
        raise ModelFileError(f"{folder}: no checkpoint to resume from")
    problems = []
    for step in reversed(steps):
        try:
            saved = _read(folder / str(step))
        except _DamagedError as error:
            problems.append(f"{folder / str(step)}: damaged ({error})")
            continue
        for problem in problems:
            warnings.warn(f"{problem}; going on from {step}, the one before", stacklevel=2)
        return saved
    raise ModelFileError("\n".join([*problems, f"{folder}: no checkpoint is whole"]))


def has_checkpoint(folder: Path) -> bool:
    """Whether one was ever completed."""
    return bool(_steps(folder))


def clean_up(folder: Path) -> None:
    """Remove what a killed process left half-written, and the damaged ones behind a whole one.

    For the process alone that will write here.
    """
    if not folder.is_dir():
        return
    with clear_errors(folder):
        for path in folder.glob(".*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    damaged = []
    for step in reversed(_steps(folder)):
        if not _damage(folder / str(step)):
            for path in damaged:
                shutil.rmtree(path, ignore_errors=True)
            return
        damaged.append(folder / str(step))


class _DamagedError(Exception):
    """Not what was written."""


def _read(path: Path) -> dict[str, Any]:
    if damage := _damage(path):
        raise _DamagedError(damage)
    arrays = path / "arrays"
    try:
        with _checkpointer() as checkpointer:
            saved = checkpointer.restore((arrays if arrays.is_dir() else path).absolute())
    except Exception as error:  # of many kinds, and none says that a file is damaged
        raise _DamagedError(str(error).splitlines()[0][:200]) from error
    return saved


def _damage(path: Path) -> str | None:
    """What differs from what was written; None where nothing does, or the first format."""
    described = path / "checkpoint.json"
    if not described.is_file():
        return None if (path / "_METADATA").is_file() else "checkpoint.json is missing"
    try:
        sums = _json(described)["sha256"]
        found = {name: _sha256(path / name) for name in _files(path) if name != described.name}
        for name in sorted(sums.keys() | found.keys()):
            if sums.get(name) != found.get(name):
                return f"{name} is not what was written"
    except (ModelFileError, OSError, KeyError, TypeError, AttributeError) as error:
        return str(error)
    return None


def _as_tree(folder: Path, saved: dict[str, Any], like: Any) -> Any:
    leaves = []
    for name, value in _flatten(like).items():
        found = saved.get(name)
        if found is None or found.shape != value.shape or found.dtype != value.dtype:
            got = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise ModelFileError(
                f"{folder}: {name} is {got}, these settings need {value.dtype}{list(value.shape)}; "
                "resume with the settings and data that the run was started with"
            )
        leaves.append(np.asarray(found))
    originals, structure = jax.tree.flatten(like)
    leaves = [
        jax.random.wrap_key_data(jnp.asarray(new)) if _is_key(old) else jnp.asarray(new)
        for new, old in zip(leaves, originals, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    try:
        with _checkpointer() as checkpointer:
            checkpointer.save(path.absolute(), dict(arrays))
    except OSError:
        raise
    except Exception as error:  # tensorstore's errors are of many kinds
        said = str(error)
        # The operating system's part of a long message.
        reason = said[said.rfind("[OS error") :] if "[OS error" in said else said.splitlines()[0]
        raise TradaxError(f"{path.parent.parent}: cannot be written ({reason[:200]})") from error


def _checkpointer() -> Any:
    """Of this process alone: in a job of several each holds everything, and the first one saves."""
    import orbax.checkpoint as ocp

    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"tradax-{me}"
    )
    if jax.process_count() == 1:
        alone = ocp.options.MultiprocessingOptions()
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def _flatten(tree: Any) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path).lstrip(".").replace("/", "_"): np.asarray(
            jax.random.key_data(x) if _is_key(x) else x
        )
        for path, x in leaves
    }


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal())


def _newest_best(folder: Path) -> int | None:
    for step in reversed(_steps(folder)):
        try:
            if _json(folder / str(step) / "checkpoint.json")["best"]:
                return step
        except (ModelFileError, KeyError, TypeError):
            continue
    return None


def _format(version: int) -> dict[str, Any]:
    return {"format": "tradax-checkpoint", "version": version}


def _version(folder: Path) -> Any:
    """None where nothing says it: a damaged format.json costs no checkpoint, each has its sums."""
    try:
        return _json(folder / "format.json")["version"]
    except (ModelFileError, KeyError, TypeError):
        return None


def _json(path: Path) -> Any:
    return json_value(read_bytes(path, most=_MOST_JSON), path)


def _files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
