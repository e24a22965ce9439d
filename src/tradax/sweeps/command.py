"""The commands `tradax sweep` and `tradax extract`: their options, and what they print."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import tyro

from tradax.errors import ConfigError
from tradax.options import LearnOptions


@dataclasses.dataclass(kw_only=True)
class SweepOptions(LearnOptions):
    """Train every symbol, seed and setting in one compiled program; choose by validation, and test
    what was chosen once. Every member is a trial in trials.jsonl."""

    seeds: int = 16
    """So many seeds from 0 of every symbol and setting."""
    grid: tuple[str, ...] = ()
    """Values to try, each combination: ppo.learning-rate=1e-4,3e-4,1e-3 trading.commission-bps=1,5
    Sizes of layers are written 64x64."""
    range: tuple[str, ...] = ()
    """What --random and --population draw from: ppo.learning-rate=log:1e-5:1e-2 ppo.gamma=0.9:0.999
    ppo.n-steps=int:32:256"""
    random: int | None = None
    """So many random settings, from --range, and from the lists of --grid."""
    population: int | None = None
    """Population-based training: so many members of each symbol and seed start from settings drawn
    from --range, numbers of type float of the algorithm, and learn from each other."""
    population_every: int | None = None
    """Steps of a member between two rounds, in which the worst copy the best and change their
    settings; by default a twentieth of the run."""
    truncation: float = 0.2
    """Share of a population that copies in a round, and of those that are copied; at least one."""
    perturbation: float = 1.25
    """Who has copied multiplies each setting of --range by this, or divides by it."""
    devices: int | None = None
    """Share the members between so many; by default all, and on a CPU one simulated device a
    core, or for each of --cpu-threads."""
    wave_members: int | None = None
    """Members that train at once, at most; by default as many as fit into memory, and with --ray
    so few that all of the cluster is busy."""
    ray: str | None = None
    """Train waves as tasks of a ray cluster: auto (that of this machine), local (started for this
    sweep), HOST:PORT or ray://HOST:PORT. Needs tradax[ray], and a folder that all nodes share.
    --devices is then what a wave takes, 1 by default."""
    optuna: str | None = None
    """Let Optuna propose the --random settings from --range and --grid; the address of its storage,
    such as sqlite:///study.db, which its dashboards show. Needs tradax[optuna]."""
    optuna_study: str | None = None
    """The study in it, which may have trials already; by default a new one."""
    optuna_batch: int = 16
    """Settings that are proposed, and trained, at a time."""
    resume: str | None = None
    """Go on with an interrupted sweep's folder. Its own options count."""


@dataclasses.dataclass(kw_only=True)
class ExtractOptions:
    """Write a member of a sweep as an ordinary run directory: tested, with its report."""

    sweep: tyro.conf.Positional[str]
    """A folder that `tradax sweep` wrote."""
    member: tyro.conf.Positional[int]
    """Its number in members.csv."""
    out: str | None = None
    """The new folder; the sweep's runs/NUMBER by default."""
    skip_posterior: bool = False
    """Leave out the Bayesian posterior."""
    debug: bool = False
    """Show tracebacks."""


def sweep(options: SweepOptions, settings: dict[str, dict[str, Any]], command: str) -> int:
    """Returns: the exit code."""
    from tradax.sweeps.grid import read_choice, read_range

    grid, ranges = dict(map(read_choice, options.grid)), dict(map(read_range, options.range))
    for given, told in ((options.grid, grid), (options.range, ranges)):
        if len(told) < len(given):
            raise ConfigError(f"an option is given twice in {' '.join(given)}")
    from tradax import device, signals

    options.use_device(options.devices or options.cpu_threads or device.cores())
    options.join()
    import jax

    from tradax.sweeps import experiment, table

    asked = options.common() | {"grid": grid, "ranges": ranges, "random": options.random}
    if asked["total_timesteps"] is None:
        asked["total_timesteps"] = 1_000_000
    with signals.second_ends_the_process():
        done = experiment.sweep(
            **asked,
            settings=settings,
            population=options.population,
            population_every=options.population_every,
            truncation=options.truncation,
            perturbation=options.perturbation,
            seeds=options.seeds,
            devices=options.devices or (len(jax.devices()) if options.ray is None else 1),
            wave_members=options.wave_members,
            ray=options.ray,
            optuna=options.optuna,
            optuna_study=options.optuna_study,
            optuna_batch=options.optuna_batch,
            resume=options.resume,
            progress=True,
            command=command,
        )
    if done.run_dir == Path():  # the first process says the rest
        return 128 + done.interrupted if done.interrupted else 0
    if done.interrupted:
        how = f"--resume {done.run_dir}" + (f" --ray {options.ray}" if options.ray else "")
        print(f"interrupted; go on with: tradax sweep {how}", file=sys.stderr)
        return 128 + done.interrupted
    table.print_table(done.table, done.settings, done.tested)
    print(f"table: {done.run_dir / 'table.csv'}\nreports: {done.run_dir / 'best'}")
    return 0


def extract(options: ExtractOptions) -> int:
    """Returns: the exit code."""
    from tradax import device

    device.keep_compiled_programs()
    from tradax.reporting.terminal import print_summary
    from tradax.sweeps.extract import extract as extract_member

    folder, summary = extract_member(
        options.sweep, options.member, options.out, skip_posterior=options.skip_posterior
    )
    print_summary(summary)
    print(f"run: {folder}")
    return 0
