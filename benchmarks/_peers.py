"""Other libraries, timed on request in processes and an environment of their own (.venv-peers)."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers"


class Peer:
    """`python -m benchmarks.MODULE ARGUMENTS` in the environment of peers; waits for requests."""

    def __init__(self, module: str, *arguments: str):
        self.process = subprocess.Popen(
            [str(_python()), "-m", f"benchmarks.{module}", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.steps = int(self._line())

    def seconds(self) -> float:
        """That `steps` more environment steps took."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the other library's process ended; its message stands above")
        return line

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def asked(module: str, given: str) -> str:
    """What `python -m benchmarks.MODULE` prints in the environment of peers, given that input."""
    command = [str(_python()), "-m", f"benchmarks.{module}"]
    done = subprocess.run(command, cwd=ROOT, input=given, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit("the other library's process ended; its message stands above")
    return done.stdout


def serve(steps: int, run: Callable[[], None]) -> None:
    """The other side of a `Peer`: prints the steps of a run, then the seconds of each."""
    run()  # compiles
    print(steps, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


def _python() -> Path:
    """The environment's interpreter; the environment is made where it is missing or outdated."""
    python, wanted = PEERS / "bin" / "python", ROOT / "benchmarks" / "peers.txt"
    made = PEERS / "peers.txt"
    if not made.exists() or made.read_text() != wanted.read_text():
        print("making .venv-peers ...", file=sys.stderr, flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(PEERS)])
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        lock = ["--constraint", str(ROOT / "requirements.lock")]
        _run([*install, *lock, "--editable", ".", "-r", str(wanted)])
        made.write_text(wanted.read_text())
    return python


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, cwd=ROOT, check=True)
