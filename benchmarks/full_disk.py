"""A disk that is full at every call that writes, one after the other, until a run gets through.

A library that is loaded before the C library (`_full_disk.c`, compiled by `cc`) refuses the n-th of
the run's calls of write, pwrite, fsync, rename, mkdir, open of a new file, ... with "No space left
on device", and all after it, for n = 1, 2, ...; then once more each call alone. tensorstore's and
polars' calls count too, not only Python's. Each time the command must print one error that says so
and exit with 2; every complete checkpoint must be whole; and with room again the run must go on to
the result of the run without a fault: rows, policies and checkpoint bit by bit, on a CPU.

STEP=10 in the environment tries every tenth call.
"""

import contextlib
import ctypes
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from benchmarks.killed import difference
from tradax.checkpoint import clean_up, has_checkpoint, read_newest
from tradax.cli import main as tradax

_TRAIN = (
    "train --data {data} --closes-only --skip-posterior --timesteps 2048 --evaluations 2 "
    "--ppo.num-envs 8 --ppo.n-steps 16 --ppo.minibatches 2 "
    "--ppo.hidden-sizes 4 --checkpoint-seconds 9 --out {run}"
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        library = base / "full_disk.so"
        source = Path(__file__).with_name("_full_disk.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
        (base / "disk").mkdir()
        preloaded = {"LD_PRELOAD": str(library), "FULL_DISK": str(base / "disk")}
        command = [sys.executable, "-m", "benchmarks.full_disk"]
        done = subprocess.run(command, env=os.environ | preloaded, check=False)
    if done.returncode:
        sys.exit(done.returncode)


class Disk:
    """The library's functions."""

    def __init__(self):
        library = ctypes.CDLL(None)
        library.full_disk_calls.restype = ctypes.c_long
        library.full_disk_what.restype = ctypes.c_char_p
        self._library = library

    def full_from(self, call: int, *, alone: bool = False) -> None:
        self._library.full_disk_from(ctypes.c_long(call), ctypes.c_int(alone))

    @property
    def calls(self) -> int:
        return self._library.full_disk_calls()

    @property
    def refused(self) -> str:
        """The first call that was, and its file; empty where none was."""
        return os.fsdecode(self._library.full_disk_what())


def _campaigns(folder: Path) -> int:
    disk, failures = Disk(), 0
    data, whole = folder.parent / "prices.csv", folder.parent / "whole"
    rows = [
        f"{1990 + i // 336}-{i // 28 % 12 + 1:02}-{i % 28 + 1:02},{100 + i % 7}" for i in range(672)
    ]
    data.write_text("\n".join(["timestamp,close", *rows]) + "\n")
    code, said = _tradax(_TRAIN.format(data=data, run=whole))
    assert code == 0, said
    for alone in (False, True):
        failures += _campaign(disk, folder / "run", data, whole, alone=alone)
    return failures


def _campaign(disk: Disk, run: Path, data: Path, whole: Path, *, alone: bool) -> int:
    """Returns: how many runs ended otherwise than they should."""
    kinds, failures, tried, survived = Counter(), 0, 0, 0
    call, step, began = 1, int(os.environ.get("STEP", "1")), time.monotonic()
    train = _TRAIN.format(data=data, run=run)
    while True:
        shutil.rmtree(run, ignore_errors=True)
        disk.full_from(call, alone=alone)
        code, said = _tradax(train)
        refused, calls = disk.refused, disk.calls
        disk.full_from(0)
        if not refused:
            break
        tried += 1
        kinds[refused.split()[0]] += 1
        if problem := _problem(code, said, alone, run, train, whole):
            failures += 1
            print(f"  call {call} of {calls}, {refused}: {problem}", flush=True)
        survived += code == 0
        call += step
    print(
        f"{'each call alone' if alone else 'each call and all after it'}: {tried} of {calls} calls "
        f"({', '.join(f'{n} {kind}' for kind, n in kinds.most_common())}); runs that did not need "
        f"the call: {survived}; failures: {failures}; {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return failures


def _problem(code: int, said: str, alone: bool, run: Path, train: str, whole: Path) -> str | None:
    """What is wrong with how a run ended, or with how it goes on."""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    if code == 0 and alone:
        return difference(whole, run)  # a call that is tried again, or that nothing hangs on
    if code != 2 or len(errors) != 1 or "Traceback" in said:
        return f"exit {code}: {said[-1000:]}"
    if not re.search(r"(cannot be written|no folder can be made there) \(No space left", errors[0]):
        return f"unclear: {errors[0]}"
    if has_checkpoint(run / "checkpoints"):
        with warnings.catch_warnings(
            action="error", category=UserWarning
        ):  # a damaged one would be passed over
            clean_up(run / "checkpoints")
            read_newest(run / "checkpoints")
    described = (run / "config.yaml").exists()
    code, said = _tradax(f"train --resume {run}" if described else train)
    return f"resumed, exit {code}: {said[-1000:]}" if code else difference(whole, run)


def _tradax(command: str) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = tradax(command.split())
    return code, said.getvalue()


if __name__ == "__main__":
    if folder := os.environ.get("FULL_DISK"):
        sys.exit(min(_campaigns(Path(folder)), 1))
    main()
