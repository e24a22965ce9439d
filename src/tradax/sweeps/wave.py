"""One wave: members trained side by side in one compiled program, and what each leaves behind."""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tradax import discovery, parallel, training
from tradax.checkpoint import clean_up, has_checkpoint, load_checkpoint
from tradax.evaluation.scoring import HOST_ENVS, LONGEST, span_return
from tradax.evaluation.sharpe import annual_sharpe
from tradax.files import write_atomic
from tradax.hooks import Checkpoints, MetricsFile
from tradax.model_file import save_policy
from tradax.optimise import all_finite
from tradax.preparation import Request, Task
from tradax.protocols import Policy
from tradax.reading import read_bytes, tensors
from tradax.rollout import JaxSource
from tradax.rows import Row
from tradax.sweeps.members import Layout, SweepRequest, Wave, stacked
from tradax.sweeps.population import Rounds, keys_of, population_of
from tradax.training import Hook

Result = dict[str, Any]


def train_wave(
    request: SweepRequest,
    layout: Layout,
    wave: Wave,
    folder: Path | None,
    *,
    checkpoint_seconds: float = 60.0,
    hooks: Sequence[Hook] = (),
) -> tuple[list[Result], int]:
    """Train the wave, or go on with it; leaves policies and metrics in `folder/members`, and where
    there are populations `settings.jsonl` with the settings of each member over time.

    Args:
        folder: the sweep's. Of several processes the first one writes; the others read where to go
            on, and need none for a sweep that begins.

    Returns: a result a member, and the signal that stopped it (then there are no results).
    """
    algorithm, source, shared, keys = stacked(layout, wave)
    setting = wave.members[0].setting
    one, task = request.request(request.settings[setting]), layout.tasks[setting]
    mesh = parallel.device_mesh(request.devices) if request.devices > 1 else None
    judge = Judge(one, task, source, keys, shared, mesh)
    if mesh is not None and jax.process_count() == 1:
        source = judge.source  # no second copy
    saved, rounds = None, None
    if folder is not None:
        like = functools.partial(
            training.blank,
            algorithm,
            source,
            keys,
            one.total_timesteps,
            wave.size,
            shared_source=shared,
            adapts=request.population is not None,
        )
        saved = _saved(checkpoints_of(folder, wave.number), like)
    update = 0 if saved is None else int(jnp.max(saved.state.update))
    with contextlib.ExitStack() as stack:
        settings = Hook()
        writers = list(hooks)
        if folder is not None and parallel.is_first():
            own = [member_folder(folder, member.number) for member in wave.members]
            rows = [path / "metrics.jsonl" for path in own]
            metrics = MetricsFile(rows, keep_until_update=update)
            if request.population is not None:
                kept = [path / "settings.jsonl" for path in own]
                settings = MetricsFile(kept, keep_until_update=update)
                rows += kept
            keeper = Checkpoints(
                checkpoints_of(folder, wave.number),
                seconds=checkpoint_seconds,
                at_best=False,
                begun=saved,
                beside=rows,
            )
            stack.callback(keeper.close)
            writers = [_First(metrics, len(wave.members)), keeper, *writers]
        if request.population is not None:
            keys = keys_of(wave.members, keys)
            population = population_of(request, algorithm)
            rounds = Rounds(population, wave.members, algorithm, settings)
            if not update:
                rounds.note(algorithm.config, 0)
        trained = training.train(
            algorithm,
            source,
            keys,
            total_timesteps=one.total_timesteps,
            members=wave.size,
            shared_source=shared,
            evaluate=judge.scores,
            evaluations=one.evaluations,
            log_rows=one.log_rows,
            hooks=writers,
            resume=saved,
            mesh=mesh,
            strict=False,
            adapt=rounds,
            adapt_every=1 if rounds is None else rounds.every,
        )
    if trained.interrupted:
        return [], trained.interrupted
    returns = judge.returns(trained.best_policy)
    if returns is not None and folder is not None and parallel.is_first():
        save_returns(folder, wave, returns)
    return _results(one, wave, trained, judge.sharpes(returns), folder), 0


def _saved(checkpoints: Path, like: Callable[[], training.Progress]) -> training.Progress | None:
    """Where the wave was stopped, if it had begun."""
    if parallel.is_first():
        clean_up(checkpoints)
    return load_checkpoint(checkpoints, like()) if has_checkpoint(checkpoints) else None


def _results(
    one: Request,
    wave: Wave,
    trained: training.Trained,
    sharpes: Sequence[float | None],
    folder: Path | None,
) -> list[Result]:
    """A result a member; the first process writes the policies."""
    last, best = (jax.tree.map(np.asarray, p) for p in (trained.policy, trained.best_policy))
    results = []
    for place, member in enumerate(wave.members):
        metadata = {"algorithm": one.algorithm, "env": one.env, "symbol": member.symbol}
        for name, policies in (("policy-last.zip", last), ("policy.zip", best)):
            policy = jax.tree.map(lambda x, i=place: x[i], policies)
            if folder is not None and parallel.is_first() and bool(all_finite(policy)):
                save_policy(policy, member_folder(folder, member.number) / name, metadata)
        score = float(trained.best_score[place])
        results.append(
            member._asdict()
            | {
                "validation_score": score if math.isfinite(score) else None,
                "validation_sharpe": sharpes[place],
                "failed": trained.failed.get(place),
                "steps_per_second": round(trained.steps_per_second / wave.size),
            }
        )
    return results


def checkpoints_of(folder: Path, wave: int) -> Path:
    """Where a wave is saved until it is done."""
    return folder / "waves" / f"{wave:04d}"


def save_returns(folder: Path, wave: Wave, returns: np.ndarray) -> None:
    """Keep the members' validation returns [members or more, n] until the sweep ends."""
    from safetensors.numpy import save

    kept = np.ascontiguousarray(returns[: len(wave.members)], np.float32)
    write_atomic(_returns_file(folder, wave.number), save({"returns": kept}))


def saved_returns(folder: Path, wave: int) -> np.ndarray | None:
    """Validation returns of a wave's members [members, n]; None of an older version's wave."""
    path = _returns_file(folder, wave)
    if not path.is_file():
        return None
    return tensors(read_bytes(path, most=2**32), path).arrays["returns"]


def _returns_file(folder: Path, wave: int) -> Path:
    return folder / "waves" / f"{wave:04d}.safetensors"


def member_folder(folder: Path, number: int) -> Path:
    """Policies and metrics of a member."""
    return folder / "members" / f"{number:05d}"


class Judge:
    """What a wave's policies, with a leading axis [size], are worth on validation data."""

    def __init__(
        self,
        request: Request,
        task: Task,
        source: JaxSource,
        keys: jax.Array,
        shared: bool,
        mesh: Mesh | None,
    ):
        self.source, self._keys, self._shared, self._mesh = source, keys, shared, mesh
        if mesh is not None:
            self.source = (parallel.spread if shared else parallel.share_out)(source, mesh)
        self._over_span, self._span, self._per_year = None, None, None
        if task.pipeline is not None:
            self._over_span = discovery.module("envs", request.env).over_span
            self._span = task.pipeline.splits.validation
            self._per_year = task.markets[0][0].periods_per_year

    def scores(self, policies: Policy) -> jax.Array:
        """Each member's, as a run of its own would have it."""
        return self._ask(_score, policies)

    def returns(self, policies: Policy) -> np.ndarray | None:
        """Simple returns of each member [size, n]; None where the market is simulated."""
        if self._per_year is None:
            return None
        worth = np.asarray(self._ask(_net_worth, policies), np.float64)
        return worth[:, 1:] / worth[:, :-1] - 1.0

    def sharpes(self, returns: np.ndarray | None) -> list[float | None]:
        """Annualised, of each member's returns; None where there is none."""
        if returns is None or self._per_year is None:
            return [None] * len(self._keys)
        return [
            annual_sharpe(own, self._per_year, lags=0) if np.isfinite(own).all() else None
            for own in returns
        ]

    def _ask(self, measure: Callable, policies: Policy) -> jax.Array:
        given = (policies, self._keys)
        if self._mesh is not None:
            given = parallel.share_out(given, self._mesh)
        found = _judged(
            self.source,
            *given,
            measure=measure,
            over_span=self._over_span,
            span=self._span,
            shared=self._shared,
            mesh=self._mesh,
        )
        return parallel.together(found)


@eqx.filter_jit
def _judged(source, policies, keys, *, measure, over_span, span, shared, mesh):
    def each(source, policies, keys):
        def one(source, policy, key):
            return measure(source, policy, key, over_span, span)

        return jax.vmap(one, in_axes=(None if shared else 0, 0, 0))(source, policies, keys)

    if mesh is None:
        return each(source, policies, keys)
    theirs = parallel.MEMBERS
    specs = (parallel.SAME if shared else theirs, theirs, theirs)
    return parallel.everywhere(each, mesh, in_specs=specs, out_specs=theirs)(source, policies, keys)


def _score(source: JaxSource, policy: Policy, key, over_span: Callable | None, span) -> jax.Array:
    if over_span is not None:
        return span_return(source, over_span, span, policy)
    return jnp.mean(source.of(HOST_ENVS).episodes(policy.actor(sample=False), key, LONGEST)[0])


def _net_worth(source: JaxSource, policy: Policy, key, over_span: Callable, span) -> jax.Array:
    params = over_span(source.params, span)
    walked = eqx.tree_at(lambda s: s.params, source.of(1), params)
    n_steps = span.last - span.first
    _, info = walked.walk(policy.actor(sample=False), jax.random.key(0), n_steps)
    worth = jnp.concatenate([jnp.asarray(params.initial_cash)[None], info["net_worth"]])
    over = jnp.concatenate([jnp.zeros(1, bool), info["over"]])
    # After ruin nothing happens any more.
    at = jax.lax.cummax(jnp.where(over, 0, jnp.arange(n_steps + 1)))
    return worth[at]


class _First(Hook):
    """Rows of the first so many members; the others only fill up the wave."""

    def __init__(self, hook: Hook, count: int):
        self._hook, self._count = hook, count

    def on_row(self, row: Row, member: int) -> None:
        if member < self._count:
            self._hook.on_row(row, member)
