"""The same training on destroyed prices: what the algorithm finds where there is nothing to find.

All copies train as members of one compiled program. They are no trials of the user's: no ledger
hears of them.
"""

import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax import discovery, training
from tradax.data.splits import Span
from tradax.data.surrogates import KINDS
from tradax.errors import ConfigError, ModelFileError
from tradax.evaluation.backtest import backtest, symbol_of
from tradax.evaluation.robustness import Copies, Copy, outcome
from tradax.evaluation.scoring import span_return
from tradax.files import write_json
from tradax.hooks import Display
from tradax.preparation import Request, Task, needs_bars, prepare, reopen
from tradax.reading import check_version, json_value, read_bytes
from tradax.rollout import JaxSource

_FILE = "controls.json"
_VERSION = 1


class _Member(NamedTuple):
    """A policy that is trained."""

    kind: str
    task: Task
    """On the destroyed prices."""
    params: Any
    """Of its training environment."""
    markets: list[int]
    """Which of the task's it is validated and tested on."""


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
    members = _members(request, task, copies)
    trained = _trained(request, members, progress)
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
    for number, member in enumerate(members):
        policy = jax.tree.map(lambda x, i=number: x[i], trained.best_policy)
        for index in member.markets:
            symbol = symbol_of(member.task.markets[index])
            results[symbol][member.kind].append(_tested(request, member.task, policy, index))
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


def _members(request: Request, task: Task, copies: int) -> list[_Member]:
    """One a policy: of every kind, copy, and symbol that has a policy of its own."""
    assert task.bars is not None
    assert task.pipeline is not None
    normalizer = task.pipeline.normalizers if request.normalizer is not None else None
    found = []
    for kind, destroy in KINDS.items():
        for number in range(copies):
            seed = (request.seed, list(KINDS).index(kind), number)
            bars = destroy(task.bars, task.pipeline.splits, np.random.default_rng(seed))
            of_copy = prepare(request, frame=bars, normalizer=normalizer)
            every = range(len(of_copy.markets))
            if of_copy.members is None:
                assert isinstance(of_copy.source, JaxSource)
                found.append(_Member(kind, of_copy, of_copy.source.params, list(every)))
            else:
                found += [_Member(kind, of_copy, _market(of_copy, i).params, [i]) for i in every]
    return found


def _trained(request: Request, members: list[_Member], progress: bool) -> training.Trained:
    """The members, of one seed, each the best of its validations."""
    first = members[0].task
    assert isinstance(first.source, JaxSource)
    assert first.pipeline is not None
    source = eqx.tree_at(lambda s: s.params, first.source, _stacked([m.params for m in members]))
    singles = [_stacked([_market(m.task, i).params for i in m.markets]) for m in members]
    test = eqx.tree_at(
        lambda s: s.params, first.single_sources[0], _stacked(singles)
    )  # [members, markets of each, ...]
    over_span = discovery.module("envs", request.env).over_span
    held_out = first.pipeline.splits.validation
    total = training.updates_needed(first.algorithm, request.total_timesteps)
    display = Display(total * first.algorithm.steps_per_update) if progress else None
    if display is not None:
        print(f"controls: {len(members)} policies on destroyed prices", file=sys.stderr)
    try:
        return training.train(
            first.algorithm,
            source,
            jnp.stack([jax.random.key(request.seed)] * len(members)),
            total_timesteps=request.total_timesteps,
            members=len(members),
            evaluate=lambda policies: _scores(test, over_span, held_out, policies),
            evaluations=request.evaluations,
            log_rows=request.log_rows if progress else 1,
            hooks=[] if display is None else [display],
            strict=False,
        )
    finally:
        if display is not None:
            display.close()


def _market(task: Task, index: int) -> JaxSource:
    source = task.single_sources[index]
    assert isinstance(source, JaxSource)
    return source


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


@eqx.filter_jit
def _scores(test: JaxSource, over_span: Any, held_out: Span, policies: Any) -> jax.Array:
    """Mean validation return [members] over the markets of each."""

    def one(params, policy):
        source = eqx.tree_at(lambda s: s.params, test, params)
        return span_return(source, over_span, held_out, policy)

    def of_member(params, policy):
        return jnp.mean(jax.vmap(one, in_axes=(0, None))(params, policy))

    return jax.vmap(of_member)(test.params, policies)


def _tested(request: Request, task: Task, policy: Any, index: int) -> Copy:
    assert task.pipeline is not None
    source = _market(task, index)
    module, span = discovery.module("envs", request.env), task.pipeline.splits.test
    return outcome(
        backtest(
            policy,
            module,
            source.env,
            source.params,
            task.markets[index],
            span,
            request.seed,
        )
    )
