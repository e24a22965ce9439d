"""The same training on destroyed prices: what the algorithm finds where there is nothing to find.

All copies train as members of one compiled program. They are no trials of the user's: no ledger
hears of them.
"""

import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tradax import discovery, training
from tradax.data.surrogates import KINDS
from tradax.errors import ConfigError, ModelFileError
from tradax.evaluation.backtest import symbol_of
from tradax.evaluation.robustness import Copies, Copy, outcome
from tradax.files import write_json
from tradax.hooks import Display
from tradax.preparation import Request, Task, needs_bars, policy_names, prepare, reopen
from tradax.reading import check_version, json_value, read_bytes
from tradax.rollout import JaxSource
from tradax.walks import tested_policies, walked

_FILE = "controls.json"
_VERSION = 1


class _Copy(NamedTuple):
    """Destroyed prices, and all that is trained on them."""

    kind: str
    task: Task

    @property
    def policies(self) -> int:
        return self.task.members or 1


def check(request: Request, copies: int) -> None:
    """Raises ConfigError where the request can have no controls."""
    if copies < 0:
        raise ConfigError(f"controls is {copies}; give 1 or more, or 0 for none")
    if copies == 0:
        return
    if not needs_bars(request.env):
        what = "simulates its prices" if request.env in discovery.environments() else "is no market"
        raise ConfigError(f"{request.env} {what}, so there are no prices to destroy; no --controls")
    if request.offline is not None:
        raise ConfigError(
            "a policy learned from a log has no controls: the log tells of real prices; leave out "
            "--controls"
        )
    if jax.process_count() > 1:
        raise ConfigError(
            "controls train in one process; leave out --controls and call tradax robustness RUN "
            f"--controls {copies} when the job has ended"
        )


def add(folder: Path | str, copies: int, *, progress: bool = False) -> int:
    """Train the controls of a finished run, and keep their results in its folder.

    Returns: 0, or the signal that stopped it.

    Raises:
        ModelFileError: not a run directory.
        ConfigError: it can have none, or fewer than 1 are asked for.
    """
    if copies < 1:
        raise ConfigError(f"controls is {copies}; it must be at least 1")
    request, task = reopen(Path(folder))
    check(request, copies)
    return run(request, task, Path(folder), copies, progress=progress)


def run(request: Request, task: Task, folder: Path, copies: int, *, progress: bool = False) -> int:
    """Train `copies` of each kind as `request` says, test each, and write `controls.json`.

    Returns: 0, or the signal that stopped it; then nothing is written.
    """
    made = _copies(request, task, copies)
    trained = _trained(request, made, progress)
    if trained.interrupted:
        warnings.warn(
            f"the controls were interrupted; for them: tradax robustness {folder} "
            f"--controls {copies}",
            stacklevel=2,
        )
        return trained.interrupted
    results: dict[str, Copies] = {
        symbol_of(market): {kind: [] for kind in KINDS} for market in task.markets
    }
    for copy, best in zip(made, _parts(made, trained.best_policy), strict=True):
        names = policy_names(request, copy.task)
        policies = [jax.tree.map(lambda x, i=i: x[i], best) for i in range(copy.policies)]
        walkers = tested_policies(copy.task, dict(zip(names, policies, strict=True)))
        for index, policy in enumerate(walkers):
            result = walked(request, copy.task, policy, index)
            results[result.symbol][copy.kind].append(outcome(result))
    write_json(
        folder / _FILE,
        {
            "format": _VERSION,
            "timesteps": request.total_timesteps,
            "symbols": {
                symbol: {kind: [c._asdict() for c in found] for kind, found in kinds.items()}
                for symbol, kinds in results.items()
            },
        },
    )
    return 0


def load(request: Request, folder: Path, symbol: str) -> Copies | None:
    """What `run` kept of a symbol; None where there is nothing, or of a shorter training.

    Raises:
        ModelFileError: the file is damaged.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    content = json_value(read_bytes(path), path)
    try:
        check_version(content["format"], _VERSION, path)
        if content["timesteps"] != request.total_timesteps:
            return None
        kinds = content["symbols"][symbol]
        return {kind: [_copy(found) for found in kinds[kind]] for kind in KINDS}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"{path}: cannot be read as controls ({error}); write it again with tradax robustness"
        ) from None


def _copy(found: dict[str, Any]) -> Copy:
    sharpe = found["sharpe"]
    return Copy(
        float(found["total_return"]),
        float(found["excess"]),
        None if sharpe is None else float(sharpe),
    )


def _copies(request: Request, task: Task, copies: int) -> list[_Copy]:
    """So many of every kind."""
    assert task.bars is not None
    assert task.pipeline is not None
    normalizer = task.pipeline.normalizers if request.normalizer is not None else None
    found = []
    for kind, destroy in KINDS.items():
        for number in range(copies):
            seed = (request.seed, list(KINDS).index(kind), number)
            bars = destroy(task.bars, task.splits, np.random.default_rng(seed))
            found.append(_Copy(kind, prepare(request, frame=bars, normalizer=normalizer)))
    return found


def _trained(request: Request, copies: list[_Copy], progress: bool) -> training.Trained:
    """All policies of all copies, of one seed, each the best of its validations."""
    first = copies[0].task
    sources = [copy.task.source for copy in copies]
    assert all(isinstance(source, JaxSource) for source in sources)
    join = jnp.stack if first.members is None else jnp.concatenate
    source = jax.tree.map(lambda *x: join(x), *sources)
    members = sum(copy.policies for copy in copies)
    total = training.updates_needed(first.algorithm, request.total_timesteps)
    display = Display(total * first.algorithm.steps_per_update) if progress else None
    if display is not None:
        print(f"controls: {members} policies on destroyed prices", file=sys.stderr)

    def scores(policies: Any) -> jax.Array:
        own = zip(copies, _parts(copies, policies), strict=True)
        if first.members is None:
            return jnp.stack(
                [c.task.evaluate(jax.tree.map(lambda x: x[0], part)) for c, part in own]
            )
        return jnp.concatenate([c.task.evaluate(part) for c, part in own])

    try:
        return training.train(
            first.algorithm,
            source,
            jnp.stack([jax.random.key(request.seed)] * members),
            total_timesteps=request.total_timesteps,
            members=members,
            evaluate=scores,
            evaluations=request.evaluations,
            log_rows=request.log_rows if progress else 1,
            hooks=[] if display is None else [display],
            strict=False,
        )
    finally:
        if display is not None:
            display.close()


def _parts(copies: list[_Copy], policies: Any) -> list[Any]:
    """The policies of each copy, stacked."""
    each = copies[0].policies
    return [
        jax.tree.map(lambda x, i=i: x[i : i + each], policies)
        for i in range(0, each * len(copies), each)
    ]
