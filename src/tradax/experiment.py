"""One run from end to end: data, training, the test on years never seen, the report."""

import contextlib
import dataclasses
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tradax import controls as control_runs
from tradax import discovery, host_updates, parallel, resuming, run_directory, training
from tradax.checkpoint import clean_up, has_checkpoint, load_checkpoint
from tradax.config import plain, section, to_dict
from tradax.draws import check_seed
from tradax.errors import ConfigError, TrainingError
from tradax.evaluation.backtest import symbol_of
from tradax.files import remove_leftovers, renamed
from tradax.held_out import held_out_test
from tradax.hooks import (
    BestEver,
    Checkpoints,
    Display,
    MetricsFile,
    TensorBoard,
    best_ever,
    keeps_best,
    read_rows,
)
from tradax.host_source import HostSource
from tradax.model_file import save_policy
from tradax.offline import from_log, log_facts
from tradax.policies import NetworkPolicy
from tradax.preparation import (
    Request,
    Task,
    needs_bars,
    policy_names,
    prepare,
    read_request,
    saved_frame,
    saved_normalizer,
)
from tradax.protocols import Source
from tradax.rows import Row
from tradax.sources import from_gymnasium, is_host_env, market_in, object_name
from tradax.usage import Usage


@dataclass(frozen=True)
class Result:
    """What a training run leaves behind."""

    policies: dict[str, NetworkPolicy]
    """Symbol ("A+B" for a portfolio) or environment -> best policy on validation."""
    metrics: dict[str, list[Row]]
    """The same -> logged rows."""
    summary: dict[str, Any]
    """What `summary.json` holds."""
    run_dir: Path
    interrupted: int
    """The signal that stopped it (SIGINT, SIGTERM); 0 where it went to its end."""
    fittest: dict[str, tuple[float, NetworkPolicy]]
    """The same -> fitness and policy of the best individual ever; empty unless searching."""

    @property
    def policy(self) -> NetworkPolicy:
        """The only policy, or the first symbol's."""
        return next(iter(self.policies.values()))


def train(
    algorithm: Any = "ppo",
    env: Any = "trading",
    data: Any = None,
    *,
    symbols: list[str] | None = None,
    signals: list[str] | None = None,
    total_timesteps: int | None = None,
    seed: int = 0,
    settings: dict[str, dict[str, Any]] | None = None,
    preprocessing: bool = True,
    normalizer: Any = None,
    closes_only: bool = False,
    intersection: bool = False,
    shared_policy: bool = False,
    skip_posterior: bool = False,
    controls: int = 0,
    train_fraction: float = 0.7,
    validation_fraction: float = 0.15,
    folds: int | None = None,
    rolling: bool = False,
    purge_bars: int = 5,
    embargo_bars: int = 5,
    evaluations: int = 20,
    log_rows: int = 100,
    offline: Path | str | None = None,
    out: Path | str | None = None,
    resume: Path | str | None = None,
    checkpoint_seconds: float = 60.0,
    devices: int | None = None,
    progress: bool = False,
    command: str | None = None,
) -> Result:
    """Train a policy, test it on held-out data, and write a run directory.

    In a job of several processes (`tradax.parallel.join`) all devices of all of them share the
    work; the first process writes, and the others' `run_dir` is the empty path.

    Args:
        algorithm: a name (`tradax list`), or a `Config` of one.
        env: "trading" or another market, its `Config`, a gymnax name such as "CartPole-v1" or
            Gymnasium's as "gymnasium:CartPole-v1", an environment of either, (environment,
            parameters), or what `tradax.envs.from_gymnasium` returns.
        data: sample name(s), CSV or Parquet file(s), or a polars or pandas frame; "sp500" by
            default. Not for environments that simulate their prices, or that are not markets.
        symbols: which of the data's symbols; all by default, each with a policy of its own,
            except that a portfolio has one policy for all that it holds.
        signals: which extra columns are features; all numeric ones by default.
        total_timesteps: 1,000,000 by default; with `resume`, as many as the run was to have.
        settings: options by section, for instance `{"ppo": {"learning_rate": 3e-4},
            "trading": {"commission_bps": 2}, "features": {"window": 5}}`.
        preprocessing: False gives the agent plain returns and signals, not normalised.
        normalizer: scikit-learn's QuantileTransformer, StandardScaler or RobustScaler for the
            features, in place of the quantile normaliser; fitted on the training rows, unless it
            is fitted already. The run directory keeps its numbers.
        shared_policy: one policy for all symbols.
        controls: train so many copies on shuffled prices too, and as many on noise: what the same
            training finds where there is nothing (`tradax.controls`).
        train_fraction, validation_fraction: of the rows in time order; the rest is the test.
        folds: cut the test span into so many pieces and train anew for each, on all that came
            before it, in one program; the report is of all pieces together. The run directory's
            policy is the last piece's; the others are in `folds`.
        rolling: each fold trains on as many rows as the first, the latest, not on all.
        purge_bars, embargo_bars: with folds, rows left out between training and validation, and
            between validation and test.
        offline: a Parquet file that `tradax.collect` wrote: learn from its trajectories only. The
            environment then serves for validation and the test; `total_timesteps` counts logged
            steps, which are drawn again and again.
        out: a new folder; runs/NAME-1, -2, ... by default.
        resume: a run folder to go on with. Data, libraries and options must be as they were, but
            that there may be more `total_timesteps`.
        checkpoint_seconds: between two checkpoints, at least; besides, one is written at each best
            evaluation and at the end.
        devices: share the work of every update between so many; searches without gradients only.
        progress: show progress on standard error.

    Raises:
        TradaxError: bad data or options, before anything is compiled or written.
        TrainingError: a number became NaN or infinite; the last good policy is in the folder.
    """
    settings = {
        name: {option: plain(value) for option, value in options.items()}
        for name, options in (settings or {}).items()
    }
    seed, total_timesteps = plain(seed), plain(total_timesteps)
    if not preprocessing:
        settings = without_indicators(settings)
    frame = in_memory(data)
    algorithm, settings = named("algorithms", algorithm, settings)
    if (market := market_in(env)) is not None:
        env = market
    elif is_host_env(env):
        env = from_gymnasium(env)
        settings = _with_its_number(env, algorithm, settings)
    name, settings = named("envs", env, settings) if not _is_object(env) else (env, settings)
    request = Request(
        algorithm=algorithm,
        env=name if isinstance(name, str) else object_name(env),
        data="frame" if frame is not None else plain_data(data, name),
        symbols=symbols,
        signals=signals,
        closes_only=closes_only,
        intersection=intersection,
        shared_policy=shared_policy,
        skip_posterior=skip_posterior,
        controls=controls,
        total_timesteps=1_000_000 if total_timesteps is None else total_timesteps,
        seed=seed,
        train_fraction=train_fraction,
        validation_fraction=validation_fraction,
        folds=folds,
        rolling=rolling,
        purge_bars=purge_bars,
        embargo_bars=embargo_bars,
        evaluations=evaluations,
        log_rows=log_rows,
        normalizer=None if normalizer is None else type(normalizer).__name__,
        offline=None if offline is None else str(offline),
        settings=settings,
    )
    folder = None
    check_seed(seed)
    if not checkpoint_seconds >= 0:
        raise ConfigError(f"checkpoint_seconds is {checkpoint_seconds}; it must be at least 0")
    if resume is not None:
        folder = Path(resume)
        asked = request if data is not None else dataclasses.replace(request, data=None)
        request = resuming.continued(asked, read_request(folder), folder, total_timesteps)
        frame = saved_frame(request, folder)
        normalizer = saved_normalizer(request, folder)
    task = prepare(
        request,
        env=env if _is_object(env) else None,
        frame=frame,
        normalizer=normalizer,
        begun=resume is not None,
    )
    if request.offline is not None:
        task = from_log(request.offline, request.algorithm, task)
    control_runs.check(request, request.controls)
    if folder is not None:
        resuming.check_world(request, task, folder)

    mesh = None
    if devices is not None or jax.process_count() > 1:
        mesh = parallel.device_mesh(devices)
        if not task.source.jittable:
            host_updates.check(task.members, mesh)
        with warnings.catch_warnings(action="ignore"):  # the loop will say it
            training.check_mesh(task.algorithm, mesh, task.members)
    training.updates_needed(task.algorithm, request.total_timesteps)  # said before a folder is made
    if not parallel.is_first():
        trained = _run(request, task, folder, mesh)
        parallel.leave()
        return Result(
            _policies(request, task, trained.best_policy),
            {},
            {},
            Path(),
            trained.interrupted,
            _fittest(request, task, trained),
        )
    if folder is None:
        folder = run_directory.create(
            out, f"{run_directory.symbol_folder(request.env)}-{request.algorithm}"
        )
    with run_directory.locked(folder, unused=resume is None):
        remove_leftovers(folder)
        task = task._replace(folders=[folder / path for path in task.folders])
        if frame is not None and resume is None and task.bars is not None:
            with renamed(folder / "bars.parquet") as temporary:
                task.bars.write_parquet(temporary)
        if task.pipeline is not None:
            task.pipeline.save(folder)
        if resume is None:
            run_directory.write_manifest(
                folder,
                seed=request.seed,
                data=resuming.facts(request, task),
                command=command or "tradax.train(...) from Python",
            )
        run_directory.write_config(folder, vars(request))  # the last: from here on it can resume
        resumed = folder if resume is not None else None
        trained = _run(request, task, resumed, mesh, folder, checkpoint_seconds, progress)
        parallel.leave()
        return _finish(request, task, folder, trained, progress)


def _run(
    request: Request,
    task: Task,
    resumed: Path | None,
    mesh: Mesh | None,
    folder: Path | None = None,
    checkpoint_seconds: float = 60.0,
    progress: bool = False,
) -> training.Trained:
    """Train, writing to `folder` where it is given, and displaying."""
    key = jax.random.key(request.seed)
    algorithm, source = task.algorithm, task.source
    if task.members is not None:
        # The same seed for every symbol: each is the run that it would be alone.
        key = jnp.stack([key] * task.members)
    saved = None if resumed is None else _saved(request, task, resumed / "checkpoints", key)
    total = training.updates_needed(algorithm, request.total_timesteps)
    hooks: list[training.Hook] = []
    with contextlib.ExitStack() as stack:
        if folder is not None:
            hooks += _hooks(task, folder, saved, checkpoint_seconds, stack)
        if progress:
            display = Display(total * algorithm.steps_per_update)
            stack.callback(display.close)
            hooks.append(display)
        try:
            return training.train(
                algorithm,
                source,
                key,
                total_timesteps=request.total_timesteps,
                members=task.members,
                evaluate=task.evaluate,
                evaluations=request.evaluations,
                log_rows=request.log_rows,
                hooks=hooks,
                resume=saved,
                mesh=mesh,
            )
        except TrainingError as error:
            if folder is not None:
                _save_policies(request, task, error.policy, "policy-last.zip")
            raise


def _saved(
    request: Request, task: Task, checkpoints: Path, key: jax.Array
) -> training.Progress | None:
    """Where the run stopped; None before its first checkpoint."""
    if not has_checkpoint(checkpoints):
        warnings.warn(
            f"{checkpoints}: no checkpoint yet; the run begins from its start", stacklevel=2
        )
        return None
    like = training.blank(task.algorithm, task.source, key, request.total_timesteps, task.members)
    return load_checkpoint(checkpoints, like)


def _hooks(
    task: Task,
    folder: Path,
    saved: training.Progress | None,
    checkpoint_seconds: float,
    stack: contextlib.ExitStack,
) -> list[training.Hook]:
    """All that writes to the run's folder."""
    update = 0 if saved is None else int(jnp.max(saved.state.update))
    rows = [path / "metrics.jsonl" for path in task.folders]
    clean_up(folder / "checkpoints")
    checkpoints = Checkpoints(
        folder / "checkpoints", seconds=checkpoint_seconds, begun=saved, beside=rows
    )
    stack.callback(checkpoints.close)
    several = task.members is not None
    best = [BestEver(task.algorithm, task.folders, several)] if keeps_best(task.algorithm) else []
    board = TensorBoard(
        [path / "tensorboard" for path in task.folders],
        from_timesteps=update * task.algorithm.steps_per_update + 1 if update else 0,
    )
    usage = Usage(folder / "performance.jsonl", board, keep_until_update=update)
    return [checkpoints, *best, MetricsFile(rows, keep_until_update=update), board, usage]


def _finish(
    request: Request, task: Task, folder: Path, trained: training.Trained, progress: bool
) -> Result:
    """Save the policies; unless interrupted, test them and write the report."""
    if task.pipeline is not None:
        task.pipeline.write_joblib(folder)
    _save_policies(request, task, trained.policy, "policy-last.zip")
    best = _save_policies(request, task, trained.best_policy, "policy.zip")
    names = policy_names(request, task)
    rows = {n: read_rows(f / "metrics.jsonl") for n, f in zip(names, task.folders, strict=True)}
    policies = dict(zip(names, best, strict=True))
    fittest = _fittest(request, task, trained)
    outcome: dict[str, Any] = {"steps_per_second": round(trained.steps_per_second)}
    if fittest:
        outcome["best_fitness"] = {name: fitness for name, (fitness, _) in fittest.items()}
    if not trained.interrupted:
        if request.controls:
            control_runs.run(request, task, folder, request.controls, progress=progress)
        outcome |= held_out_test(request, task, folder, policies)
        if task.log is not None:
            outcome["offline"] = log_facts(task, best[0])
        run_directory.write_json(folder / "summary.json", outcome)
    return Result(policies, rows, outcome, folder, trained.interrupted, fittest)


def _policies(request: Request, task: Task, policy: Any) -> dict[str, Any]:
    """Name -> policy; `policy` has a leading axis where there are several."""
    names = policy_names(request, task)
    if task.members is None:
        return {names[0]: policy}
    return {n: jax.tree.map(lambda x, i=i: x[i], policy) for i, n in enumerate(names)}


def _fittest(
    request: Request, task: Task, trained: training.Trained
) -> dict[str, tuple[float, NetworkPolicy]]:
    if not keeps_best(task.algorithm):
        return {}
    best = best_ever(task.algorithm, task.members is not None)
    fitness, policies = best(trained.progress.state.learner)
    scores = np.atleast_1d(np.asarray(fitness)).tolist()
    named = _policies(request, task, policies)
    return {n: (s, p) for (n, p), s in zip(named.items(), scores, strict=True)}


def _save_policies(request: Request, task: Task, policy, name: str) -> list[NetworkPolicy]:
    policies = list(_policies(request, task, policy).values())
    for index, (one, folder) in enumerate(zip(policies, task.folders, strict=True)):
        metadata = {"algorithm": request.algorithm, "env": request.env}
        if len(task.deployed) == len(task.markets):
            metadata["symbol"] = symbol_of(task.markets[index % len(task.markets)])
        save_policy(one, folder / name, metadata)
    return policies


def named(kind: str, given: Any, settings: dict) -> tuple[str, dict]:
    """A name and its settings, from a name or a `Config` object."""
    if isinstance(given, str):
        return given, settings
    module = sys.modules.get(type(given).__module__)
    name = section(type(given))
    if module is None or name not in (
        discovery.algorithms() if kind == "algorithms" else discovery.environments()
    ):
        raise ConfigError(f"{given!r} is neither a name nor the Config of one")
    return name, {**settings, name: to_dict(given)}


def _is_object(env: Any) -> bool:
    """Whether `env` is an environment rather than a name or a Config."""
    known = isinstance(env, tuple | Source) or hasattr(env, "step_env")
    return known or is_host_env(env)


def _with_its_number(env: HostSource, algorithm: str, settings: dict) -> dict:
    """The settings, with as many environments as whoever gave them chose."""
    names = [option.name for option in discovery.options("algorithms", algorithm)]
    own = settings.get(algorithm, {})
    if not env.fixed or "num_envs" in own or "num_envs" not in names:
        return settings
    return {**settings, algorithm: {**own, "num_envs": env.num_envs}}


def in_memory(data: Any) -> Any:
    """`data` where it is bars or a frame; None where it names them."""
    return None if data is None or isinstance(data, str | list | tuple | Path) else data


def without_indicators(settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings of a run that gets plain returns and signals."""
    return settings | {"features": settings.get("features", {}) | {"indicators": False}}


def plain_data(data: Any, env: Any) -> str | list[str] | None:
    if data is None:
        return "sp500" if needs_bars(env) else None
    if isinstance(data, str | Path):
        return str(data)
    return [str(item) for item in data]
