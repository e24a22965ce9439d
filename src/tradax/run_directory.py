"""A run's folder: what was asked, what was used, what came out.

    config.yaml      everything that was asked for; enough to train the same again
    manifest.json    versions, seed, data hash, git commit where there is one
    metrics.jsonl    a row every so many updates        tensorboard/  the same
    performance.jsonl  memory and speed, beside each of them
    checkpoints/     to go on from                      trials.jsonl  every trial here (ledger.py)
    run.lock         held by the process that trains
    policy.zip       the best policy on validation      policy-last.zip  after the last update
    pipeline.json, normalizer*.safetensors|joblib       features and their normaliser
    summary.json, report.html, *.csv                    the test
    controls.json    results of trainings on destroyed prices, where there are any

With several symbols and a policy each, every symbol has a folder of its own inside.
"""

import contextlib
import importlib.metadata
import os
import platform
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import yaml

from tradax.errors import ModelFileError, TradaxError
from tradax.files import clear_errors, write_atomic, write_json
from tradax.reading import check_version, json_value, read_bytes, yaml_value

_FORMAT = 1
_LOCK = "run.lock"
_LOOKS = 3
_LONGEST_NAME = 200  # bytes; file systems take 255, and files have endings


def create(out: Path | str | None, name: str) -> Path:
    """A new, empty run folder: `out`, or runs/NAME-1, -2, ...

    Raises:
        TradaxError: `out` holds something already, or no folder can be made there.
    """
    try:
        return _created(out, name)
    except OSError as error:
        folder = Path("runs") if out is None else Path(out)
        raise TradaxError(
            f"{folder}: no folder can be made there ({error.strerror}); give another --out"
        ) from None


def _created(out: Path | str | None, name: str) -> Path:
    if out is not None:
        folder = Path(out)
        _check_unused(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    for number in range(1, 1_000_000):
        folder = Path("runs") / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise TradaxError("the folder runs is full; give --out")


def _check_unused(folder: Path) -> None:
    """Raises TradaxError where there is anything but a run killed before it was described."""
    holds_sweep = (folder / "sweep.yaml").exists()
    described = holds_sweep or (folder / "config.yaml").exists()
    began = (folder / _LOCK).exists() and not described
    if not folder.exists() or (folder.is_dir() and (began or not any(folder.iterdir()))):
        return
    hint = "give another --out"
    if is_unfinished(folder):
        hint += f", or go on with the unfinished run that it holds: --resume {folder}"
    elif holds_sweep:
        hint += f", or go on with the sweep that it holds: tradax sweep --resume {folder}"
    raise TradaxError(f"{folder} exists and is not empty; {hint}")


def is_unfinished(folder: Path) -> bool:
    """Whether it holds a run that was not tested yet."""
    return (folder / "config.yaml").is_file() and not (folder / "summary.json").is_file()


def check_finished(folder: Path) -> None:
    """Raises TradaxError for a run that was not tested yet."""
    if is_unfinished(folder):
        raise TradaxError(
            f"{folder}: the run is not finished; go on with: tradax train --resume {folder}"
        )


@contextlib.contextmanager
def locked(folder: Path, *, unused: bool = False) -> Iterator[None]:
    """For the one process that may write here. The system takes the lock from a process that dies.

    Args:
        unused: nothing may be there, also not from a process that had the lock just before.

    Raises:
        TradaxError: another process has it, or had it.
    """
    path = folder / _LOCK
    with contextlib.ExitStack() as stack:
        with clear_errors(path):
            file = stack.enter_context(path.open("a+b", buffering=0))
            _lock(path, file)
            if unused:
                _check_unused(folder)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def _lock(path: Path, file: IO[bytes]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        for _ in range(_LOOKS):
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # perhaps only of someone who looks: see `is_locked`
                time.sleep(0.02)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(200).decode(errors="replace").strip() or "another process"
        raise TradaxError(
            f"{path.parent} is in use by {holder}; wait for it or stop it, or give another --out"
        ) from None
    except OSError as error:  # a file system without locks
        warnings.warn(f"{path}: cannot be locked ({error.strerror})", stacklevel=3)


def is_locked(folder: Path) -> bool:
    """Whether a process trains there. False also where the system has no such locks.

    To find out takes the lock for microseconds, so `locked` tries more than once.
    """
    try:
        import fcntl

        with (folder / _LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        pass
    return False


def symbol_folder(symbol: str) -> str:
    """A symbol as a folder's name: no separators, no leading dot."""
    cleaned = "".join(c if c.isalnum() or c in "-_.^=" else "_" for c in symbol)
    return cleaned.lstrip(".") or "_"


def symbol_folders(symbols: Sequence[str]) -> list[Path]:
    """One for each symbol.

    Raises:
        TradaxError: two would be the same folder, here or where capitals do not count; or a symbol
            is too long for a folder's name.
    """
    found: dict[str, str] = {}
    for symbol in symbols:
        name = symbol_folder(symbol)
        if len(name.encode()) > _LONGEST_NAME:
            raise TradaxError(
                f"symbol {symbol[:40]}... has {len(symbol)} characters, too many for the name of "
                "its folder; give it a shorter name in the data"
            )
        other = found.setdefault(name.lower(), symbol)
        if other != symbol:
            raise TradaxError(
                f"symbols {other} and {symbol} would share the folder {name}; rename one in the "
                "data, or leave it out (--symbols)"
            )
    return [Path(symbol_folder(symbol)) for symbol in symbols]


def write_config(folder: Path, config: dict[str, Any]) -> None:
    text = yaml.safe_dump({"format": _FORMAT, **config}, sort_keys=False)
    write_atomic(folder / "config.yaml", text)


def read_config(folder: Path | str) -> dict[str, Any]:
    """Raises ModelFileError where `folder` is not a run's."""
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        raise ModelFileError(f"{folder}: not a run directory (it has no config.yaml)")
    config = yaml_value(path)
    if not isinstance(config, dict) or "format" not in config:
        raise ModelFileError(f"{path}: not a run's configuration (it has no format)")
    check_version(config.pop("format"), _FORMAT, path)
    return config


def write_manifest(folder: Path, *, seed: int, data: dict[str, Any] | None, command: str) -> dict:
    manifest = {
        "format": _FORMAT,
        "command": command,
        "seed": seed,
        "data": data,
        "versions": versions(),
        "git_commit": _git_commit(),
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises ModelFileError where it cannot be read, or is newer than this program."""
    path = folder / "manifest.json"
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise ModelFileError(f"{path}: not a run's manifest")
    check_version(manifest.get("format", 1), _FORMAT, path)
    return manifest


def versions() -> dict[str, str]:
    """Of Python and of the libraries that decide the numbers."""
    names = ("tradax", "jax", "jaxlib", "equinox", "optax", "gymnax", "orbax-checkpoint")
    names += ("numpy", "polars", "ta-lib")
    found = {"python": platform.python_version()}
    for name in names:
        found[name] = importlib.metadata.version(name)
    return found


def read_json(path: Path) -> Any:
    """Raises ModelFileError with the file's name."""
    return json_value(read_bytes(path), path)


def _git_commit() -> str | None:
    """Of the folder that one works in, which may be the user's own project."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=2, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
