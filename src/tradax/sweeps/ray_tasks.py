"""Waves as tasks of a ray cluster.

A task plans the sweep anew from its sweep.yaml, trains one wave into the sweep's folder, from
its checkpoint where there is one, and returns the results. The process that sent it alone writes
what is done, so that a member is never there twice. A task whose worker or node is lost is sent
again.
"""

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tradax import device, run_directory, signals
from tradax.errors import TradaxError
from tradax.files import clear_errors, write_json
from tradax.preparation import Task, saved_frame
from tradax.sweeps.members import Layout, SweepRequest, Wave, lay_out
from tradax.sweeps.ray_cluster import Cluster, first_line
from tradax.sweeps.results import read_sweep
from tradax.sweeps.wave import Result, checkpoints_of, train_wave

_RETRIES = 3
"""Of a wave; one that kills each of its workers takes too much memory, most likely."""
_LOOK_SECONDS = 0.5
_LOCK_SECONDS = 120.0
"""A worker whose node is lost may live on for a while."""


class Order(NamedTuple):
    """What a task is told."""

    folder: str
    here: str
    """Where relative names of data begin."""
    wave: int
    checkpoint_seconds: float
    device: str
    devices: int


class Outcome(NamedTuple):
    """What a task tells."""

    results: list[Result]
    stopped: int
    """The signal that stopped it; 0 where it went to its end."""
    mistake: str | None
    """What only the user can mend."""
    where: str
    seconds: float


def train_waves(
    cluster: Cluster,
    layout: Layout,
    waves: list[Wave],
    folder: Path,
    *,
    checkpoint_seconds: float,
    keep: Callable[[Wave, list[Result]], None],
    say: Callable[[str], None],
) -> int:
    """Train these waves on the cluster's nodes.

    Args:
        layout: with all waves, of which `waves` are not done.
        keep: given the results of each wave that is done, here and one after the other.
        say: given a line for each wave that is done or lost.

    Returns: the signal that stopped it, or 0.

    Raises:
        TradaxError: waves that could not be trained; the others are done.
    """
    import ray
    from ray.exceptions import RayError

    task: Any = ray.remote(_train).options(
        max_retries=0, scheduling_strategy="SPREAD", **cluster.resources
    )

    def send(wave: Wave) -> Any:
        here, name = str(Path.cwd()), str(folder.resolve())
        order = Order(name, here, wave.number, checkpoint_seconds, cluster.device, cluster.devices)
        return task.remote(order)

    running = {send(wave): wave for wave in waves}
    attempts = dict.fromkeys((wave.number for wave in waves), 1)
    given_up: dict[int, str] = {}
    done, told = len(layout.waves) - len(waves), False

    def again(wave: Wave, why: str) -> None:
        attempt = attempts[wave.number]
        attempts[wave.number] += 1
        if attempt > _RETRIES:
            given_up[wave.number] = f"lost {attempt} times ({why})"
            return
        say(f"{name(wave)}: lost ({why}); again from its checkpoint, {attempt} of {_RETRIES}")
        running[send(wave)] = wave

    def name(wave: Wave) -> str:
        return f"wave {wave.number + 1} of {len(layout.waves)}"

    try:
        with signals.heard() as stop:
            while running:
                ready, _ = ray.wait(list(running), timeout=_LOOK_SECONDS)
                if stop.signal and not told:
                    told = True
                    for reference in running:  # a worker hears it as Ctrl-C, and saves
                        ray.cancel(reference, force=False)
                for reference in ready:
                    wave = running.pop(reference)
                    try:
                        outcome = Outcome(*ray.get(reference))
                    except RayError as error:
                        if not stop.signal:
                            again(wave, first_line(error))
                        continue
                    if outcome.mistake is not None:
                        given_up[wave.number] = f"{outcome.where}: {outcome.mistake}"
                    elif not outcome.stopped:
                        keep(wave, outcome.results)
                        done += 1
                        say(f"{name(wave)}: {_words(outcome)}; {done} done")
                    elif not stop.signal:
                        again(wave, f"its worker got signal {outcome.stopped}")
    finally:
        for reference in running:
            ray.cancel(reference, force=False)
    if stop.signal:
        return stop.signal
    if given_up:
        told_of = "\n".join(f"wave {number + 1}: {why}" for number, why in given_up.items())
        raise TradaxError(
            f"{len(given_up)} of {len(layout.waves)} waves could not be trained:\n{told_of}\n"
            f"The others are kept; go on with: tradax sweep --resume {folder}"
        )
    return 0


def _words(outcome: Outcome) -> str:
    scores = [result["validation_score"] for result in outcome.results]
    best = max((score for score in scores if score is not None), default=None)
    validation = "all failed" if best is None else f"best validation {best:.4g}"
    runs = f"{len(scores)} run{'s' if len(scores) > 1 else ''}"
    return f"{runs} in {outcome.seconds:.0f} s on {outcome.where}, {validation}"


def _train(order: Order) -> tuple:
    """The task, in a worker. Returns: an `Outcome`."""
    began = time.perf_counter()
    results, stopped, mistake = [], 0, None
    try:
        results, stopped = _wave(Order(*order))
    except TradaxError as error:
        mistake = str(error)
    return tuple(Outcome(results, stopped, mistake, _where(), time.perf_counter() - began))


def _wave(order: Order) -> tuple[list[Result], int]:
    _settle(order.device, order.devices)
    with contextlib.suppress(OSError):
        os.chdir(order.here)
    folder = Path(order.folder)
    path = folder / "sweep.yaml"
    if not path.is_file():
        raise TradaxError(
            f"{folder} is not seen here; it must be on a file system that all nodes share"
        )
    request, layout = _layout(folder, hashlib.sha256(path.read_bytes()).hexdigest())
    wave = layout.waves[order.wave]
    with _locked(checkpoints_of(folder, wave.number)) as kept:
        finished = kept / "finished.json"
        if finished.is_file():  # and lost on the way to whoever asked
            return run_directory.read_json(finished), 0
        results, stopped = train_wave(
            request, layout, wave, folder, checkpoint_seconds=order.checkpoint_seconds
        )
        if not stopped:
            write_json(finished, results)
    return results, stopped


@functools.cache
def _settle(platform: Any, devices: int) -> None:
    """Once a process, before anything is computed."""
    device.use(platform, simulated=devices)
    device.keep_compiled_programs()


_prepared: dict[str, dict[str, Task]] = {}


@functools.lru_cache(maxsize=1)
def _layout(folder: Path, sha256: str) -> tuple[SweepRequest, Layout]:
    """Kept for the next wave of this process: neither data nor programs are made again."""
    request = read_sweep(folder)
    frame = saved_frame(request.request({}), folder)
    prepared = _prepared.setdefault(str(folder), {})
    return request, lay_out(request, frame=frame, free=request.memory, prepared=prepared)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """For one attempt at a time."""
    with clear_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + _LOCK_SECONDS
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(run_directory.locked(folder))
                break
            except TradaxError:
                if time.monotonic() > until:
                    raise
                time.sleep(1.0)
        yield folder


def _where() -> str:
    import ray

    return str(ray.util.get_node_ip_address())
