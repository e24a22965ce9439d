"""What the training loop tells the outside: files, TensorBoard, the terminal."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from tradax.checkpoint import to_host, write_checkpoint
from tradax.deferred import left_out
from tradax.errors import ModelFileError
from tradax.files import append, clear_errors, write_atomic
from tradax.model_file import save_policy
from tradax.protocols import Algorithm
from tradax.reading import json_value, read_bytes
from tradax.rows import Row
from tradax.training import Hook, Progress


class MetricsFile(Hook):
    """Appends rows to `metrics.jsonl`, one file a member. Numbers that do not exist are null.

    Args:
        keep_until_update: rows of a run that is resumed; later ones are cut off.
    """

    def __init__(self, paths: list[Path], *, keep_until_update: int = 0):
        self._paths = paths
        for path in paths:
            kept = read_rows(path) if keep_until_update and path.exists() else []
            lines = [json.dumps(row) for row in kept if row["update"] <= keep_until_update]
            write_atomic(path, "".join(line + "\n" for line in lines))

    def on_row(self, row: Row, member: int) -> None:
        append(self._paths[member], json.dumps(row, allow_nan=False) + "\n")


def read_rows(path: Path) -> list[Row]:
    """Rows of a `metrics.jsonl`; a last line that was cut off is left out.

    Raises:
        ModelFileError: another line is no row.
    """
    lines = read_bytes(path).split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json_value(line, source := f"{path}, line {number}")
        except ModelFileError:
            if number < len(lines):
                raise
            break  # cut off, or empty
        if not isinstance(row, dict) or type(row.get("update")) is not int:
            raise ModelFileError(f"{source}: is no row of metrics (it has no update)")
        rows.append(row)
    return rows


class TensorBoard(Hook):
    """Event files that TensorBoard shows, one folder a member.

    Written at once and by this thread: the library's own writer has a thread, which a full disk
    kills, and then waits for it.

    Args:
        from_timesteps: TensorBoard forgets what was logged from here on, before this.
    """

    def __init__(self, folders: list[Path], *, from_timesteps: int = 0):
        with left_out("torch"):
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto import event_pb2
            from tensorboardX.summary import scalar

        events: Any = event_pb2  # generated, without types
        self._event, self._scalar = events.Event, scalar
        self._folders, self._writers = folders, []
        for folder in folders:
            with clear_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                # Its names are by the second; one that is resumed sooner must not be overwritten.
                suffix = f".{len(list(folder.iterdir()))}"
                self._writers.append(EventsWriter(str(folder / "events"), suffix))
        if from_timesteps:
            begin = events.SessionLog(status=events.SessionLog.SessionStatus.START)
            start = self._event(step=from_timesteps, session_log=begin)
            for member in range(len(folders)):
                self._write(member, start)

    def on_row(self, row: Row, member: int) -> None:
        figures = {name: value for name, value in row.items() if name != "update"}
        self.show("train", figures, figures.pop("timesteps"), member)

    def show(self, group: str, figures: Row, timesteps: int, member: int = 0) -> None:
        """Numbers by name; what is none is left out."""
        summary = None
        for name, value in figures.items():
            if isinstance(value, int | float):
                one = self._scalar(f"{group}/{name}", value)
                if summary is None:
                    summary = one
                else:
                    summary.MergeFrom(one)
        self._write(member, self._event(step=timesteps, summary=summary))

    def on_save(self, progress: Progress, final: bool) -> None:
        if final:
            for folder, writer in zip(self._folders, self._writers, strict=True):
                with clear_errors(folder):
                    writer.close()

    def _write(self, member: int, event: Any) -> None:
        event.wall_time = time.time()
        with clear_errors(self._folders[member]):
            self._writers[member].write_event(event)
            self._writers[member].flush()


class Checkpoints(Hook):
    """Saves what resuming needs, in the background: every so often, at the best and at the end.

    Args:
        seconds: between two, at least.
        at_best: one at each best evaluation, too.
        begun: where training starts, if not anew.
        beside: files that belong to a checkpoint and must be on the disk with it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float = 60.0,
        at_best: bool = True,
        begun: Progress | None = None,
        beside: Sequence[Path] = (),
    ):
        self._folder, self._seconds, self._beside = folder, seconds, beside
        self._at_best = at_best
        self._best = -np.inf if begun is None else np.asarray(begun.best_score)
        self._saved = None if begun is None else _updates(begun)
        self._last = time.monotonic()
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def on_save(self, progress: Progress, final: bool) -> None:
        score = np.array(progress.best_score)
        best = self._at_best and bool(np.any(score > self._best))
        if not (final or best):
            if self._writing is not None and not self._writing.done():
                return
            self._wait()  # it has ended: an error is heard of now, not at the next checkpoint
            if time.monotonic() - self._last < self._seconds:
                return
        self._wait()
        update = _updates(progress)
        if update == self._saved:
            return
        self._writing = self._writer.submit(
            write_checkpoint,
            self._folder,
            to_host(progress),
            update=update,
            best=best,
            beside=self._beside,
        )
        self._best, self._saved, self._last = score, update, time.monotonic()
        if final:
            self._wait()

    def close(self) -> None:
        """Let what is being written end."""
        self._writer.shutdown()

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def _updates(progress: Progress) -> int:
    return int(np.max(np.asarray(progress.state.update)))


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
    """A progress bar on a terminal, plain lines elsewhere.

    Args:
        total_timesteps: of all that it is to show, one training or several one after the other.
    """

    def __init__(self, total_timesteps: int, *, lines: int = 10):
        self._total, self._ahead = total_timesteps, 0
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

    def begin(self, ahead: int) -> None:
        """What comes next starts where so many timesteps are done."""
        self._ahead = ahead
        self._returns.clear()
        self._scores.clear()

    def on_tick(self, timesteps: int, steps_per_second: float) -> None:
        timesteps += self._ahead
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
