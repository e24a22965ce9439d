"""What each command of the command line can be told; its help is made of this."""

import dataclasses
from typing import Any, Literal

import tyro

from tradax.errors import TradaxError

_TEST_RUN_TIMESTEPS = 20_000


@dataclasses.dataclass(kw_only=True)
class LearnOptions:
    """What every training is told."""

    algorithm: str = "ppo"
    """How to learn; see `tradax list`."""
    env: str = "trading"
    """A market (see `tradax list`), a gymnax name such as CartPole-v1, or Gymnasium's after
    gymnasium: (gymnasium:CartPole-v1), which is stepped on the host."""
    data: tuple[str, ...] = ()
    """Sample name(s), or CSV or Parquet file(s): one a symbol, or one with a symbol column.
    sp500 by default, for markets that trade given prices."""
    symbols: tuple[str, ...] | None = None
    """Which of the data's symbols; all by default."""
    signals: tuple[str, ...] | None = None
    """Which extra columns are features; all numeric ones by default."""
    timesteps: int | None = None
    """Environment steps to train for; 1,000,000 by default. A resumed run goes on to its own."""
    test_run: bool = False
    """A short run (20,000 steps) that shows whether everything works."""
    skip_posterior: bool = False
    """Leave out the Bayesian posterior of the test's Sharpe ratio; `tradax posterior` adds it."""
    no_preprocessing: bool = False
    """Give the agent plain returns and signals: no indicators, no normaliser."""
    closes_only: bool = False
    """The data has no open, high and low; use closes for all of them."""
    intersection: bool = False
    """Keep only the timestamps that all symbols share."""
    train_fraction: float = 0.7
    """Share of rows, the earliest, to train on."""
    validation_fraction: float = 0.15
    """Share of rows, the next, to choose the best policy on; the rest is the test."""
    evaluations: int = 20
    """How often the policy is validated during training."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute."""
    cpu_threads: int | None = None
    """Threads that compute; one a core by default. 1 is faster where minibatches and networks are
    small (a few hundred rows, 64 wide)."""
    gpu_memory_fraction: float | None = None
    """Share of a GPU's memory, over 0 to 1, that this process may take; JAX takes 0.75 by default.
    Of no effect on a CPU."""
    no_preallocate: bool = False
    """Take a GPU's memory as it is needed, not all of the share at the start, so that several
    processes can use one GPU. Of no effect on a CPU."""
    out: str | None = None
    """Folder for the results; runs/ENV-ALGORITHM-1, -2, ... by default, of a sweep
    runs/ENV-ALGORITHM-sweep-1, ..."""
    checkpoint_seconds: float = 60.0
    """Save at least so often what --resume needs, in the background; besides at the end, and of a
    single training at each best evaluation."""
    distributed: bool = False
    """Be one process of a job on several machines: the same command on each. Who is who comes from
    SLURM, from TRADAX_COORDINATOR, TRADAX_PROCESSES and JOB_COMPLETION_INDEX, or from the next
    three options."""
    coordinator: str | None = None
    """HOST:PORT of the first process."""
    process_id: int | None = None
    """Which process this is, from 0."""
    processes: int | None = None
    """How many there are."""
    debug: bool = False
    """Show tracebacks."""

    def use_device(self, simulated: int | None) -> None:
        """Settle where this process computes, and where compiled programs are kept."""
        from tradax import device

        device.use(
            self.device,
            simulated=simulated,
            memory_fraction=self.gpu_memory_fraction,
            preallocate=not self.no_preallocate,
            threads=self.cpu_threads,
        )
        device.keep_compiled_programs()

    def join(self) -> None:
        """Become a process of the job, where it is one; before anything is computed.

        Raises:
            TradaxError: options of a job without one, or the others are not found.
        """
        given = (self.coordinator, self.process_id, self.processes)
        if self.distributed:
            from tradax import parallel

            parallel.join(*given)
        elif any(value is not None for value in given):
            raise TradaxError(
                "--coordinator, --process-id and --processes belong to --distributed; add it"
            )

    def common(self) -> dict[str, Any]:
        """These options as `tradax.train` takes them."""
        return {
            "algorithm": self.algorithm,
            "env": self.env,
            "data": self.data[0] if len(self.data) == 1 else list(self.data) or None,
            "symbols": list(self.symbols) if self.symbols else None,
            "signals": list(self.signals) if self.signals is not None else None,
            "total_timesteps": _TEST_RUN_TIMESTEPS if self.test_run else self.timesteps,
            "preprocessing": not self.no_preprocessing,
            "closes_only": self.closes_only,
            "intersection": self.intersection,
            "skip_posterior": self.skip_posterior,
            "train_fraction": self.train_fraction,
            "validation_fraction": self.validation_fraction,
            "evaluations": 2 if self.test_run else self.evaluations,
            "out": self.out,
            "checkpoint_seconds": self.checkpoint_seconds,
        }


@dataclasses.dataclass(kw_only=True)
class TrainOptions(LearnOptions):
    """Train a policy, test it on held-out data, write a report."""

    seed: int = 0
    """Equal seeds give equal runs on one machine's CPU."""
    controls: int = 0
    """Train so many copies on shuffled prices too, and as many on noise: what the same training
    finds where there is nothing to find."""
    shared_policy: bool = False
    """One policy for all symbols, instead of one each. A portfolio has one anyway."""
    folds: int | None = None
    """Walk forward: cut the test span into so many pieces, and train anew for each on what came
    before it. More rows to test on: lower --train-fraction."""
    rolling: bool = False
    """With --folds: train on as many rows as the first fold has, the latest, not on all."""
    purge_bars: int = 5
    """With --folds: rows left out between training and validation."""
    embargo_bars: int = 5
    """With --folds: rows left out between validation and test."""
    offline: str | None = None
    """Learn from this Parquet file of trajectories only (see `tradax collect`); the environment
    serves for validation and the test. --timesteps counts logged steps."""
    devices: int | None = None
    """Share each update between so many devices: a search's population, a policy gradient's
    environments and gradients; or share out the symbols, where each has a policy. The result is
    that of one device. On a CPU they are simulated."""
    resume: str | None = None
    """Go on with an interrupted run's folder, to the result that it would have had. Its own options
    count; only --timesteps may be given, and grow."""


@dataclasses.dataclass(kw_only=True)
class RunOptions:
    """Test a finished run again, on the same held-out data."""

    run: tyro.conf.Positional[str]
    """A run directory that `tradax train` wrote."""
    skip_posterior: bool = False
    """Leave out the Bayesian posterior."""
    debug: bool = False
    """Show tracebacks."""


@dataclasses.dataclass(kw_only=True)
class RobustnessOptions:
    """Train a finished run's controls, copies on shuffled prices and on noise, and write its
    report.html and summary.json again with them."""

    run: tyro.conf.Positional[str]
    """A run directory that `tradax train` wrote."""
    controls: int = 5
    """Copies of each kind."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute."""
    debug: bool = False
    """Show tracebacks."""


@dataclasses.dataclass(kw_only=True)
class CollectOptions:
    """Let a run's policy act in the environment that it was trained in, and write every step."""

    run: tyro.conf.Positional[str]
    """A run directory that `tradax train` wrote."""
    file: tyro.conf.Positional[str]
    """The Parquet file to write."""
    steps: int = 200_000
    """Steps in all, rounded up to a multiple of num_envs."""
    episodes: int | None = None
    """Whole episodes, so many, instead of steps."""
    num_envs: int = 64
    """Environments side by side, for steps."""
    seed: int = 0
    """Equal seeds give equal files."""
    debug: bool = False
    """Show tracebacks."""


@dataclasses.dataclass(kw_only=True)
class ExportOptions:
    """Write what a run has learned for another program."""

    run: tyro.conf.Positional[str]
    """A run directory that `tradax train` wrote."""
    format: Literal["sb3", "onnx", "joblib"]
    """A model that Stable-Baselines3 loads and trains further, the policy as an ONNX graph, or the
    normaliser of features for scikit-learn."""
    out: str | None = None
    """The file; inside the run directory by default."""
    policy: Literal["best", "last"] = "best"
    """The policy that was best on validation, or the last."""
    with_features: bool = False
    """An ONNX graph that normalises the features too."""
    debug: bool = False
    """Show tracebacks."""


@dataclasses.dataclass(kw_only=True)
class CheckOptions:
    """Print every problem of price files."""

    files: tyro.conf.Positional[tuple[str, ...]]
    """CSV or Parquet files."""
    closes_only: bool = False
    """The files have no open, high and low, and perhaps no volume."""
    debug: bool = False
    """Show tracebacks."""
