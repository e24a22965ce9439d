"""Damaged and hostile files: every one must load, or be refused by tradax's own error.

    python -m benchmarks.fuzz --count 100000 --seed 0 [--only csv,parquet,log,policy,model,...]

Each case is a good file with one to four mutations: bits flipped, bytes cut, inserted, doubled or
spliced from another file, extreme numbers; in zip archives, JSON and safetensors headers also
changes that keep the container sound (check sums are right again). Case `i` of a kind depends on
`--seed` and `i` alone, and is made again by `--only KIND --first i --count 1`.

What counts as a failure: another exception (a panic of a library included), a process that dies,
more than 2 seconds for one file, a peak of more than 1 GiB of memory in the process.
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
from collections.abc import Callable
from pathlib import Path

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
    print("| files | cases | loaded | refused | failures | slowest s | peak MiB | seconds |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for kind in options.only.split(","):
        failures += _supervise(kind, options.seed, options.first, options.count)
    return min(failures, 1)


def _supervise(kind: str, seed: int, first: int, count: int) -> int:
    """Workers one after the other, until every case was tried. Returns: the number of failures."""
    found: Counter[str] = Counter()
    failures: list[str] = []
    slowest, peak, began = 0.0, 0, time.perf_counter()
    at, end = first, first + count
    while at < end:
        command = [sys.executable, "-m", "benchmarks.fuzz", "--worker", "--only", kind]
        command += ["--seed", str(seed), "--first", str(at), "--count", str(end - at)]
        quiet = subprocess.DEVNULL  # Rust's panics, which are caught, are printed too
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True)
        assert worker.stdout is not None
        heard = [time.perf_counter() + 60.0]  # it imports JAX first
        threading.Thread(target=_watch, args=(worker, heard), daemon=True).start()
        for line in worker.stdout:
            heard[0] = time.perf_counter()
            outcome, seconds, case_peak = json.loads(line)
            found[outcome] += 1
            if seconds > SLOWEST_SECONDS:
                outcome = f"{seconds:.1f} s ({outcome})"
            if case_peak > MOST_MEMORY:
                outcome = f"{case_peak / 2**20:.0f} MiB ({outcome})"
            failures += [] if outcome in _GOOD else [f"case {at}: {outcome}"]
            slowest, peak = max(slowest, seconds), max(peak, case_peak)
            at += 1
        if worker.wait() != 0:
            failures.append(f"case {at}: the process ended with {worker.returncode}")
            at += 1
    seconds = time.perf_counter() - began
    loaded, refused = (f"{found[name]:,}" for name in _GOOD)
    print(
        f"| {kind} | {count:,} | {loaded} | {refused} | {len(failures)} | {slowest:.2f} | "
        f"{peak / 2**20:.0f} | {seconds:.0f} |",
        flush=True,
    )
    for failure in failures[:50]:
        print(f"  {kind}, seed {seed}, {failure}", flush=True)
    return len(failures)


def _watch(worker: subprocess.Popen, heard: list[float]) -> None:
    """Kill a worker that says nothing for long."""
    while worker.poll() is None:
        if time.perf_counter() - heard[0] > _KILL_AFTER_SECONDS:
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
