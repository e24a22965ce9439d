"""Everything that resuming needs, saved by orbax: arrays only, no pickle.

    checkpoints/
      format.json
      7/arrays/          all of them one after the other, by orbax
      7/arrays.json      name, type and shape of each, in that order
      7/checkpoint.json  update, whether it was the best so far, SHA-256 of every file
      .8/                being written

A checkpoint gets its name when all of it is on the disk. The newest two stay, and the newest that
was the best on validation.

One array and not a tree of them: orbax's format for trees (OCDBT) leaves some ten kilobytes in the
process with every checkpoint, and files of their own take as many flushes.
"""

import errno
import hashlib
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tradax.errors import ModelFileError, TradaxError
from tradax.files import clear_errors, sync, write_json
from tradax.reading import check_version, json_value, read_bytes

_VERSION = 3
_KEPT = 2
_MOST_JSON = 2**24  # an array or a file in it takes 100 bytes
_ARRAY = "all"
_CHUNK_BYTES = 2**26  # a file each


def save_checkpoint(folder: Path, tree: Any) -> None:
    """Add a checkpoint. A crash in the middle leaves the older ones readable."""
    write_checkpoint(folder, to_host(tree))


class Arrays(NamedTuple):
    """Arrays in the host's memory, one after the other."""

    outline: dict[str, tuple[str, list[int]]]
    """Name -> type and shape."""
    content: np.ndarray
    """Of bytes; zeros at the end where it takes several files."""

    def by_name(self) -> dict[str, np.ndarray]:
        """Raises ValueError or TypeError where the outline is not that of the content."""
        found, at = {}, 0
        for name, (kind, shape) in self.outline.items():
            end = at + _size(kind, shape)
            found[name] = self.content[at:end].view(np.dtype(kind)).reshape(shape)
            at = end
        return found


def to_host(tree: Any) -> Arrays:
    """A copy that training does not overwrite."""
    arrays = _flatten(tree)
    size = sum(x.nbytes for x in arrays.values())
    if (
        size > _CHUNK_BYTES
    ):  # orbax cuts into equal pieces, of a byte each where nothing else is left
        size += -size % _CHUNK_BYTES
    content = np.zeros(size, np.uint8)
    packed = Arrays({n: (x.dtype.name, list(x.shape)) for n, x in arrays.items()}, content)
    for name, place in packed.by_name().items():
        place[...] = arrays[name]
    return packed


def write_checkpoint(
    folder: Path,
    arrays: Arrays,
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
    with clear_errors(folder):
        step = max(_steps(folder), default=-1) + 1
        temporary = folder / f".{step}"
        around = _identity(folder.parent)
        try:
            folder.mkdir(exist_ok=True)
            if _version(folder) != _VERSION:
                write_json(folder / "format.json", _format(_VERSION))
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            _write_array(temporary / "arrays", arrays.content)
            write_json(temporary / "arrays.json", arrays.outline)
            sums = {name: _sha256(temporary / name) for name in _files(temporary)}
            facts = {"update": update, "best": best, "sha256": sums}
            write_json(temporary / "checkpoint.json", facts)
            for path in [*temporary.rglob("*"), temporary, *beside]:
                sync(path)
            if _identity(folder.parent) != around:
                # orbax makes the folders that it needs, also where the run was moved away.
                raise OSError(errno.ENOENT, "the folder around it was moved or removed")
            temporary.rename(folder / str(step))
            sync(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        for old in _steps(folder)[:-_KEPT]:
            if old != _newest_best(folder):
                shutil.rmtree(folder / str(old), ignore_errors=True)


def _identity(folder: Path) -> tuple[int, int]:
    """The same for one folder however it is called; another for a new one of its name."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def load_checkpoint(folder: Path, like: Any) -> Any:
    """The newest saved tree; a damaged one is passed over, with a warning.

    Args:
        like: a tree of the same structure, shapes and types.

    Raises:
        ModelFileError: there is no checkpoint, or none is whole, or it belongs to other settings;
            the message names the first difference.
    """
    wanted = _flatten(like)
    saved = _newest(folder, {name: (x.dtype.name, list(x.shape)) for name, x in wanted.items()})
    originals, structure = jax.tree.flatten(like)
    leaves = [
        jax.random.wrap_key_data(jnp.asarray(new)) if _is_key(old) else jnp.asarray(new)
        for new, old in zip((saved[name] for name in wanted), originals, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


def read_newest(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of the newest checkpoint that is whole, by name; errors as `load_checkpoint`."""
    return _newest(folder, {})


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


def _newest(folder: Path, wanted: dict[str, tuple[str, list[int]]]) -> dict[str, np.ndarray]:
    if (version := _version(folder)) is not None:
        check_version(version, _VERSION, folder)
    steps = _steps(folder)
    if not steps:
        raise ModelFileError(f"{folder}: no checkpoint to resume from")
    problems = []
    for step in reversed(steps):
        try:
            saved = _read(folder / str(step), wanted)
        except _DamagedError as error:
            problems.append(f"{folder / str(step)}: damaged ({error})")
            continue
        for problem in problems:
            warnings.warn(f"{problem}; going on from {step}, the one before", stacklevel=3)
        return saved
    raise ModelFileError("\n".join([*problems, f"{folder}: no checkpoint is whole"]))


def _read(path: Path, wanted: dict[str, tuple[str, list[int]]]) -> dict[str, np.ndarray]:
    if damage := _damage(path):
        raise _DamagedError(damage)
    arrays, outline = path / "arrays", path / "arrays.json"
    try:
        if not outline.is_file():  # the formats before
            with _checkpointer(_tree_handler) as checkpointer:
                saved = checkpointer.restore((arrays if arrays.is_dir() else path).absolute())
            _check(path, {n: (x.dtype.name, list(x.shape)) for n, x in saved.items()}, wanted)
            return saved
        described = {name: (kind, shape) for name, (kind, shape) in _json(outline).items()}
        _check(path, described, wanted)  # before memory is taken for them
        (announced,) = _json(arrays / _ARRAY / ".zarray")["shape"]
        size = sum(_size(*one) for one in described.values())
        if not size <= announced <= size + _CHUNK_BYTES:
            raise _DamagedError(f"{announced:,} bytes, and {size:,} are described")
        with _checkpointer(_array_handler) as checkpointer:
            return Arrays(described, checkpointer.restore(arrays.absolute())[_ARRAY]).by_name()
    except (ModelFileError, _DamagedError):
        raise
    except Exception as error:  # of many kinds, and none says that a file is damaged
        raise _DamagedError(str(error).splitlines()[0][:200]) from error


def _check(
    path: Path,
    found: dict[str, tuple[str, list[int]]],
    wanted: dict[str, tuple[str, list[int]]],
) -> None:
    """Raises ModelFileError at the first difference."""
    for name, (kind, shape) in wanted.items():
        got = found.get(name)
        if got != (kind, shape):
            got = "missing" if got is None else f"{got[0]}{got[1]}"
            raise ModelFileError(
                f"{path}: {name} is {got}, these settings need {kind}{shape}; "
                "resume with the settings and data that the run was started with"
            )


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


def _write_array(path: Path, content: np.ndarray) -> None:
    import orbax.checkpoint as ocp

    pieces = {_ARRAY: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES)}
    try:
        with _checkpointer(_array_handler) as checkpointer:
            checkpointer.save(
                path.absolute(), args=ocp.args.PyTreeSave({_ARRAY: content}, save_args=pieces)
            )
    except OSError:
        raise
    except Exception as error:  # tensorstore's errors are of many kinds
        reason = str(error).splitlines()[0]
        if number := re.search(r"os_error_code='(\d+)'", str(error)):
            reason = os.strerror(int(number[1]))
        raise TradaxError(f"{path.parent.parent}: cannot be written ({reason[:200]})") from error


def _checkpointer(handler: Callable[[Any], Any]) -> Any:
    """Of this process alone: in a job of several each holds everything, and the first one saves."""
    import orbax.checkpoint as ocp

    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"tradax-{me}"
    )
    if jax.process_count() == 1:
        alone = ocp.options.MultiprocessingOptions()
    return ocp.Checkpointer(handler(alone), multiprocessing_options=alone)


def _array_handler(alone: Any) -> Any:
    import orbax.checkpoint as ocp

    handler: Any = ocp.PyTreeCheckpointHandler(use_ocdbt=False, multiprocessing_options=alone)
    handler.finalize = lambda directory: None  # it would look for OCDBT's files, and miss them
    return handler


def _tree_handler(alone: Any) -> Any:
    import orbax.checkpoint as ocp

    return ocp.StandardCheckpointHandler(multiprocessing_options=alone)


def _flatten(tree: Any) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path).lstrip(".").replace("/", "_"): np.asarray(
            jax.random.key_data(x) if _is_key(x) else x
        )
        for path, x in leaves
    }


def _size(kind: str, shape: Sequence[int]) -> int:
    return math.prod(shape) * np.dtype(kind).itemsize


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
