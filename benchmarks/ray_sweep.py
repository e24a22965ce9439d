"""A sweep on a ray cluster of three local nodes, one of which is killed in mid-sweep.

24 runs of PPO on CartPole-v1 in 6 waves. As soon as a node's wave has a checkpoint, the node's
raylet and workers are killed (kill -9). All members must finish, none may be twice in
trials.jsonl, waves that were done may not be trained again, and the lost one must go on from its
checkpoint. Then the same sweep with ray on this machine alone is stopped by SIGTERM and resumed.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tradax.ledger import of_folder
from tradax.sweeps.results import read_results

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
_LIMIT_SECONDS = 900
_STORE = 80 * 2**20
_OPTIONS = shlex.split(
    "--env CartPole-v1 --seeds 4 --timesteps 400000 --evaluations 4 --checkpoint-seconds 1 "
    "--grid ppo.learning-rate=1e-4,2e-4,3e-4,5e-4,1e-3,2e-3 --wave-members 4 --device cpu "
    "--ppo.num-envs 4 --ppo.n-steps 64 --ppo.hidden-sizes 16"
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(base / "cache")
        wrong = _node_killed(base / "killed") + _driver_stopped(base / "stopped")
    for line in wrong:
        print(f"WRONG: {line}")
    sys.exit(1 if wrong else 0)


def _node_killed(folder: Path) -> list[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "object_store_memory": _STORE,
            "include_dashboard": False,
        },
    )
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=_STORE) for _ in range(2)]
    began = time.monotonic()
    struck: dict[str, Any] = {}
    striker = threading.Thread(
        target=_strike, args=(cluster, nodes[-1], folder, struck), daemon=True
    )
    striker.start()
    said, code = _sweep(["--ray", cluster.address, "--out", str(folder)])
    seconds = time.monotonic() - began
    struck["over"] = True
    striker.join()
    cluster.shutdown()
    print(said)
    print(
        f"node killed: exit code {code}, {seconds:.0f} s; killed in wave {struck.get('wave')} "
        f"after checkpoint {struck.get('checkpoint')}"
    )
    wrong = _unfinished(folder)
    lost = said.count(": lost (")
    if code or not lost:
        wrong.append(f"exit code {code}, {lost} waves lost")
    if "wave" not in struck or not _went_on(folder, str(struck["wave"])):
        wrong.append("the lost wave began anew")
    if done := [path for path, when in struck.get("done", {}).items() if _when(path) != when]:
        wrong.append(f"written again: {done}")
    return wrong


def _went_on(folder: Path, wave: str) -> bool:
    """Whether its members have rows of both attempts: each counts its seconds from 0."""
    members = json.loads((folder / "waves" / f"{wave}.json").read_text())["members"]
    for member in members:
        path = folder / "members" / f"{member['number']:05d}" / "metrics.jsonl"
        seconds = [json.loads(line)["seconds"] for line in path.read_text().splitlines()]
        print(f"member {member['number']}: seconds of its rows {[round(s, 1) for s in seconds]}")
        if seconds == sorted(seconds):
            return False
    return True


def _strike(cluster, node, folder: Path, struck: dict) -> None:
    """Kill the node when a wave that it trains has a checkpoint, and others are done."""
    while "over" not in struck:
        time.sleep(0.1)
        done = list(folder.glob("waves/*.json"))
        mine = _children(node)
        for lock in folder.glob("waves/*/run.lock"):
            try:
                pid = int(lock.read_text().split()[1])
            except (OSError, IndexError, ValueError):
                continue
            saved = [int(path.name) for path in lock.parent.iterdir() if path.name.isdigit()]
            if done and saved and pid in mine:
                struck["wave"], struck["checkpoint"] = lock.parent.name, max(saved)
                struck["done"] = {path: _when(path) for path in done}
                # All at once, as where a machine loses its power.
                for process in [*_raylets(node), *mine]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                cluster.remove_node(node, allow_graceful=False)
                return


def _raylets(node) -> list[int]:
    return [info.process.pid for info in node.all_processes.get("raylet", [])]


def _children(node) -> set[int]:
    """Workers of the node's raylet."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return {
            child.pid
            for pid in _raylets(node)
            for child in psutil.Process(pid).children(recursive=True)
        }
    return set()


def _driver_stopped(folder: Path) -> list[str]:
    """SIGTERM while waves are trained, then --resume."""
    said, code = _sweep(["--ray", "local", "--out", str(folder)], stop_in=folder)
    print(said)
    kept = {path: _when(path) for path in folder.glob("waves/*.json")}
    saved = [p.parent.name for p in folder.glob("waves/*/*/checkpoint.json")]
    print(f"driver stopped: exit code {code}, {len(kept)} waves done, checkpoints {saved}")
    wrong = [] if code == 143 and saved else [f"exit code {code}, checkpoints {saved}"]
    said, code = _sweep(["--ray", "local", "--resume", str(folder)])
    print(said)
    print(f"resumed: exit code {code}")
    if code or [path for path, when in kept.items() if _when(path) != when]:
        wrong.append("not resumed, or done waves were trained again")
    return wrong + _unfinished(folder)


def _sweep(options: list[str], stop_in: Path | None = None) -> tuple[str, int]:
    command = [sys.executable, "-c", "import sys; from tradax.cli import main; sys.exit(main())"]
    resuming = "--resume" in options
    child = subprocess.Popen(
        [*command, "sweep", *([] if resuming else _OPTIONS), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if stop_in is not None:
        until = time.monotonic() + _LIMIT_SECONDS
        while not list(stop_in.glob("waves/*.json")) and time.monotonic() < until:
            time.sleep(0.2)
        time.sleep(1)
        child.send_signal(signal.SIGTERM)
    said, _ = child.communicate(timeout=_LIMIT_SECONDS)
    return said, child.returncode


def _unfinished(folder: Path) -> list[str]:
    trials = [trial.id for trial in of_folder(folder)]
    print(f"{len(trials)} trials in trials.jsonl, {len(set(trials))} different ones")
    members = [result["number"] for result in read_results(folder)]
    wrong = [] if members == list(range(24)) else [f"members {members}"]
    if not len(trials) == len(set(trials)) == 24:
        wrong.append(f"{len(trials)} trials, {len(set(trials))} different ones")
    for member in range(24):
        rows = (folder / "members" / f"{member:05d}" / "metrics.jsonl").read_text().splitlines()
        updates = [json.loads(row)["update"] for row in rows]
        if updates != sorted(set(updates)):
            wrong.append(f"member {member} has rows twice: {updates}")
    return wrong


def _when(path: Path) -> int:
    return path.stat().st_mtime_ns


if __name__ == "__main__":
    main()
