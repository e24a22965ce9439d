"""The only training loop: an outer loop on the host over compiled chunks of updates.

The number of updates in a chunk is traced, so one compilation serves every chunk. Chunks are as
long as a quarter of a second, so that the host hears signals and moves its progress bar, but
their length changes no number: what is logged, and when, depends on update counts alone.

Where the source steps its environments on the host, a chunk is a Python loop with a compiled
`learn` (`host_updates`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tradax import host_updates, parallel, protocols, signals, updates
from tradax.config import section
from tradax.errors import ConfigError, TrainingError
from tradax.optimise import all_finite
from tradax.protocols import Algorithm, Policy, Source, TrainState
from tradax.replay import check_memory
from tradax.rows import MOST, Row, Sums, culprit, ends, row_of

_CHUNK_SECONDS = 0.25


class Hook:
    """What happens on the host between chunks. Members of an ensemble are numbered from 0."""

    def on_note(self, note: str) -> None:
        """Something worth knowing before anything is computed."""

    def on_row(self, row: Row, member: int) -> None:
        """A row of metrics, averaged over the updates since the last one."""

    def on_chunk(self, progress: "Progress") -> None:
        """Some updates are done; `progress` may hold what is new."""

    def on_tick(self, timesteps: int, steps_per_second: float) -> None:
        """A chunk has ended."""

    def on_save(self, progress: "Progress", final: bool) -> None:
        """A chunk has ended and is logged, a good moment to save; `final`: training has stopped.

        Unless it is final, training overwrites `progress` afterwards: copy what is to be kept.
        """


class Progress(NamedTuple):
    """Everything that the loop carries; arrays only, so that it can be saved and resumed."""

    state: TrainState
    sums: Sums
    best_policy: Policy
    best_score: jax.Array
    """Validation score of `best_policy`; -inf before the first evaluation."""
    last_score: jax.Array
    """-inf where the policy's numbers were not finite."""
    config: Any = None
    """The algorithm's `Config` as it is now, where `adapt` changes it; else None."""


class Trained(NamedTuple):
    """What the loop returns; with members, policies and scores have a leading axis."""

    policy: Policy
    """After the last update."""
    best_policy: Policy
    """The best on validation; the last where nothing was validated."""
    best_score: np.ndarray
    progress: Progress
    rows: list[list[Row]]
    """Logged rows of every member."""
    interrupted: int
    """The signal that stopped it (SIGINT, SIGTERM); 0 where it went to its end."""
    steps_per_second: float
    failed: dict[int, str]
    """Member -> why it stopped, where others went on without it (`strict=False`)."""


def train(
    algorithm: Algorithm,
    source: Source,
    key: jax.Array,
    *,
    total_timesteps: int,
    members: int | None = None,
    shared_source: bool = False,
    evaluate: Callable[[Policy], jax.Array] | None = None,
    evaluations: int = 20,
    log_rows: int = 100,
    hooks: Sequence[Hook] = (),
    resume: Progress | None = None,
    mesh: Mesh | None = None,
    strict: bool = True,
    adapt: Callable[[Progress], Progress] | None = None,
    adapt_every: int = 1,
) -> Trained:
    """Train until `total_timesteps` environment steps were taken, rounded up to whole updates.

    Args:
        key: a key, or with members one key each.
        members: train so many runs in one program; `algorithm` and, unless `shared_source`,
            `source` then have a leading axis on every leaf.
        evaluate: score of a policy on validation data (larger is better); the best is kept.
        evaluations, log_rows: how often to evaluate and to log, spread evenly over the run.
        resume: go on from here; with the same arguments the result is the same as without a stop.
        mesh: share the work of every update, or the members, between these devices
            (`tradax.parallel`); the result is that of one device, to float tolerance.
        strict: False lets members go on when another's numbers are not finite; that one keeps its
            best policy, logs no more, and is named in `Trained.failed`. Training ends where none
            is left.
        adapt: what members have learned, and `Progress.config`, may be changed by this after every
            `adapt_every` updates but the last, each time after an evaluation (`sweeps.population`).

    Raises:
        ConfigError: the algorithm does not split its work, or members do not divide by devices.
        ConfigError: the experience that the algorithm keeps does not fit into memory.
        TrainingError: a number is not finite, and `strict`. The error names the update and the
            quantity and carries the last good policy as `policy`.
    """
    if not source.jittable:
        host_updates.check(members, mesh)
    total_updates = updates_needed(algorithm, total_timesteps)
    algorithm = with_arrays(algorithm, total_updates, members)
    axes = None if members is None else (0, None if shared_source else 0, 0)
    if resume is None:
        if kept := algorithm.memory() * (members or 1):
            note = check_memory(kept)
            for hook in hooks:
                hook.on_note(note)
        progress = start(algorithm, source.outline, key, axes=axes)
        if adapt is not None:
            progress = progress._replace(config=jax.tree.map(jnp.copy, algorithm.config))
    else:
        progress = jax.tree.map(jnp.copy, resume)  # chunks overwrite theirs
    if not source.jittable:
        begun = host_updates.begin(algorithm, source, progress.state)
        progress = progress._replace(state=begun)
    theirs = source
    if mesh is not None:
        check_mesh(algorithm, mesh, members)
        if members is None:
            theirs = replace(source, axis=parallel.AXIS)
        else:
            theirs = (parallel.spread if shared_source else parallel.share_out)(source, mesh)
    ours = _as_it_is(algorithm, progress, mesh, members)
    log_every = max(1, total_updates // max(log_rows, 1))
    evaluate_every = max(1, total_updates // max(evaluations, 1)) if evaluate else total_updates
    adapt_every = adapt_every if adapt else total_updates
    steps_per_update = algorithm.steps_per_update * (members or 1)

    rows: list[list[Row]] = [[] for _ in range(members or 1)]
    failed: dict[int, str] = {}
    update = int(np.max(np.asarray(progress.state.update)))
    # Members in turn are copied in and out, replay and all, once a chunk each.
    chunk_seconds = _CHUNK_SECONDS * (4 if members is not None and algorithm.in_turn else 1)
    clock = _Clock()
    length = 1
    with signals.heard() as stop:
        while update < total_updates:
            length, asked = parallel.agree(length, stop.signal)
            if asked:
                stop.signal = asked
                break
            milestone = min(
                _next_multiple(update, log_every) + (MOST - 1) * log_every,
                _next_multiple(update, evaluate_every),
                _next_multiple(update, adapt_every),
                total_updates,
            )
            n = min(length, milestone - update)
            good = _policy_of(algorithm, progress.state.learner, axes)
            began = time.perf_counter()
            state, sums, closed, finite, done = updates.run(
                ours,
                theirs,
                progress.state,
                progress.sums,
                n,
                log_every=log_every,
                axes=axes,
                mesh=mesh,
                strict=strict,
            )
            closed, finite, done = jax.device_get((closed, finite, done))  # waits for the device
            finite, done = np.asarray(finite), int(done)
            seconds = time.perf_counter() - began
            clock.add(seconds, done * steps_per_update)
            length = max(1, min(4 * length, round(n * chunk_seconds / max(seconds, 1e-6))))
            before, update = update, update + done
            progress = progress._replace(state=state, sums=sums)
            for hook in hooks:
                hook.on_chunk(progress)
            broken = [m for m in np.flatnonzero(~finite).tolist() if m not in failed]
            if broken:
                with np.errstate(invalid="ignore"):
                    seen = sums.unpacked(closed.sum(axis=-2))  # not finite where a row is not
                for member in broken:
                    failed[member] = f"update {update}: {culprit(_of(member, seen, members))}"
            ended = not (finite.all() if strict else finite.any())

            scores = None
            adapts = adapt is not None and update % adapt_every == 0 and update < total_updates
            due = adapts or update % evaluate_every == 0 or update == total_updates
            if evaluate and due and not ended:
                progress = _evaluated(algorithm, progress, evaluate, axes)
                scores = np.atleast_1d(np.asarray(progress.last_score))
            for end in ends(before, update, log_every, total_updates):
                row_sums = sums.unpacked(
                    closed[..., (end - 1) // log_every - before // log_every, :]
                )
                for member in range(members or 1):
                    own = _of(member, row_sums, members)
                    # What a member did before it failed is logged.
                    sound = member in broken and end < update and all_finite(own)
                    if member in failed and not sound:
                        continue
                    row = row_of(own, end, log_every, algorithm.steps_per_update)
                    if scores is not None and end == update:
                        row["validation_score"] = float(scores[member])
                    row |= {"seconds": clock.total, "steps_per_second": clock.steps_per_second}
                    rows[member].append(row)
                    for hook in hooks:
                        hook.on_row(row, member)
            if ended and strict:
                raise _not_finite(failed, good)
            if ended:
                break
            if adapt and adapts:
                progress = adapt(progress)
                ours = _as_it_is(algorithm, progress, mesh, members)
                failed.clear()  # whoever was not mended is found again
            for hook in hooks:
                if update < total_updates:
                    hook.on_save(progress, False)
                hook.on_tick(update * algorithm.steps_per_update, clock.steps_per_second)
        for hook in hooks:
            hook.on_save(progress, True)
    last = _policy_of(algorithm, progress.state.learner, axes)
    return Trained(
        policy=last,
        best_policy=progress.best_policy if evaluate else last,
        best_score=np.asarray(progress.best_score),
        progress=progress,
        rows=rows,
        interrupted=stop.signal,
        steps_per_second=clock.steps_per_second,
        failed=failed,
    )


def updates_needed(algorithm: Algorithm, total_timesteps: int) -> int:
    """Whole updates that take at least `total_timesteps` steps."""
    if total_timesteps < 1:
        raise ConfigError(f"timesteps is {total_timesteps}; it must be at least 1")
    updates = -(-total_timesteps // algorithm.steps_per_update)
    if updates >= 2**31:
        most = (2**31 - 1) * algorithm.steps_per_update
        raise ConfigError(f"timesteps is {total_timesteps}; it must be at most {most:,}")
    return updates


def blank(
    algorithm: Algorithm,
    source: Source,
    key: jax.Array,
    total_timesteps: int,
    members: int | None,
    *,
    shared_source: bool = False,
    adapts: bool = False,
) -> Progress:
    """Progress of the shapes that these arguments of `train` lead to, for loading a saved one."""
    check_memory(algorithm.memory() * (members or 1))
    algorithm = with_arrays(algorithm, updates_needed(algorithm, total_timesteps), members)
    axes = None if members is None else (0, None if shared_source else 0, 0)
    progress = start(algorithm, source.outline, key, axes=axes)
    return progress._replace(config=algorithm.config) if adapts else progress


@eqx.filter_jit
def start(algorithm: Algorithm, source: Source, key: jax.Array, *, axes: tuple | None) -> Progress:
    """Progress before the first update. Jitted, so that no two leaves share a buffer."""

    def start_one(algorithm, source, key):
        state = protocols.init(algorithm, source, key)
        _, metrics, finished = jax.eval_shape(protocols.step, algorithm, source, state)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (metrics, finished))
        score = jnp.float32(-jnp.inf)
        return Progress(state, Sums(*zeros), algorithm.policy(state.learner), score, score)

    return updates.abreast(start_one, axes)(algorithm, source, key)


def _as_it_is(
    algorithm: Algorithm, progress: Progress, mesh: Mesh | None, members: int | None
) -> Algorithm:
    """With the settings that hold now, on the devices that train its members."""
    if progress.config is not None:
        algorithm = eqx.tree_at(lambda a: a.config, algorithm, progress.config)
    return algorithm if mesh is None or members is None else parallel.share_out(algorithm, mesh)


def check_mesh(algorithm: Algorithm, mesh: Mesh, members: int | None) -> None:
    """Raises ConfigError where training cannot be split over devices; warns where it is padded."""
    if members is not None:
        if members % mesh.size:
            raise ConfigError(
                f"{members} policies do not divide by {mesh.size} devices, and each device trains "
                f"equally many; use {_divisor(members, mesh.size)} devices, or one policy for all "
                "(--shared-policy)"
            )
        return
    if not algorithm.splits_over_devices:
        raise ConfigError(
            f"{section(type(algorithm.config))} does not split its work over devices; policy "
            "gradients (ppo, a2c, ...) and the searches without gradients (cem, genetic, ...) do"
        )
    algorithm.check_devices(mesh.size)


def _divisor(number: int, most: int) -> int:
    """The largest divisor that is at most `most`."""
    return next(d for d in range(most, 0, -1) if number % d == 0)


@eqx.filter_jit
def _policy_of(algorithm: Algorithm, learner: Any, axes: tuple | None) -> Policy:
    def one(algorithm, learner):
        # Copied, for the learner's own arrays are overwritten by the next chunk.
        return jax.tree.map(jnp.copy, algorithm.policy(learner))

    return one(algorithm, learner) if axes is None else jax.vmap(one)(algorithm, learner)


def with_arrays(algorithm: Algorithm, total_updates: int, members: int | None) -> Algorithm:
    """Python floats become arrays once, so that no value of a setting compiles again."""
    horizon = jnp.float32(total_updates)
    if members is not None:
        horizon = jnp.full(members, horizon)
    algorithm = eqx.tree_at(lambda a: a.horizon, algorithm, horizon)

    def to_array(x):
        x = jnp.asarray(x, jnp.float32)
        return jnp.broadcast_to(x, (members,)) if members is not None and x.ndim == 0 else x

    return jax.tree.map(to_array, algorithm)


def _evaluated(algorithm, progress: Progress, evaluate, axes) -> Progress:
    """Keep the policy if it is the best so far on validation."""
    policy = _policy_of(algorithm, progress.state.learner, axes)
    kept = (progress.best_policy, progress.best_score)
    best_policy, best_score, score = _better(policy, jnp.asarray(evaluate(policy)), *kept, axes)
    return progress._replace(best_policy=best_policy, best_score=best_score, last_score=score)


@eqx.filter_jit
def _better(
    policy: Policy, score: jax.Array, best: Policy, best_score: jax.Array, axes: tuple | None
) -> tuple[Policy, jax.Array, jax.Array]:
    """The better policy, its score, and that of `policy`: -inf where a number is not finite.

    Of each member, where there are several.
    """
    sound = all_finite(policy) if axes is None else jax.vmap(all_finite)(policy)
    score = jnp.where(sound, score, -jnp.inf)
    better = score > best_score

    def choose(new, old):
        return jnp.where(better.reshape(better.shape + (1,) * (new.ndim - better.ndim)), new, old)

    return jax.tree.map(choose, policy, best), jnp.where(better, score, best_score), score


def _of(member: int, sums: Sums, members: int | None) -> Sums:
    return sums if members is None else jax.tree.map(lambda x: x[member], sums)


def _not_finite(failed: dict[int, str], policy: Policy) -> TrainingError:
    error = TrainingError(f"{next(iter(failed.values()))}. The last good policy was kept")
    error.policy = policy
    return error


def _next_multiple(update: int, of: int) -> int:
    return (update // of + 1) * of


class _Clock:
    """Time spent in chunks, and the speed without the first, which compiles."""

    def __init__(self):
        self.total = 0.0
        self._steady_seconds = 0.0
        self._steady_steps = 0
        self._first = True

    def add(self, seconds: float, steps: int) -> None:
        self.total += seconds
        if not self._first:
            self._steady_seconds += seconds
            self._steady_steps += steps
        self._first = False

    @property
    def steps_per_second(self) -> float:
        return self._steady_steps / self._steady_seconds if self._steady_seconds else 0.0
