"""The command line: arguments in, calls out.

Options of algorithms and environments are read from their source text, and nothing of JAX is
imported before a command runs, so that help comes at once.
"""

import dataclasses
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from tradax import discovery
from tradax.config import Field
from tradax.errors import LostProcessError, TradaxError
from tradax.options import (
    CheckOptions,
    CollectOptions,
    ExportOptions,
    LearnOptions,
    RobustnessOptions,
    RunOptions,
    TrainOptions,
)

T = TypeVar("T", bound=LearnOptions)

_COMMANDS = {
    "train": "train a policy, test it on held-out data, write a report",
    "sweep": "train many symbols, seeds and settings at once, choose by validation",
    "extract": "write a member of a sweep as an ordinary run directory",
    "evaluate": "test a run's policy again and print the figures",
    "report": "write a run's report.html and summary.json again",
    "robustness": "train a run's policy again on destroyed prices, to compare with",
    "collect": "let a run's policy act and write every step, to learn from later",
    "export": "write a run's policy for Stable-Baselines3, ONNX or scikit-learn",
    "act": "orders of a run's policy for the next bar, or for a stream of bars",
    "compare": "one page for several finished runs",
    "serve": "a live local page of a directory of runs",
    "posterior": "sample the posterior of a run's test, and write its report again",
    "trials": "every policy that was trained on some data, and its Sharpe ratio",
    "doctor": "versions, devices, memory and a self-test, for a bug report",
    "data check": "print every problem of price files",
    "list": "algorithms, markets and sample data",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, 2 for what a user can mend, 130, 143: stopped."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return _dispatch(arguments)
    except TradaxError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr, flush=True)
        if isinstance(error, LostProcessError):
            os._exit(TradaxError.exit_code)  # leaving in order would wait for the one that is lost
        return TradaxError.exit_code
    except BrokenPipeError:
        # The reader of a pipe has gone; Python would complain once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a full disk, say, where no other message was thought of
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return TradaxError.exit_code
    except KeyboardInterrupt:
        if debug:
            raise
        print("interrupted", file=sys.stderr)
        return 130


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        from tradax import __version__

        print(f"tradax {__version__}")
        return 0
    if arguments[0] == "data" and arguments[1:2] == ["check"]:
        return _check(_parse(CheckOptions, "tradax data check", arguments[2:]))
    match arguments[0]:
        case "train":
            return _train(arguments[1:])
        case "sweep":
            return _sweep(arguments[1:])
        case "extract":
            return _extract(arguments[1:])
        case "evaluate":
            return _evaluate(_parse(RunOptions, "tradax evaluate", arguments[1:]))
        case "report":
            return _report(_parse(RunOptions, "tradax report", arguments[1:]))
        case "robustness":
            return _robustness(_parse(RobustnessOptions, "tradax robustness", arguments[1:]))
        case "collect":
            return _collect(_parse(CollectOptions, "tradax collect", arguments[1:]))
        case "export":
            return _export(_parse(ExportOptions, "tradax export", arguments[1:]))
        case "act":
            return _act(arguments[1:])
        case "compare":
            return _compare(arguments[1:])
        case "serve":
            return _serve(arguments[1:])
        case "posterior":
            return _posterior(arguments[1:])
        case "trials":
            return _trials(arguments[1:])
        case "doctor":
            return _doctor(arguments[1:])
        case "list":
            return _list()
    import difflib

    close = difflib.get_close_matches(" ".join(arguments[:2]), _COMMANDS, n=1, cutoff=0.4)
    hint = f"; did you mean tradax {close[0]}?" if close else ""
    raise TradaxError(f"no command {arguments[0]}{hint}\n\n{_usage()}")


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _parse(options: type, command: str, arguments: list[str]) -> Any:
    return tyro.cli(options, prog=command, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))


def _usage() -> str:
    width = max(map(len, _COMMANDS))
    lines = [f"  tradax {name:<{width}}  {text}" for name, text in _COMMANDS.items()]
    return (
        "tradax learns trading and execution policies from market data.\n\n"
        + "\n".join(lines)
        + "\n\nEvery command explains its options with --help."
    )


def _train(arguments: list[str]) -> int:
    options, settings = _parse_learning(TrainOptions, "tradax train", arguments)
    options.use_device(options.devices)
    options.join()
    from tradax import resuming, signals
    from tradax.experiment import train

    if options.resume is not None and options.out is not None:
        raise TradaxError("--resume goes on in the run's own folder; leave out --out")

    resume = options.resume or resuming.from_out(options.out, ["train", *arguments])
    with signals.second_ends_the_process():
        result = train(
            **options.common(),
            seed=options.seed,
            settings=settings,
            controls=options.controls,
            shared_policy=options.shared_policy,
            folds=options.folds,
            rolling=options.rolling,
            purge_bars=options.purge_bars,
            embargo_bars=options.embargo_bars,
            offline=options.offline,
            resume=resume,
            devices=options.devices,
            progress=True,
            command=" ".join(["tradax train", *arguments]),
        )
    if result.run_dir == Path():
        return (
            128 + result.interrupted if result.interrupted else 0
        )  # the first process says the rest
    if result.interrupted:
        print(f"interrupted; go on with: tradax train --resume {result.run_dir}", file=sys.stderr)
        return 128 + result.interrupted
    from tradax.reporting.terminal import print_summary

    print_summary(result.summary)
    print(_where(result.run_dir, result.summary))
    return 0


def _sweep(arguments: list[str]) -> int:
    from tradax.sweeps import command

    options, settings = _parse_learning(command.SweepOptions, "tradax sweep", arguments)
    return command.sweep(options, settings, " ".join(["tradax sweep", *arguments]))


def _extract(arguments: list[str]) -> int:
    from tradax.sweeps import command

    return command.extract(_parse(command.ExtractOptions, "tradax extract", arguments))


def _parse_learning(
    base: type[T], command: str, arguments: list[str]
) -> tuple[T, dict[str, dict[str, Any]]]:
    """The general options, and those of the chosen algorithm, environment and features.

    Args:
        base: `LearnOptions` or what extends them.
    """
    chosen = {
        "algorithm": _peek(arguments, "--algorithm", "ppo"),
        "env": _peek(arguments, "--env", "trading"),
    }
    if chosen["algorithm"] not in discovery.algorithms():
        discovery.module("algorithms", chosen["algorithm"])  # raises, naming near ones
    sections = {chosen["algorithm"]: discovery.options("algorithms", chosen["algorithm"])}
    if chosen["env"] in discovery.environments():
        sections[chosen["env"]] = discovery.options("envs", chosen["env"])
        if "rivals" in discovery.functions("envs", chosen["env"]):
            sections["features"] = discovery.options("data", "features")
    classes = {name: _options_class(name, declared) for name, declared in sections.items()}
    fields = [
        (name, kind, dataclasses.field(default_factory=kind)) for name, kind in classes.items()
    ]
    options_class = dataclasses.make_dataclass("Learning", fields, bases=(base,), kw_only=True)
    options_class.__doc__ = base.__doc__
    options = _parse(options_class, command, arguments)
    settings = {}
    for name, section_fields in sections.items():
        given = getattr(options, name)
        changed = {
            f.name: getattr(given, f.name)
            for f in section_fields
            if getattr(given, f.name) != f.default
        }
        if changed:
            settings[name] = {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in changed.items()
            }
    return options, settings


def _options_class(name: str, options: list[Field]) -> type:
    """A dataclass for tyro from what the source text declares."""
    return dataclasses.make_dataclass(
        name,
        [
            (
                option.name,
                Annotated[option.kind, tyro.conf.arg(help=option.doc)],
                dataclasses.field(default=option.default),
            )
            for option in options
        ],
        frozen=True,
    )


def _peek(arguments: list[str], option: str, default: str) -> str:
    """The value of an option that decides which other options there are."""
    for index, argument in enumerate(arguments):
        if argument == option and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(option + "="):
            return argument.split("=", 1)[1]
    return default


def _evaluate(options: RunOptions) -> int:
    from tradax import device

    device.keep_compiled_programs()
    from tradax.held_out import retest
    from tradax.reporting.terminal import print_summary

    print_summary(retest(options.run, skip_posterior=options.skip_posterior, write=False))
    return 0


def _report(options: RunOptions) -> int:
    from tradax import device

    device.keep_compiled_programs()
    from tradax import run_directory
    from tradax.held_out import retest

    run_directory.check_finished(Path(options.run))
    outcome = retest(options.run, skip_posterior=options.skip_posterior, write=True)
    print(_where(options.run, outcome))
    return 0


def _robustness(options: RobustnessOptions) -> int:
    from tradax import device

    device.use(options.device)
    device.keep_compiled_programs()
    from tradax import controls, run_directory, signals
    from tradax.held_out import retest
    from tradax.preparation import read_request

    run_directory.check_finished(Path(options.run))

    with signals.second_ends_the_process():
        if signal := controls.add(options.run, options.controls, progress=True):
            return 128 + signal
    request = read_request(Path(options.run))
    outcome = retest(options.run, skip_posterior=request.skip_posterior)
    print(_where(options.run, outcome))
    return 0


def _collect(options: CollectOptions) -> int:
    from tradax import device

    device.keep_compiled_programs()
    from tradax.offline import collect

    log = collect(
        options.run,
        path=options.file,
        n_steps=options.steps if options.episodes is None else None,
        episodes=options.episodes,
        num_envs=options.num_envs,
        seed=options.seed,
    )
    ended = log.returns[log.finished]
    mean = f" with a mean return of {ended.mean():.4g}" if len(ended) else ""
    print(
        f"{options.file}: {len(log):,} steps in {len(log.ends):,} episodes, {len(ended):,} of them "
        f"finished{mean}"
    )
    return 0


def _export(options: ExportOptions) -> int:
    from tradax.exporting import export

    o = options
    files = export(o.run, o.format, out=o.out, policy=o.policy, with_features=o.with_features)
    print(*files, sep="\n")
    return 0


def _act(arguments: list[str]) -> int:
    from tradax.serving import command

    return command.act(_parse(command.ActOptions, "tradax act", arguments))


def _compare(arguments: list[str]) -> int:
    from tradax import comparing

    return comparing.command(_parse(comparing.CompareOptions, "tradax compare", arguments))


def _serve(arguments: list[str]) -> int:
    from tradax import dashboard

    return dashboard.command(_parse(dashboard.ServeOptions, "tradax serve", arguments))


def _posterior(arguments: list[str]) -> int:
    from tradax import adding_posterior

    options = _parse(adding_posterior.PosteriorOptions, "tradax posterior", arguments)
    return adding_posterior.posterior(options)


def _trials(arguments: list[str]) -> int:
    from tradax import trials

    return trials.trials(_parse(trials.TrialsOptions, "tradax trials", arguments))


def _doctor(arguments: list[str]) -> int:
    from tradax import doctor

    return doctor.doctor(_parse(doctor.DoctorOptions, "tradax doctor", arguments))


def _check(options: CheckOptions) -> int:
    from tradax.data.bars import check_file

    if not options.files:
        raise TradaxError("give the files to check: tradax data check FILE ...")
    found = 0
    for file in options.files:
        problems = check_file(file, closes_only=options.closes_only)
        found += len(problems)
        for problem in problems or [f"{file}: no problem found"]:
            print(problem)
    return TradaxError.exit_code if found else 0


def _list() -> int:
    from tradax.data.samples import SAMPLES

    for title, items in (
        ("algorithms (--algorithm)", discovery.algorithms()),
        ("markets (--env); any gymnax name and gymnasium:NAME work too", discovery.environments()),
        ("sample data (--data)", SAMPLES),
    ):
        print(title)
        width = max(map(len, items))
        for name, text in items.items():
            print(f"  {name:<{width}}  {text}")
        print()
    return 0


def _where(folder: Any, summary: dict[str, Any]) -> str:
    reports = sorted(Path(folder).glob("**/report.html"))
    return "\n".join(f"report: {path}" for path in reports) or f"results: {folder}"
