"""Writing files so that a reader never sees half of one, whenever the program is killed."""

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tradax.errors import TradaxError


def write_atomic(path: Path | str, content: bytes | str) -> None:
    """Write by a temporary name, flush to the disk, rename.

    Raises:
        TradaxError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    with clear_errors(path):
        _write(path, content.encode("utf-8") if isinstance(content, str) else content)


def write_json(path: Path | str, value: Any) -> None:
    """Strict JSON (NaN and infinity are errors), readable, in a stable order."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def append(path: Path, text: str) -> None:
    """Add to the end by one call of the system; a folder that has gone is an error."""
    with clear_errors(path), path.open("ab", buffering=0) as file:
        content = text.encode("utf-8")
        if file.write(content) != len(content):  # the disk had room for a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def renamed(path: Path) -> Iterator[Path]:
    """A temporary name for another library to write to, which becomes `path` when all is there."""
    temporary = path.with_name(f".{path.name}.unwhole_")
    with clear_errors(path):
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Temporary files in a folder and below that a killed process could not rename."""
    with clear_errors(folder):
        for path in folder.rglob(".*"):
            if path.is_file() and re.fullmatch(r"\..+\.[a-z0-9_]{8}", path.name):
                path.unlink()


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """What the system says against writing `path`, as an error that a user understands."""
    try:
        yield
    except OSError as error:
        raise TradaxError(f"{path}: cannot be written ({error.strerror or error})") from None


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; a report is as public as its folder.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
