"""Sides of a comparison: plugs of `benchmarks/peers`, in processes and environments of their own.

A peer's packages are pinned in `benchmarks/peers/NAME.txt`, and installed into `.venv-peers/NAME`
when it is first asked for; tradax runs in the environment of the program itself.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".venv-peers"
OURS = "tradax"


class Side:
    """A plug that runs a case when it is told to."""

    def __init__(self, plug: str, case: dict[str, Any]):
        self.process = subprocess.Popen(
            [str(python_of(plug)), "-m", "benchmarks.peers", plug, json.dumps(case)],
            cwd=ROOT,
            env=surroundings(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        said = self._answer()
        self.steps: int = said["steps"]
        self.first_seconds: float = said["first"]
        """Of the first run, where programs are compiled."""
        self.memory_before: float = said["before"]
        """MiB, after the first run and before the next."""
        self.versions: dict[str, str] = said["versions"]
        self.peak = 0.0
        """MiB, of all runs after the first."""

    def speed(self, seconds: float) -> float:
        """Steps a second, over a run or as many as take so many seconds."""
        count, total = 0, 0.0
        while not count or total < seconds:
            assert self.process.stdin is not None
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            said = self._answer()
            count, total, self.peak = count + 1, total + said["seconds"], said["peak"]
        return count * self.steps / total

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the process of a side ended; its message stands above")
        return json.loads(line)

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def asked(plug: str, given: str) -> str:
    """What `python -m benchmarks.peers.PLUG` prints in its environment, given that input."""
    command = [str(python_of(plug)), "-m", f"benchmarks.peers.{plug}"]
    done = subprocess.run(
        command, cwd=ROOT, env=surroundings(), input=given, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit("the process of a peer ended; its message stands above")
    return done.stdout


def surroundings() -> dict[str, str]:
    """Environment variables of a side: this source, and nothing compiled beforehand."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    kept = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    return kept | {"PYTHONPATH": paths, "TRADAX_TRIALS": "off"}


def python_of(plug: str) -> Path:
    """A plug's interpreter; its environment is made where it is missing or outdated."""
    if plug == OURS:
        return Path(sys.executable)
    folder, wanted = ENVIRONMENTS / plug, ROOT / "benchmarks" / "peers" / f"{plug}.txt"
    python, made = folder / "bin" / "python", folder / "made.txt"
    if not made.exists() or made.read_text() != wanted.read_text():
        print(f"making {folder.relative_to(ROOT)} ...", file=sys.stderr, flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        install = ["install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        _run([str(python), "-m", "pip", *install, "-r", str(wanted)])
        made.write_text(wanted.read_text())
    return python


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, cwd=ROOT, check=True)
