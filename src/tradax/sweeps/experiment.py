"""A sweep from end to end: waves, the choice on validation, one test of what was chosen."""

import contextlib
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tradax import parallel, resuming, run_directory
from tradax.errors import ConfigError, TradaxError
from tradax.experiment import in_memory, named, plain_data, without_indicators
from tradax.files import remove_leftovers, renamed, write_atomic
from tradax.hooks import Display
from tradax.preparation import Request, Task, saved_frame
from tradax.replay import free_memory
from tradax.sweeps import asking, optuna_search, ray_cluster, ray_tasks, results, table
from tradax.sweeps import grid as grids
from tradax.sweeps.extract import extract
from tradax.sweeps.members import (
    Layout,
    SweepRequest,
    Wave,
    lay_out,
    peak,
    size_words,
    without_waves,
)
from tradax.sweeps.optuna_search import Search
from tradax.sweeps.population import Population, population_of
from tradax.sweeps.ray_cluster import Cluster
from tradax.sweeps.wave import Result, train_wave


@dataclass(frozen=True)
class SweepResult:
    """What a sweep leaves behind."""

    run_dir: Path
    members: list[Result]
    """A member each: number, symbol, seed, setting, validation score and Sharpe ratio."""
    table: list[table.Line]
    """A line a symbol and setting, the best setting of each symbol first; of populations a line a
    symbol, over the best member of each."""
    settings: list[grids.Setting]
    """What lines point to."""
    tested: dict[str, Any]
    """Symbol -> summary of the test of its best member."""
    interrupted: int
    """The signal that stopped it (SIGINT, SIGTERM); 0 where it went to its end."""


def sweep(
    algorithm: Any = "ppo",
    env: Any = "trading",
    data: Any = None,
    *,
    seeds: int | Sequence[int] = 16,
    grid: Mapping[str, Sequence[Any]] | None = None,
    ranges: Mapping[str, Any] | None = None,
    random: int | None = None,
    population: int | None = None,
    population_every: int | None = None,
    truncation: float = 0.2,
    perturbation: float = 1.25,
    symbols: list[str] | None = None,
    signals: list[str] | None = None,
    total_timesteps: int = 1_000_000,
    settings: dict[str, dict[str, Any]] | None = None,
    preprocessing: bool = True,
    closes_only: bool = False,
    intersection: bool = False,
    train_fraction: float = 0.7,
    validation_fraction: float = 0.15,
    evaluations: int = 20,
    log_rows: int = 20,
    devices: int = 1,
    wave_members: int | None = None,
    ray: str | None = None,
    optuna: str | None = None,
    optuna_study: str | None = None,
    optuna_batch: int = 16,
    skip_posterior: bool = False,
    out: Path | str | None = None,
    resume: Path | str | None = None,
    checkpoint_seconds: float = 60.0,
    progress: bool = False,
    command: str | None = None,
) -> SweepResult:
    """Train every symbol, seed and setting, choose by validation, test what was chosen once.

    All members of one shape train in one compiled program, in waves that fit into memory. Each
    is the run that `tradax.train` would make of it, to float tolerance.

    Args:
        algorithm, env, data, symbols, signals, settings and what is not named here: as for
            `tradax.train`; `env` is a name, or the `Config` of a market.
        seeds: so many from 0, or which.
        grid: "ppo.learning_rate" -> values; every combination is tried.
        ranges: "ppo.learning_rate" -> "log:1e-5:1e-2"; see `tradax.sweeps.grid.space`.
        random: so many settings drawn from `ranges`, and from the lists of `grid`.
        population: population-based training: so many members of each symbol and seed start from
            settings drawn from `ranges`, and learn from each other.
        population_every: environment steps of a member between their rounds, a twentieth of the
            run by default. In each the worst `truncation` of a population, at least one, copy
            random ones of the best, and multiply or divide each setting by `perturbation`.
        devices: share the members between so many.
        wave_members: members of a wave at most; by default as many as fit into memory, and with
            `ray` so few that all of the cluster is busy.
        ray: waves are tasks of a ray cluster: "auto", "local" or an address; `devices` are those
            of a wave. See docs/cluster.md.
        optuna: address of a storage; `random` settings are proposed by Optuna, `optuna_batch` at a
            time, and what each was worth is told to the study `optuna_study` (by default, one of
            this sweep's own).
        resume: a sweep's folder to go on with; everything else is then as it was.

    Raises:
        TradaxError: bad data or options, before anything is compiled or written.
    """
    if checkpoint_seconds < 0:
        raise ConfigError(f"checkpoint_seconds is {checkpoint_seconds}; it must be at least 0")
    if ray is not None:
        ray_cluster.check_installed()
    if optuna is not None:
        optuna_search.check_installed()
    frame = in_memory(data)
    folder = None if resume is None else Path(resume)
    if folder is not None:
        request = results.read_sweep(folder)
        frame = saved_frame(request.request({}), folder)
    else:
        algorithm, settings = named("algorithms", algorithm, dict(settings or {}))
        env, settings = named("envs", env, settings)
        if not preprocessing:
            settings = without_indicators(settings)
        run = Request(
            algorithm=algorithm,
            env=env,
            data="frame" if frame is not None else plain_data(data, env),
            symbols=symbols,
            signals=signals,
            closes_only=closes_only,
            intersection=intersection,
            total_timesteps=total_timesteps,
            train_fraction=train_fraction,
            validation_fraction=validation_fraction,
            evaluations=evaluations,
            log_rows=log_rows,
            settings=settings,
        )
        tried = grids.space(algorithm, env, grid, ranges)
        plan = asking.population_plan(
            run,
            tried,
            population,
            random=random,
            every=population_every,
            truncation=truncation,
            perturbation=perturbation,
        )
        if optuna is None and optuna_study is not None:
            raise ConfigError("optuna_study names a study of optuna's (optuna, --optuna)")
        batch = None if optuna is None else optuna_batch
        request = SweepRequest(
            run={name: value for name, value in vars(run).items() if name != "seed"},
            seeds=asking.seed_list(seeds),
            settings=asking.first_settings(tried, random, population, batch),
            devices=devices,
            wave_members=wave_members,
            population=plan,
            memory=asking.room(parallel.least(free_memory())) if ray is None else None,
            batch=batch,
        )
    asking.check(request, ray)
    prepared: dict[str, Task] = {}

    def laid_out(request: SweepRequest) -> Layout:
        return lay_out(request, frame=frame, free=request.memory, prepared=prepared)

    def fits(setting: grids.Setting) -> None:
        without_waves(replace(request, settings=[setting]), frame=frame, prepared=prepared)

    if folder is None and optuna is not None:
        request = replace(request, settings=asking.fitting(request.settings, fits))
    layout = laid_out(request)
    if request.population is not None:
        population_of(request, layout.algorithms[0])
    first = request.request({})
    if folder is not None:
        resuming.check_world(first, layout.tasks[0], folder)
    with contextlib.ExitStack() as stack:
        cluster, free = None, free_memory()
        if ray is not None:
            cluster = stack.enter_context(ray_cluster.joined(ray, request.devices))
            free = ray_cluster.memory(cluster)
            if folder is None:
                request = asking.for_cluster(request, layout, cluster, free, random)
                layout = laid_out(request)
        asking.check_room(layout, free)
        if not parallel.is_first():
            stopped = _train(request, layout, folder, None, checkpoint_seconds, progress=False)
            parallel.leave()
            return SweepResult(Path(), [], [], request.settings, {}, stopped)
        if resume is None and optuna is not None:
            study = optuna_study or f"{first.env}-{first.algorithm}-{optuna_search.token()}"
            search = Search(optuna, study, random or 0, choices=grid or {}, ranges=ranges or {})
        else:
            search = Search.of(request, optuna)
        if folder is None:
            name = f"{run_directory.symbol_folder(first.env)}-{first.algorithm}-sweep"
            folder = run_directory.create(out, name)
        if cluster is not None:
            ray_cluster.check_folder(cluster, folder)
        new = resume is None and cluster is None  # a cluster's nodes have tried to write there
        stack.enter_context(run_directory.locked(folder, unused=new))
        if resume is None:
            if search is not None:
                asked = search.ask(replace(request, settings=[]), fits)
                assert asked is not None
                request, layout = asked, laid_out(asked)
            _begin(folder, request, layout, frame, command)
        else:
            remove_leftovers(folder)
            if search is not None and (lost := search.abandon()):
                warnings.warn(
                    f"{_count(lost, 'trial')} of the study had begun, and the settings were not "
                    "kept; failed",
                    stacklevel=2,
                )
        if progress:
            print(announcement(request, layout, free), flush=True)
        while True:
            if progress and search is not None:
                print(search.words(request), flush=True)
            stopped = _train(request, layout, folder, cluster, checkpoint_seconds, progress)
            found = results.read_results(folder)
            asked = None
            if search is not None and not stopped:
                search.tell(found)
                asked = search.ask(request, fits)
            if asked is None:
                break
            request, layout = asked, laid_out(asked)
            results.write_sweep(folder, request)
        parallel.leave()
        if stopped:
            return SweepResult(folder, found, [], request.settings, {}, stopped)
        results.keep_returns(folder, request, layout, found)
        return _finish(request, folder, found, skip_posterior)


def announcement(request: SweepRequest, layout: Layout, free: int | None) -> str:
    """What is to be done, and what it takes."""
    one = request.request(request.settings[0])
    symbols = dict.fromkeys(member.symbol for member in layout.members)
    programs = 1 + max(wave.program for wave in layout.waves)
    most = max(wave.bytes for wave in layout.waves)
    room = "" if free is None else f"; {size_words(free)} are free"
    tried = len(request.settings)
    each = _count(tried, "setting") if request.population is None else f"a population of {tried}"
    return (
        f"{_count(len(symbols), 'symbol')} x {_count(len(request.seeds), 'seed')} x "
        f"{each}: {_count(len(layout.members), 'run')} of "
        f"{one.total_timesteps:,} steps, in {_count(len(layout.waves), 'wave')} and "
        f"{_count(programs, 'compiled program')}; a wave holds {size_words(most)}, with "
        f"the program about {size_words(peak(most))} in all{room}"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _begin(
    folder: Path, request: SweepRequest, layout: Layout, frame: Any, command: str | None
) -> None:
    """All that resuming and extracting need; what was asked comes last."""
    task = layout.tasks[0]
    if frame is not None and task.bars is not None:
        with renamed(folder / "bars.parquet") as temporary:
            task.bars.write_parquet(temporary)
    run_directory.write_manifest(
        folder,
        seed=request.seeds[0],
        data=resuming.facts(request.request(request.settings[0]), task),
        command=optuna_search.without_password(command or "tradax.sweep(...) from Python"),
    )
    (folder / "waves").mkdir(exist_ok=True)
    results.write_sweep(folder, request)


def _train(
    request: SweepRequest,
    layout: Layout,
    folder: Path | None,
    cluster: Cluster | None,
    checkpoint_seconds: float,
    progress: bool,
) -> int:
    """All waves that are not done. Returns: the signal that stopped it, or 0."""

    def keep(wave: Wave, found: list[Result]) -> None:
        if folder is not None and parallel.is_first():
            results.write_results(folder, wave.number, found)
            results.write_trials(folder, request, layout, found)

    if folder is not None and parallel.is_first():
        results.write_plan(folder, layout)
    done = [wave.number for wave in layout.waves if folder and results.is_done(folder, wave.number)]
    waves = [wave for wave in layout.waves if wave.number not in done]
    if done and folder is not None and parallel.is_first():  # killed before it was in the ledger
        results.write_trials(folder, request, layout, results.read_results(folder))
    if cluster is not None and folder is not None:
        return ray_tasks.train_waves(
            cluster,
            layout,
            waves,
            folder,
            checkpoint_seconds=checkpoint_seconds,
            keep=keep,
            say=(lambda line: print(line, file=sys.stderr, flush=True)) if progress else _note,
        )
    one = request.request({})
    display = Display(one.total_timesteps * len(waves)) if progress and waves else None
    try:
        for place, wave in enumerate(waves):
            if display is not None:
                display.begin(place * one.total_timesteps)
            found, stopped = train_wave(
                request,
                layout,
                wave,
                folder,
                checkpoint_seconds=checkpoint_seconds,
                hooks=[] if display is None else [display],
            )
            if stopped:
                return stopped
            keep(wave, found)
    finally:
        if display is not None:
            display.close()
    return 0


def _note(line: str) -> None:
    """Nothing is shown."""


def _finish(
    request: SweepRequest, folder: Path, found: list[Result], skip_posterior: bool
) -> SweepResult:
    """Choose on validation, and test what was chosen."""
    settings = request.settings
    lines = table.lines(found)
    write_atomic(folder / "members.csv", results.members_csv(found, request.settings))
    if request.population is not None:
        settings = [Population(**request.population).searched]
        lines = table.lines(table.best_of_populations(found))
    write_atomic(folder / "table.csv", table.csv(lines, settings))
    tested: dict[str, Any] = {}
    for symbol, line in table.winners(lines).items():
        own = folder / "best" / run_directory.symbol_folder(symbol)
        if (own / "summary.json").is_file():
            tested[symbol] = run_directory.read_json(own / "summary.json")
        else:
            shutil.rmtree(own, ignore_errors=True)  # a test that was interrupted
            _, tested[symbol] = extract(folder, line.best, own, skip_posterior=skip_posterior)
    if not tested:
        raise TradaxError(
            f"{folder}: the numbers of every member became NaN or infinite; see `failed` in "
            "trials.jsonl"
        )
    run_directory.write_json(
        folder / "summary.json",
        {
            "members": len(found),
            "failed": sum(result["failed"] is not None for result in found),
            "table": [table.as_dict(line, settings[line.setting]) for line in lines],
            "tested": tested,
        },
    )
    return SweepResult(folder, found, lines, settings, tested, 0)
