"""Writing files so that a reader never sees half of one."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tradax.errors import TradaxError


def write_atomic(path: Path | str, content: bytes | str) -> None:
    """Write by a temporary name, flush to the disk, rename.

    Raises:
        TradaxError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    try:
        _write(path, content.encode("utf-8") if isinstance(content, str) else content)
    except OSError as error:
        raise TradaxError(f"{path}: cannot be written ({error.strerror})") from None


def write_json(path: Path | str, value: Any) -> None:
    """Strict JSON (NaN and infinity are errors), readable, in a stable order."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
