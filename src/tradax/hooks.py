"""What the training loop tells the outside: files, TensorBoard, the terminal."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from tradax.checkpoint import save_checkpoint
from tradax.model_file import save_policy
from tradax.protocols import Algorithm
from tradax.training import Hook, Progress, Row


class MetricsFile(Hook):
    """Appends rows to `metrics.jsonl`, one file a member. Numbers that do not exist are null."""

    def __init__(self, folders: list[Path], *, keep_until_update: int = 0):
        self._paths = [folder / "metrics.jsonl" for folder in folders]
        for path in self._paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = read_rows(path) if keep_until_update and path.exists() else []
            lines = [json.dumps(row) for row in kept if row["update"] <= keep_until_update]
            path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def on_row(self, row: Row, member: int) -> None:
        with self._paths[member].open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")


def read_rows(path: Path) -> list[Row]:
    """Rows of a `metrics.jsonl`; a last line that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class TensorBoard(Hook):
    """Event files that TensorBoard shows, one folder a member."""

    def __init__(self, folders: list[Path]):
        from tensorboardX import SummaryWriter  # 1.3 s where torch is installed

        self._writers = [SummaryWriter(str(folder / "tensorboard")) for folder in folders]

    def on_row(self, row: Row, member: int) -> None:
        for name, value in row.items():
            if isinstance(value, int | float) and name not in ("timesteps", "update"):
                self._writers[member].add_scalar(f"train/{name}", value, row["timesteps"])

    def on_save(self, progress: Progress, final: bool) -> None:
        for writer in self._writers:
            writer.close() if final else writer.flush()


class Checkpoints(Hook):
    """Saves what resuming needs when training stops, and in between every `seconds`."""

    def __init__(self, folder: Path, *, seconds: float = 60.0):
        self._folder, self._seconds, self._last = folder, seconds, time.monotonic()

    def on_save(self, progress: Progress, final: bool) -> None:
        if final or time.monotonic() - self._last >= self._seconds:
            save_checkpoint(self._folder, progress)
            self._last = time.monotonic()


class BestEver(Hook):
    """Writes `best-individual.zip` whenever a search has found a better one, a folder a member."""

    def __init__(self, algorithm: Algorithm, folders: list[Path], several: bool):
        self._best, self._folders, self._several = best_ever(algorithm, several), folders, several
        self._fitness = np.full(len(folders), -np.inf)

    def on_chunk(self, progress: Progress) -> None:
        fitness, policies = self._best(progress.state.learner)
        for index, score in enumerate(np.atleast_1d(np.asarray(fitness)).tolist()):
            if score <= self._fitness[index]:
                continue
            policy = policies
            if self._several:
                policy = jax.tree.map(lambda x, i=index: x[i], policies)
            save_policy(policy, self._folders[index] / "best-individual.zip", {"fitness": score})
            self._fitness[index] = score


def keeps_best(algorithm: Algorithm) -> bool:
    """Whether it has a best individual ever."""
    return type(algorithm).best is not Algorithm.best


def best_ever(algorithm: Algorithm, several: bool) -> Callable[[Any], Any]:
    """Learner, or stacked learners of several members -> fitness and policy."""
    return eqx.filter_jit(jax.vmap(algorithm.best) if several else algorithm.best)


class Display(Hook):
    """A progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, total_timesteps: int, *, lines: int = 10):
        self._total = total_timesteps
        self._next_line, self._every = 0, max(1, total_timesteps // lines)
        self._returns: dict[int, float] = {}
        self._scores: dict[int, float] = {}
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f}%  {task.fields[figures]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("training", total=total_timesteps, figures="compiling")
            self._bar.start()

    def on_note(self, note: str) -> None:
        print(note, file=sys.stderr, flush=True)

    def on_row(self, row: Row, member: int) -> None:
        if isinstance(row["return"], float):
            self._returns[member] = row["return"]
        if isinstance(score := row.get("validation_score"), float):
            self._scores[member] = score

    def on_tick(self, timesteps: int, steps_per_second: float) -> None:
        figures = f"{steps_per_second:,.0f} steps/s" if steps_per_second else "compiling"
        for word, values in (("return", self._returns), ("validation", self._scores)):
            if values:
                figures += f"  {word} {sum(values.values()) / len(values):.4g}"
        if self._bar is not None:
            self._bar.update(self._task, completed=timesteps, figures=figures)
        elif timesteps >= self._next_line or timesteps >= self._total:
            print(f"{timesteps:>12,} steps  {figures}", file=sys.stderr, flush=True)
            self._next_line = timesteps + self._every

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
