"""Damaged and hostile files: every one must load, or be refused by tradax's own error.

    python -m benchmarks.fuzz --count 100000 --seed 0 [--only csv,parquet,log,policy,model,...]

Each case is a good file with one to four mutations: bits flipped, bytes cut, inserted, doubled or
spliced from another file, extreme numbers; in zip archives, JSON and safetensors headers also
changes that keep the container sound (check sums are right again). Case `i` of a kind depends on
`--seed` and `i` alone, and is made again by `--only KIND --first i --count 1`.

What counts as a failure: another exception (a panic of a library included), a process that dies,
more than 2 seconds for one file, a peak of more than 1 GiB of memory in the process. Other programs
make a file slow too: a case of more than 2 seconds is printed, tried again at the end in a process
of its own, and counts by its second time; the column `again` says how many.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks._mutations import Mutator

KINDS = ("csv", "parquet", "log", "policy", "model", "normalizer", "config")
SLOWEST_SECONDS = 2.0
MOST_MEMORY = 2**30
_KILL_AFTER_SECONDS = 20.0
_DEFAULT_COUNT = 500
_GOOD = ("loaded", "refused")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=_DEFAULT_COUNT)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args([] if arguments is None else arguments)
    if options.worker:
        return _work(options.only, options.seed, options.first, options.count)
    failures = 0
    print(
        "| files | cases | loaded | refused | failures | again | slowest s | peak MiB | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for kind in options.only.split(","):
        failures += _supervise(kind, options.seed, options.first, options.count)
    return min(failures, 1)


class Tried(NamedTuple):
    """One case."""

    outcome: str
    """`loaded`, `refused`, or what went wrong."""
    seconds: float
    peak: int = 0
    """Bytes that the process took so far."""

    @property
    def failure(self) -> str | None:
        if self.outcome not in _GOOD:
            return self.outcome
        if self.seconds > SLOWEST_SECONDS:
            return f"{self.seconds:.1f} s ({self.outcome})"
        return f"{self.peak / 2**20:.0f} MiB" if self.peak > MOST_MEMORY else None


def _supervise(kind: str, seed: int, first: int, count: int) -> int:
    """Workers one after the other, until every case was tried. Returns: the number of failures."""
    found: Counter[str] = Counter()
    failures: list[str] = []
    slow: list[int] = []
    slowest, peak, began = 0.0, 0, time.perf_counter()
    cases = range(first, first + count)

    def count_in(case: int, tried: Tried) -> None:
        nonlocal slowest, peak
        found[tried.outcome] += 1
        failures.extend([f"case {case}: {tried.failure}"] if tried.failure else [])
        slowest, peak = max(slowest, tried.seconds), max(peak, tried.peak)

    at = first
    while at in cases:
        for tried in _worker(kind, seed, at, cases.stop - at):
            if tried.seconds > SLOWEST_SECONDS:
                slow.append(at)
                print(f"  {kind}, seed {seed}, case {at}: {tried.seconds:.1f} s", flush=True)
            else:
                count_in(at, tried)
            at += 1
    for case in slow:
        tried = next(_worker(kind, seed, case, 1))
        print(f"  {kind}, seed {seed}, case {case} again: {tried.seconds:.2f} s", flush=True)
        count_in(case, tried)
    seconds = time.perf_counter() - began
    loaded, refused = (f"{found[name]:,}" for name in _GOOD)
    print(
        f"| {kind} | {count:,} | {loaded} | {refused} | {len(failures)} | {len(slow)} | "
        f"{slowest:.2f} | {peak / 2**20:.0f} | {seconds:.0f} |",
        flush=True,
    )
    for failure in failures[:50]:
        print(f"  {kind}, seed {seed}, {failure}", flush=True)
    return len(failures)


def _worker(kind: str, seed: int, first: int, count: int) -> Iterator[Tried]:
    """Cases tried by one process, until all are or it ends."""
    command = [sys.executable, "-m", "benchmarks.fuzz", "--worker", "--only", kind]
    command += ["--seed", str(seed), "--first", str(first), "--count", str(count)]
    quiet = subprocess.DEVNULL  # Rust's panics, which are caught, are printed too
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True) as worker:
        assert worker.stdout is not None
        heard = [time.perf_counter() + 60.0]  # it imports JAX first
        killed = threading.Event()
        threading.Thread(target=_watch, args=(worker, heard, killed), daemon=True).start()
        for line in worker.stdout:
            heard[0] = time.perf_counter()
            yield Tried(*json.loads(line))
            heard[0] = time.perf_counter()
    if worker.returncode:
        seconds = _KILL_AFTER_SECONDS if killed.is_set() else 0.0
        yield Tried(f"the process ended with {worker.returncode}", seconds)


def _watch(worker: subprocess.Popen, heard: list[float], killed: threading.Event) -> None:
    """Kill a worker that says nothing for long."""
    while worker.poll() is None:
        if time.perf_counter() - heard[0] > _KILL_AFTER_SECONDS:
            killed.set()
            worker.kill()
        time.sleep(0.2)


def _work(kind: str, seed: int, first: int, count: int) -> int:
    """Try cases; a line of standard output for each: outcome, seconds, peak memory in bytes."""
    with tempfile.TemporaryDirectory(prefix="tradax-fuzz-") as folder:
        subject = Subject(kind, Path(folder))
        for case in range(first, first + count):
            subject.path.write_bytes(subject.content(seed, case))
            began = time.perf_counter()
            outcome = subject.outcome()
            seconds = time.perf_counter() - began
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(json.dumps([outcome, seconds, peak]), flush=True)
            if peak > MOST_MEMORY:
                break  # a peak does not come down again: the next process goes on
    return 0


class Subject:
    """A kind of file: good examples of it, and what reads them."""

    def __init__(self, kind: str, folder: Path):
        from benchmarks import _fuzz_files

        self.kind = kind
        self.read: Callable[[Path], object]
        self.suffix, self.read = _fuzz_files.READERS[kind]
        self.seeds = _fuzz_files.seeds(kind, folder)
        self.path = folder / f"case{self.suffix}"
        if kind == "config":
            self.path = folder / "case" / "config.yaml"
            self.path.parent.mkdir()
        for good in self.seeds:  # or nothing would be tested
            self.path.write_bytes(good)
            self.read(self.path)

    def content(self, seed: int, case: int) -> bytes:
        return Mutator(random.Random(f"{seed} {case}"), self.seeds).file(self.suffix)

    def outcome(self) -> str:
        """`loaded`, `refused`, or what went wrong."""
        from tradax.errors import TradaxError

        try:
            self.read(self.path)
        except TradaxError as error:
            return "refused" if str(error).strip() else "an error without text"
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a library's panic is no Exception
            text = " ".join(str(error).split())[:200]
            return f"{type(error).__name__}: {text}"
        return "loaded"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
