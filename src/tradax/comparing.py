"""The command `tradax compare`: one page for several finished runs."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tradax.errors import ConfigError, TradaxError

if TYPE_CHECKING:
    from tradax.evaluation.comparison import Walk
    from tradax.preparation import Request
    from tradax.reporting.comparison import Compared


@dataclasses.dataclass(kw_only=True)
class CompareOptions:
    """One HTML page for several finished runs: figures on the bars that all were tested on, and
    whether the best of them is better than chance.

    The policies walk their test spans again, which are counted as touched already."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Run directories; also a sweep's best/SYMBOL and extracted members. A run of several symbols
    counts with each, RUN/SYMBOL with that one."""
    out: str = "compare.html"
    """The page to write. A page of this command is overwritten, another file is not."""
    skip_posterior: bool = False
    """Leave out the posterior's probabilities, which the runs' own reports have."""
    debug: bool = False
    """Show tracebacks."""


def command(options: CompareOptions) -> int:
    """Returns: the exit code."""
    from tradax import device

    device.keep_compiled_programs()
    print(
        f"comparison: {compare(options.runs, options.out, skip_posterior=options.skip_posterior)}"
    )
    return 0


def compare(
    runs: Sequence[Path | str], out: Path | str = "compare.html", *, skip_posterior: bool = False
) -> Path:
    """Write the page of these runs. Adds no trials: the runs have been tested before.

    Raises:
        TradaxError: runs that cannot be compared, all of them named, or `out` is another file.
    """
    from tradax.evaluation import comparison
    from tradax.files import write_atomic
    from tradax.reporting.comparison import render

    out = Path(out)
    _check_out(out)
    if not runs:
        raise ConfigError("give one run directory or more")
    tested, told, problems = [], [], []
    for path, name in _named(runs).items():
        try:
            for one, facts, request in _opened(path, name):
                tested.append(one)
                told.append((facts, request))
        except TradaxError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise TradaxError("\n".join(problems))
    found = comparison.compare(tested)
    differing = _differing([request for _, request in told])
    compared = [
        dataclasses.replace(facts, options=options)
        for (facts, _), options in zip(told, differing, strict=True)
    ]
    write_atomic(out, render(compared, found, posterior=not skip_posterior))
    return out


def _check_out(out: Path) -> None:
    """Raises ConfigError where there is something that this command did not write."""
    from tradax.reporting.comparison import MARK

    if not out.exists():
        return
    try:
        with out.open("rb") as file:
            if MARK.encode() in file.read(2**16):
                return
    except OSError:  # a folder, or not ours to read
        pass
    raise ConfigError(f"{out} exists and is no page of tradax compare; give another --out")


def _named(runs: Sequence[Path | str]) -> dict[Path, str]:
    """Each run once, by as many last parts of its path as tell it from the others.

    A run of a sweep is called after the sweep too: best/sp500 alone says nothing.
    """
    paths = list({Path(run).resolve(): Path(run) for run in runs})

    def ends(path: Path, length: int) -> tuple[str, ...]:
        return path.resolve().parts[-length:]

    names = {}
    for path in paths:
        length = 3 if (path.resolve().parents[1] / "sweep.yaml").is_file() else 1
        while sum(ends(other, length) == ends(path, length) for other in paths) > 1:
            length += 1
        names[path] = str(Path(*ends(path, length)))
    return names


def _opened(path: Path, name: str) -> "list[tuple[Walk, Compared, Request]]":
    """A run's policies on their test spans, one a symbol.

    Raises:
        TradaxError: no finished run, or one whose test has no net worth over dates.
    """
    from tradax import resuming, run_directory, walks
    from tradax.evaluation.backtest import symbol_of
    from tradax.preparation import needs_bars, read_request, reopen

    folder, only = path, None
    if not (path / "config.yaml").is_file():
        if (path / "sweep.yaml").is_file():
            raise ConfigError(
                "is a sweep; give its best/SYMBOL, or members that `tradax extract` wrote"
            )
        if (path.parent / "config.yaml").is_file():
            folder, only = path.parent, path.name
    request = read_request(folder)
    if not needs_bars(request.env):
        raise ConfigError(
            f"{request.env} does not trade given prices, so there is no net worth over dates to "
            "compare; leave it out"
        )
    if run_directory.is_unfinished(folder):
        raise ConfigError(f"was not tested yet; finish it: tradax train --resume {folder}")
    _, task = reopen(folder)
    resuming.check_data(folder, task)
    policies = walks.tested_policies(task, walks.saved_policies(request, task))
    summary = run_directory.read_json(folder / "summary.json")
    found = []
    for index, market in enumerate(task.markets):
        symbol = symbol_of(market)
        if only not in (None, run_directory.symbol_folder(symbol)):
            continue
        several = len(task.markets) > 1
        found.append(
            _walked(
                f"{name} {symbol}" if several and only is None else name,
                folder,
                (request, task, policies[index], index),
                _within(summary, "symbols", symbol) if several else summary,
            )
        )
    if not found:
        raise ConfigError(f"{folder} has no symbol {only}")
    return found


def _walked(
    name: str, folder: Path, walk: tuple[Any, ...], summary: Any
) -> "tuple[Walk, Compared, Request]":
    """Args: walk: what `walks.walked` takes."""
    import numpy as np

    from tradax import held_out, ledger, walks
    from tradax.evaluation.comparison import Walk
    from tradax.evaluation.sharpe import deflated_sharpe
    from tradax.reporting.charts import dates
    from tradax.reporting.comparison import Compared

    request, task, _, index = walk
    backtest = walks.walked(*walk)
    rows = walks.learned_rows(task, index)
    trial = held_out.trial_of(request, task, rows, backtest.symbol, backtest)
    record = ledger.record(trial, folder)
    curve = backtest.policy
    deflated = None
    if record is not None:
        returns = np.nan_to_num(curve.returns)
        deflated = deflated_sharpe(
            returns,
            np.array(record.sharpes),
            record.tested,
            least_deviation=1.0 / math.sqrt(len(returns)),
        )
    first, last = dates(curve.timestamps[[0, -1]])
    facts = Compared(
        name=name,
        algorithm=request.algorithm,
        market=request.env,
        symbol=backtest.symbol,
        seed=request.seed,
        timesteps=rows[-1]["timesteps"] if rows else 0,
        tested=(first, last),
        bars=len(curve.returns),
        grade=_of(_within(summary, "verdict", "grade"), str),
        validation_score=trial.validation_score,
        deflated_sharpe=deflated,
        record=record,
        p_positive=_of(_within(summary, "posterior", "p_positive"), float),
        p_beats_benchmark=_of(_within(summary, "posterior", "p_beats_benchmark"), float),
        look_ahead=backtest.look_ahead,
    )
    per_year = task.markets[index][0].periods_per_year
    return Walk(name, backtest, per_year), facts, request


def _within(value: Any, *names: str) -> Any:
    """Of nested objects of a file that may hold anything."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _of(value: Any, kind: type) -> Any:
    return value if isinstance(value, kind) else None


def _differing(requests: "Sequence[Request]") -> list[dict[str, Any]]:
    """Of each run the options that differ between the runs.

    Where only some have a section at all, as with different algorithms: those that are not at their
    default, or differ among those that have it.
    """
    from tradax.held_out import all_settings

    own = [_flat(all_settings(request)) | _general(request) for request in requests]
    plain = [_flat(all_settings(dataclasses.replace(request, settings={}))) for request in requests]
    shown = []
    for name in dict.fromkeys(name for options in own for name in options):
        values = [options[name] for options in own if name in options]
        changed = any(name in o and o[name] != p.get(name) for o, p in zip(own, plain, strict=True))
        differs = any(value != values[0] for value in values[1:])
        if differs or (changed and len(values) < len(own)):
            shown.append(name)
    return [{name: options[name] for name in shown if name in options} for options in own]


def _flat(settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        f"{section}.{name}": value
        for section, options in settings.items()
        for name, value in options.items()
    }


_TOLD = {"algorithm", "env", "symbols", "seed", "total_timesteps"}
_NO_MATTER = {"settings", "skip_posterior", "controls", "log_rows"}


def _general(request: "Request") -> dict[str, Any]:
    """Options of no section, but for those that every table has."""
    return {k: v for k, v in vars(request).items() if k not in _TOLD | _NO_MATTER}
