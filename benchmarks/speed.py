"""Speed and memory against other libraries, every side in a process and an environment of its own.

    python -m benchmarks speed                  all rows (`benchmarks._rows`), and start-up
    python -m benchmarks speed ppo_cartpole_64  some of them

Sides take turns: tradax, the others, tradax, ... What is printed are medians, and the ratio of
tradax to each other side with the lowest and highest of one turn. Speed is steady: the first run
compiles and is shown apart ("compile": how much longer it took). Where memory is compared it is
what a run adds to a process that has done one before. benchmarks/results/speed.json (or --json
FILE) gets every figure, with machine, versions and commit.
"""

import argparse
import contextlib
import json
import math
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _startup
from benchmarks._peers import OURS, ROOT, Side
from benchmarks._rows import ROWS, Rival, Row

HEAD = (
    "| row | in | tradax | other | other's | ratio (lowest, highest) | goal | compile, s | "
    "peak, MiB |\n|---|---|---|---|---|---|---|---|---|"
)


def main(arguments: list[str]) -> None:
    names = [*ROWS, *_startup.NAMES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks speed")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(names))
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "speed.json")
    parser.add_argument("--repeats", type=int, help="turns of each side; fewer than a row's own")
    given = parser.parse_args(arguments)
    for name in given.rows:
        if name not in names:
            parser.error(f"no row {name}; there are {', '.join(names)}")
    found: dict[str, Any] = {"machine": machine(), "rows": {}}
    print(", ".join(f"{k} {v}" for k, v in found["machine"].items()) + f"\n\n{HEAD}", flush=True)
    for name in given.rows or names:
        began = time.perf_counter()
        if name in ROWS:
            row = ROWS[name]
            measured = measure(row, min(given.repeats or row.repeats, row.repeats))
            print("\n".join(lines(row, measured)), flush=True)
        else:
            measured = _startup.measure(name)
            print(_startup.line(name, measured), flush=True)
        measured["seconds"] = round(time.perf_counter() - began, 1)
        found["rows"][name] = measured
        # After every row, so that an interrupted program leaves what it has measured.
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(finite(found), indent=1))


def measure(row: Row, repeats: int) -> dict[str, Any]:
    """Run the sides of a row in turn."""
    sides = [(Rival(OURS, OURS), {**row.case, **change}) for change in row.ours]
    sides += [(rival, {**row.case, **rival.change}) for rival in row.rivals]
    with contextlib.ExitStack() as stack:
        started = [(who, stack.enter_context(Side(who.plug, case))) for who, case in sides]
        speeds: list[list[float]] = [[] for _ in sides]
        for _ in range(repeats):
            for (_, side), found in zip(started, speeds, strict=True):
                found.append(side.speed(row.seconds))
        kept = [
            {
                "label": who.label,
                "goal": who.goal,
                "case": case,
                "speeds": found,
                "steps": side.steps,
                "first_seconds": side.first_seconds,
                "compile_seconds": max(side.first_seconds - side.steps / max(*found, 1e-12), 0.0),
                "memory_before": side.memory_before,
                "memory_peak": side.peak,
                "versions": side.versions,
            }
            for (who, side), (_, case), found in zip(started, sides, speeds, strict=True)
        ]
    return {"what": row.what, "compared": row.compared, "sides": kept}


def lines(row: Row, measured: dict[str, Any]) -> list[str]:
    """A row's lines of the table, one for each other side; of equal labels the fastest."""
    best: dict[str, dict] = {}
    for side in measured["sides"]:
        known = best.get(side["label"])
        if known is None or np.median(side["speeds"]) > np.median(known["speeds"]):
            best[side["label"]] = side
    ours, printed = best.pop(OURS), []
    for label, other in best.items():
        shown, each = ratios(row.compared, ours, other)
        ratio = float(np.median(each)) if row.compared == "MiB" else shown[2]
        goal = other["goal"]
        other |= {"ratio": ratio, "held": goal is None or ratio >= goal}
        held = "-" if goal is None else f"{goal:.3g}x{'' if other['held'] else ' MISSED'}"
        printed.append(
            f"| {row.what} | {row.compared} | {number(shown[0])}{with_threads(ours)} | "
            f"{label}{with_threads(other)} | {number(shown[1])} | "
            f"{ratio:.3g}x ({each.min():.3g}x, {each.max():.3g}x) | {held} | "
            f"{ours['compile_seconds']:.1f}, {other['compile_seconds']:.1f} | "
            f"{ours['memory_peak']:,.0f}, {other['memory_peak']:,.0f} |"
        )
    return printed


def ratios(compared: str, ours: dict, other: dict) -> tuple[tuple[float, float, float], np.ndarray]:
    """Returns: what is shown of both and its ratio, and the ratio of each turn."""
    if compared == "MiB":
        added = [side["memory_peak"] - side["memory_before"] for side in (ours, other)]
        return (*added, added[1] / added[0]), np.array([added[1] / added[0]])
    speeds = [np.array(side["speeds"]) for side in (ours, other)]
    each = speeds[0] / np.maximum(speeds[1], 1e-12)
    middle = [float(np.median(s)) for s in speeds]
    ratio = middle[0] / max(middle[1], 1e-12)
    if compared == "s":
        middle = [1 / max(speed, 1e-16) for speed in middle]
    return (*middle, ratio), each


def with_threads(side: dict) -> str:
    """How many, where that was tried both ways."""
    threads = side["case"].get("threads")
    return "" if threads is None else f", {threads} thread{'s' if threads > 1 else ''}"


def number(x: float) -> str:
    if x > 1e15:
        return "not reached"
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def finite(x: Any) -> Any:
    """As JSON can say it: null for what was not reached."""
    if isinstance(x, dict):
        return {key: finite(value) for key, value in x.items()}
    if isinstance(x, list):
        return [finite(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    info = Path("/proc/cpuinfo")
    models = (
        [x for x in info.read_text().splitlines() if "model name" in x] if info.exists() else []
    )
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "processor": models[0].split(":")[1].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit or "unknown",
        "date": time.strftime("%Y-%m-%d"),
    }
