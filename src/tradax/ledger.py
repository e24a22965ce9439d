"""The ledger: every trial that was made on some data, so that the search for luck can be counted.

A trial is one policy: an algorithm with its settings, a seed and a number of steps, on some data.
It is written to `trials.jsonl` in the run's folder, and to an index of the user's that outlives the
folder: $XDG_DATA_HOME/tradax/trials.jsonl, or ~/.local/share/tradax/trials.jsonl. The variable
TRADAX_TRIALS names another file, and "off" turns the index off. The index holds options' hashes,
figures and folders' names; no prices, returns or policies.
"""

import contextlib
import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tradax.errors import TradaxError
from tradax.files import append, clear_errors
from tradax.reading import json_value, read_bytes

VARIABLE = "TRADAX_TRIALS"
FILE = "trials.jsonl"
_FORMAT = 1
_FIGURES = ("validation_score", "sharpe", "sharpe_per_bar", "excess_per_bar")
_SAME_SHARPE = 1e-6  # a bar; the same policy tested twice differs by rounding at most


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trained policy, and what its test said."""

    algorithm: str
    env: str
    symbol: str
    """Or "A+B" for a portfolio."""
    seed: int
    timesteps: int
    settings: str
    """Hash of all options that decide what is learned."""
    data_sha256: str | None
    """Of all bars that the run read; None where it read none."""
    test_sha256: str | None = None
    """Of the dates and closes of the tested span: the same span is known again in other data."""
    validation_score: float | None = None
    """The best one. Figures that are not finite become None."""
    sharpe: float | None = None
    """Annual, of the test."""
    sharpe_per_bar: float | None = None
    excess_per_bar: float | None = None
    """Sharpe ratio of the log-return differences to buy-and-hold; older lines have none."""
    bars: int | None = None
    """That the test has."""
    tested: bool = False
    """Whether the test span was touched."""

    def __post_init__(self) -> None:
        for name in _FIGURES:
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):  # of ruin, say; JSON has no word
                object.__setattr__(self, name, None)

    @property
    def id(self) -> str:
        """Short name of what was tried, whatever came out."""
        tried = (self.algorithm, self.env, self.symbol, self.seed, self.timesteps)
        return settings_hash([*tried, self.settings, self.data_sha256])


@dataclass(frozen=True)
class Entry:
    """A line of the index."""

    time: str
    """UTC, ISO 8601, when it was written."""
    folder: str
    """The run's, absolute, as it was then."""
    trial: Trial

    @property
    def missing(self) -> bool:
        """Whether the run's folder is gone, or holds another run by now."""
        return not any(found.id == self.trial.id for found in of_folder(Path(self.folder)))


@dataclass(frozen=True)
class Record:
    """What is known of the trials on the same data, the one at hand among them."""

    trials: int
    tested: int
    """Trials whose test span was touched: how often it was used."""
    missing: int
    """Trials that only the index knows of: their folders are gone."""
    sharpes: tuple[float, ...]
    """Of those tested, a bar; those that never traded have none."""
    excesses: tuple[float, ...] = ()
    """Their `Trial.excess_per_bar`, where there is one."""
    entries: tuple[Entry, ...] = ()
    """The trials themselves."""


def index_path() -> Path | None:
    """The index of the user's trials; None where it is turned off."""
    given = os.environ.get(VARIABLE)
    if given:
        return None if given.lower() == "off" else Path(given).expanduser()
    base = os.environ.get("XDG_DATA_HOME", "")
    # A relative one is to be ignored, says the XDG Base Directory Specification.
    if os.path.isabs(base):
        return Path(base) / "tradax" / FILE
    try:
        return Path("~/.local/share/tradax").expanduser() / FILE
    except RuntimeError:  # a user without a home
        return None


def add_trials(folder: Path | None, trials: Sequence[Trial], *, run: Path | None = None) -> None:
    """Write trials to a run's folder, and those on data to the index; each once.

    An index that cannot be written is a warning: no run fails for it.

    Args:
        folder: the run's; None writes to the index only, for the run that `run` names.
    """
    if folder is not None:
        written = [asdict(t) for t in of_folder(folder)]
        new = [t for t in trials if asdict(t) not in written]
        if new:
            append(folder / FILE, _lines({"id": t.id, **asdict(t)} for t in new))
    origin = folder if folder is not None else run
    assert origin is not None
    path = index_path()
    trials = [trial for trial in trials if trial.data_sha256 is not None]
    if path is None or not trials:
        return
    where = str(origin.resolve())
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    try:
        with clear_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _alone(path):
                known = {(entry.folder, entry.trial) for entry in _entries(path)}
                new = [trial for trial in trials if (where, trial) not in known]
                begin = "" if _ends_whole(path) else "\n"
                if new:
                    lines = ({"time": now, "folder": where, "id": t.id, **asdict(t)} for t in new)
                    append(path, begin + _lines(lines))
    except TradaxError as error:
        warnings.warn(f"this trial is not in the index of trials: {error}", stacklevel=2)


def entries(
    data_sha256: str | None = None, symbol: str | None = None, test_sha256: str | None = None
) -> list[Entry]:
    """The index's trials, each once, in the order in which they were first written.

    Args:
        data_sha256, symbol: only those on these data; a part of the hash is enough.
        test_sha256: also those that were tested on that very span, whatever else their data held.

    Raises:
        TradaxError: the index cannot be read.
    """
    path = index_path()
    found = [] if path is None else _entries(path)
    chosen = []
    for entry in found:
        trial = entry.trial
        same_data = (trial.data_sha256 or "").startswith(data_sha256 or "")
        same_symbol = symbol is None or trial.symbol == symbol
        same_span = test_sha256 is not None and trial.test_sha256 == test_sha256
        if (same_data and same_symbol) or same_span:
            chosen.append(entry)
    return _each_once(chosen)


def of_folder(folder: Path) -> list[Trial]:
    """What a run's own file says; nothing where there is none."""
    try:
        lines = read_bytes(folder / FILE, error=TradaxError).splitlines()
    except TradaxError:
        return []
    found = (_trial(_value(line, folder / FILE)) for line in lines)
    return [trial for trial in found if trial is not None]


def record(trial: Trial, folder: Path) -> Record | None:
    """All trials on the data of `trial`, of the run in `folder`; None where there is no index."""
    if index_path() is None or trial.data_sha256 is None:
        return None
    try:
        known = entries(trial.data_sha256, trial.symbol, trial.test_sha256)
    except TradaxError as error:
        warnings.warn(f"the index of trials is not read: {error}", stacklevel=2)
        return None
    here = Entry("", str(folder.resolve()), trial)
    known = _each_once([*known, here])
    tested = [entry.trial for entry in known if entry.trial.tested]
    # A sweep's folder has thousands of trials: it is read once, not once for each.
    held = {f: {t.id for t in of_folder(Path(f))} for f in {entry.folder for entry in known}}
    return Record(
        trials=len(known),
        tested=len(tested),
        missing=sum(e is not here and e.trial.id not in held[e.folder] for e in known),
        sharpes=tuple(t.sharpe_per_bar for t in tested if t.sharpe_per_bar is not None),
        excesses=tuple(t.excess_per_bar for t in tested if t.excess_per_bar is not None),
        entries=tuple(known),
    )


def settings_hash(settings: Any) -> str:
    """Short name for a set of options, of plain values."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _each_once(found: list[Entry]) -> list[Entry]:
    """Lines of one trial as one: the last of them, in the place of the first.

    A run that was resumed or tested again is the same trial. So is one that was trained again in
    another folder with the same outcome; with another outcome (as on a GPU) it is a second one.
    """
    kept: list[Entry] = []
    places: dict[str, list[int]] = {}
    for entry in found:
        same = places.setdefault(entry.trial.id, [])
        for place in same:
            if _is_same(kept[place], entry):
                if entry.trial.tested or not kept[place].trial.tested:
                    kept[place] = entry
                break
        else:
            same.append(len(kept))
            kept.append(entry)
    return kept


def _is_same(one: Entry, other: Entry) -> bool:
    """Whether two entries of what was tried alike are one trial."""
    if one.folder == other.folder:
        return True
    if not (one.trial.tested and other.trial.tested):
        return one.trial.validation_score == other.trial.validation_score
    first, second = one.trial.sharpe_per_bar, other.trial.sharpe_per_bar
    if first is None or second is None:
        return first is second
    return abs(first - second) <= _SAME_SHARPE


def _entries(path: Path) -> list[Entry]:
    """All lines that can be read; damaged ones and those of a newer format are a warning."""
    if not path.exists():
        return []
    found, unread = [], 0
    for line in read_bytes(path, error=TradaxError).splitlines():
        if not line.strip():
            continue
        value = _value(line, path)
        trial = _trial(value)
        if trial is None or not isinstance(value.get("folder"), str):
            unread += 1
            continue
        found.append(Entry(str(value.get("time", "")), value["folder"], trial))
    if unread:
        warnings.warn(
            f"{path}: {unread} of {unread + len(found)} lines cannot be read (damaged, or of a "
            "newer tradax) and are not counted",
            stacklevel=2,
        )
    return found


def _value(line: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json_value(line, path, error=TradaxError)
    except TradaxError:
        return {}
    return value if isinstance(value, dict) else {}


_NUMBERS = {"seed": int, "timesteps": int, "bars": int, "tested": bool}


def _trial(value: dict[str, Any]) -> Trial | None:
    """None where it is not a whole trial of this format."""
    if value.get("format") != _FORMAT:
        return None
    given = {}
    for field in fields(Trial):
        found = value.get(field.name)
        kind = _NUMBERS.get(field.name, (int, float) if field.name in _FIGURES else str)
        optional = field.name in _OPTIONAL
        if not (isinstance(found, kind) or (optional and found is None)):
            return None
        given[field.name] = found
    return Trial(**given)


_OPTIONAL = {"data_sha256", "test_sha256", "bars", *_FIGURES}


def _lines(values: Any) -> str:
    return "".join(
        json.dumps({"format": _FORMAT, **value}, allow_nan=False) + "\n" for value in values
    )


def _ends_whole(path: Path) -> bool:
    """Whether the last line was written to its end; a full disk may have cut it."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process is here; without a file system's locks each line is whole anyway."""
    with path.open("ab") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        except (ImportError, OSError):  # Windows; a file system without locks
            pass
        yield
