"""The runs and sweeps of a directory, as they stand now: for those who watch them.

Whatever lies there is taken for a stranger's: sizes are limited, links are not followed, and a file
that is damaged or half-written is said to be so.
"""

import hashlib
import os
import re
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tradax import run_directory
from tradax.errors import TradaxError
from tradax.reading import MOST_YAML, json_value, read_bytes, yaml_of, yaml_value

MOST_SHOWN = 1000
"""The newest; reading more would be slow."""
_MOST_FOLDERS = 50_000
_DEPTH = 6
_TAIL = 2**16  # bytes of metrics.jsonl: some hundred rows
_MOST_JSON = 2**25
_MOST_STEPS = 2**63
_MOST_REPORTS = 30  # of one run
SERVED = ("report.html", "summary.json", "members.csv")


class Link(NamedTuple):
    label: str
    href: str


class Listed(NamedTuple):
    """A run or a sweep. Texts are for people, and not escaped."""

    key: str
    """Stays the same while its path does."""
    kind: str
    """run or sweep."""
    name: str
    """Its path in the directory."""
    state: str
    """running; finished (tested); stopped; damaged (not even its configuration can be read)."""
    progress: float | None
    """From 0 to 1."""
    note: str
    """What cannot be read."""
    cells: dict[str, str]
    """algorithm, market, seed, steps, and for runs speed, return, validation, grade; for sweeps
    waves, members."""
    links: list[Link]


class Snapshot(NamedTuple):
    runs: list[Listed]
    """Newest first, like `sweeps`."""
    sweeps: list[Listed]
    left_out: str
    """What is not shown, in words; empty where everything is."""
    files: dict[str, Path]
    """Id -> a file that may be served."""


class Listing:
    """Reads a directory when asked, and each file again only when it has changed."""

    def __init__(self, root: Path):
        self.root = root.resolve()
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[Any, Any]] = {}
        self._seen: set[Path] = set()
        self._last: Snapshot | None = None
        self._fresh_until = 0.0

    def snapshot(self) -> Snapshot:
        """As it is now, or was a moment ago: reading takes a tenth of the time at most."""
        with self._lock:
            began = time.monotonic()
            if self._last is None or began >= self._fresh_until:
                self._seen = set()
                self._last = self._read()
                self._known = {p: known for p, known in self._known.items() if p in self._seen}
                now = time.monotonic()
                self._fresh_until = now + max(0.5, 10 * (now - began))
            return self._last

    def _read(self) -> Snapshot:
        files: dict[str, Path] = {}
        found, cut = _found(self.root)
        found.sort(key=lambda folder: (-folder.began, folder.path))
        read = {"config.yaml": self._run, "sweep.yaml": self._sweep}
        listed = [read[f.file](f.path, files) for f in found[:MOST_SHOWN]]
        left_out = []
        if len(found) > MOST_SHOWN:
            left_out.append(f"{len(found) - MOST_SHOWN:,} older not shown")
        if cut:
            left_out.append(f"only the first {_MOST_FOLDERS:,} folders were looked at")
        return Snapshot(
            [one for one in listed if one.kind == "run"],
            [one for one in listed if one.kind == "sweep"],
            "; ".join(left_out),
            files,
        )

    def _run(self, folder: Path, files: dict[str, Path]) -> Listed:
        notes: list[str] = []
        config = self._content(folder / "config.yaml", _shown_options, notes) or {}
        rows = [
            row
            for own in _with_metrics(folder)
            if (row := self._content(own / "metrics.jsonl", _last_row, notes))
        ]
        told = self._content(folder / "summary.json", _grade, notes)
        total = _count(config.get("total_timesteps"))
        steps = min((row.timesteps for row in rows), default=0)
        reports = [folder, *_symbols(folder)[:_MOST_REPORTS]]
        links = [
            Link("report" if own == folder else f"report {_text(own.name)}", href)
            for own in reports
            if (href := self._href(own / "report.html", files))
        ]
        if href := self._href(folder / "summary.json", files):
            links.append(Link("summary", href))
        return Listed(
            key=self._key(folder),
            kind="run",
            name=self._name(folder),
            state=self._state(folder, bool(config)),
            progress=min(steps / total, 1.0) if total else None,
            note="; ".join(notes),
            cells={
                **_asked(config),
                "seed": _text(config.get("seed", "–")),
                "steps": _of(steps, total),
                "speed": _mean([row.speed for row in rows], ",.0f"),
                "return": _mean([row.last_return for row in rows], ".4g"),
                "validation": _mean([row.validation for row in rows], ".4g"),
                "grade": told or "–",
            },
            links=links,
        )

    def _sweep(self, folder: Path, files: dict[str, Path]) -> Listed:
        notes: list[str] = []
        asked = self._content(folder / "sweep.yaml", yaml_value, notes)
        config = asked.get("run") if isinstance(asked, dict) else None
        config = config if isinstance(config, dict) else {}
        plan = self._content(folder / "plan.json", _counts, notes) or {}
        waves = [
            self._content(path, _members, notes)
            for path in _entries(folder / "waves")
            if path.suffix == ".json" and _stat(path) is not None
        ]
        members = sum(number or 0 for number in waves)
        links = [
            Link(label, href)
            for label, name in (("members", "members.csv"), ("summary", "summary.json"))
            if (href := self._href(folder / name, files))
        ]
        return Listed(
            key=self._key(folder),
            kind="sweep",
            name=self._name(folder),
            state=self._state(folder, bool(config)),
            progress=min(members / plan["members"], 1.0) if "members" in plan else None,
            note="; ".join(notes),
            cells={
                **_asked(config),
                "waves": _of(len(waves), plan.get("waves")),
                "members": _of(members, plan.get("members")),
            },
            links=links,
        )

    def _state(self, folder: Path, described: bool) -> str:
        lock, summary = _stat(folder / "run.lock"), _stat(folder / "summary.json")
        # A run that goes on for more steps has a summary of before.
        begun_later = lock and (summary is None or lock.st_mtime_ns > summary.st_mtime_ns)
        if begun_later and run_directory.is_locked(folder):
            return "running"
        if not described:
            return "damaged"
        return "stopped" if summary is None else "finished"

    def _content(self, path: Path, read: Callable[[Path], Any], notes: list[str]) -> Any:
        """What `read` makes of a file, None where there is none or it is damaged, with a note."""
        found = _stat(path)
        if found is None:
            return None
        self._seen.add(path)
        changed = (found.st_mtime_ns, found.st_size, found.st_ino)
        known = self._known.get(path)
        if known is None or known[0] != changed:
            try:
                value = read(path)
            except (TradaxError, OSError, ValueError, OverflowError):
                value = _DAMAGED
            known = self._known[path] = (changed, value)
        if known[1] is _DAMAGED:
            notes.append(f"{_text(path.name)} is damaged or half-written")
            return None
        return known[1]

    def _href(self, path: Path, files: dict[str, Path]) -> str | None:
        """Where a file is served; None where it is not there."""
        if _stat(path) is None:
            return None
        key = self._key(path)
        files[key] = path
        return f"/file/{key}/{path.name}"

    def _key(self, path: Path) -> str:
        return hashlib.sha256(os.fsencode(path.relative_to(self.root))).hexdigest()[:32]

    def _name(self, folder: Path) -> str:
        inside = folder.relative_to(self.root)
        return _text(self.root.name if inside == Path() else inside)


class _Folder(NamedTuple):
    path: Path
    file: str
    """config.yaml or sweep.yaml."""
    began: float


def _found(root: Path) -> tuple[list[_Folder], bool]:
    """Runs and sweeps below a folder, and whether there were too many folders for all."""
    found, visited = [], 0
    todo = [(root, 0)]
    while todo:
        folder, depth = todo.pop()
        visited += 1
        if visited > _MOST_FOLDERS:
            return found, True
        inside = None  # all folders
        for file in ("sweep.yaml", "config.yaml"):
            if (described := _stat(folder / file)) is not None:
                found.append(_Folder(folder, file, described.st_mtime))
                # Of a sweep's thousands of members only those that were made runs of.
                inside = ("best", "runs") if file == "sweep.yaml" else ()
                break
        if depth < _DEPTH and inside != ():
            todo += [(p, depth + 1) for p in _folders(folder) if inside is None or p.name in inside]
    return found, False


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if not folder.is_symlink() else []
    except OSError:
        return []


def _folders(folder: Path) -> Iterator[Path]:
    """Not hidden ones, and no links: they may lead out of the directory, or in circles."""
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        names = []
    return (folder / name for name in names)


def _stat(path: Path) -> os.stat_result | None:
    """Of an ordinary file; None for links and for everything else."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _symbols(folder: Path) -> list[Path]:
    """The folders that a run of several symbols has."""
    ours = ("checkpoints", "tensorboard")
    return sorted(own for own in _folders(folder) if own.name not in ours)


def _with_metrics(folder: Path) -> list[Path]:
    return [folder] if _stat(folder / "metrics.jsonl") is not None else _symbols(folder)


_DAMAGED = object()


def _shown_options(path: Path) -> dict[str, Any]:
    """Of a config.yaml only what is shown: all of it would take five times as long.

    Raises:
        TradaxError: it does not name an algorithm and an environment.
    """
    entries = _SHOWN.findall(read_bytes(path, most=MOST_YAML) + b"\n")
    options = yaml_of(b"".join(entries), path)
    if not isinstance(options, dict) or not {"algorithm", "env"} <= options.keys():
        raise TradaxError(f"{path}: not a run's configuration")
    return options


_SHOWN = re.compile(
    rb"^(?:algorithm|env|data|seed|total_timesteps):.*\n(?:[ -].*\n)*", re.MULTILINE
)


class _Row(NamedTuple):
    timesteps: int
    speed: float | None
    last_return: float | None
    validation: float | None
    """The best."""


def _last_row(path: Path) -> _Row | None:
    """Of a metrics.jsonl, from its end; None where there is no row yet.

    Raises:
        TradaxError: the last whole line is no row.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _TAIL, 0))
        lines = file.read(_TAIL).split(b"\n")[:-1]  # what comes after the last is half-written
    if not lines:
        return None
    row = json_value(lines[-1], path)
    steps = row.get("timesteps") if isinstance(row, dict) else None
    if type(steps) is not int or not 0 <= steps < _MOST_STEPS:
        raise TradaxError(f"{path}: not rows of metrics")
    text = b"\n".join(lines)
    returns, scores = _RETURN.findall(text), _SCORE.findall(text)
    speed = row.get("steps_per_second")
    return _Row(
        steps,
        float(speed) if isinstance(speed, int | float) else None,
        float(returns[-1]) if returns else None,
        max(map(float, scores), default=None),
    )


_NUMBER = rb"(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
_RETURN = re.compile(rb'"return": ?' + _NUMBER)
_SCORE = re.compile(rb'"validation_score": ?' + _NUMBER)


def _grade(path: Path) -> str:
    """Of a run's summary.json: the grade, of several symbols how often each, or the mean return."""
    summary = json_value(read_bytes(path, most=_MOST_JSON), path)
    if not isinstance(summary, dict):
        raise TradaxError(f"{path}: no summary")
    symbols = summary.get("symbols")
    parts = list(symbols.values()) if isinstance(symbols, dict) else [summary]
    grades = Counter(
        str(part["verdict"].get("grade"))
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("verdict"), dict)
    )
    if len(parts) == 1 and grades:
        return _text(next(iter(grades)))
    if grades:
        return _text(", ".join(f"{number} {grade}" for grade, number in grades.items()))
    mean = summary.get("mean_return")
    return f"mean return {mean:.4g}" if isinstance(mean, int | float) else "–"


def _counts(path: Path) -> dict[str, int]:
    plan = json_value(read_bytes(path, most=_MOST_JSON), path)
    if not isinstance(plan, dict):
        raise TradaxError(f"{path}: no plan")
    counts = {name: _count(plan.get(name)) for name in ("waves", "members")}
    return {name: count for name, count in counts.items() if count}


def _members(path: Path) -> int:
    """How many a wave had that is done."""
    wave = json_value(read_bytes(path, most=_MOST_JSON), path)
    if not isinstance(wave, dict) or not isinstance(wave.get("members"), list):
        raise TradaxError(f"{path}: no results of a wave")
    return len(wave["members"])


def _asked(config: dict[str, Any]) -> dict[str, str]:
    data = config.get("data")
    data = ", ".join(map(str, data)) if isinstance(data, list) else data
    market = _text(config.get("env", "–"))
    return {
        "algorithm": _text(config.get("algorithm", "–")),
        "market": f"{market}: {_text(data)}" if isinstance(data, str) else market,
    }


def _count(value: Any) -> int | None:
    """None for what is none."""
    return value if type(value) is int and 0 < value < _MOST_STEPS else None


def _of(done: int, total: int | None) -> str:
    return f"{done:,} of {total:,}" if total else f"{done:,}"


def _mean(values: list[float | None], form: str) -> str:
    numbers = [value for value in values if value is not None]
    return f"{sum(numbers) / len(numbers):{form}}" if numbers else "–"


def _text(value: Any) -> str:
    """Of anything, so short that it fits a table; names of files may be no text at all."""
    text = os.fsencode(value) if isinstance(value, Path) else str(value).encode(errors="replace")
    shown = text.decode(errors="replace")
    return shown if len(shown) <= _MOST_TEXT else shown[: _MOST_TEXT - 1] + "…"


_MOST_TEXT = 120
