"""A sweep's folder: what was asked, what each wave found, every member as a trial.

sweep.yaml       everything that was asked for       manifest.json  versions, data hash
members/00017/   policy.zip, policy-last.zip, metrics.jsonl; of a population settings.jsonl
plan.json        how many waves and members there are, for `tradax serve`
waves/0003.json  results of a wave that is done      waves/0003/    its checkpoints until then
waves/0003.safetensors  its members' validation returns; validation_returns.parquet  those of all
members.csv      what every member scored            table.csv      a line a symbol and setting
trials.jsonl     every member
best/SYMBOL/     run directory of the member that was best on validation, tested
summary.json     the table and the tests
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tradax import kept_returns, run_directory
from tradax.config import checked
from tradax.errors import ConfigError, ModelFileError
from tradax.files import write_atomic, write_json
from tradax.held_out import trial_of
from tradax.ledger import Trial, add_trials
from tradax.preparation import Task
from tradax.reading import MOST_YAML, check_version, yaml_value
from tradax.sweeps.grid import Setting, words
from tradax.sweeps.members import Layout, SweepRequest
from tradax.sweeps.wave import Result, checkpoints_of, saved_returns

_FORMAT = 1


def write_sweep(folder: Path, request: SweepRequest) -> None:
    """The last file of a new sweep: from here on it can be resumed.

    Raises:
        ConfigError: it would be larger than what `read_sweep` reads.
    """
    import yaml

    plain = {"format": _FORMAT} | vars(request)
    text = yaml.safe_dump(plain, sort_keys=False)
    if len(text.encode()) > MOST_YAML:
        raise ConfigError(
            f"{len(request.settings)} settings take {len(text)} bytes of sweep.yaml, and "
            f"{MOST_YAML} are read; try fewer in one sweep"
        )
    write_atomic(folder / "sweep.yaml", text)


def read_sweep(folder: Path) -> SweepRequest:
    """Raises ModelFileError where `folder` holds no sweep, or one of a newer version."""
    path = folder / "sweep.yaml"
    if not path.is_file():
        raise ModelFileError(f"{folder}: no sweep here; `tradax sweep` makes one")
    plain = yaml_value(path)
    if not isinstance(plain, dict):
        raise ModelFileError(f"{path}: not a sweep")
    check_version(plain.pop("format", None), _FORMAT, path)
    return checked(SweepRequest, plain, str(path))


def write_results(folder: Path, wave: int, results: Sequence[Result]) -> None:
    """Say that a wave is done; its checkpoints are no longer needed."""
    write_json(_file(folder, wave), {"format": _FORMAT, "members": list(results)})
    shutil.rmtree(checkpoints_of(folder, wave), ignore_errors=True)


def write_plan(folder: Path, layout: Layout) -> None:
    """What is to be done, for those who watch."""
    plan = {"format": _FORMAT, "waves": len(layout.waves), "members": len(layout.members)}
    write_json(folder / "plan.json", plan)


def is_done(folder: Path, wave: int) -> bool:
    return _file(folder, wave).is_file()


def read_results(folder: Path) -> list[Result]:
    """Of all waves that are done, in the order of members."""
    results = []
    for path in sorted((folder / "waves").glob("*.json")):
        found = run_directory.read_json(path)
        if not isinstance(found, dict) or not isinstance(found.get("members"), list):
            raise ModelFileError(f"{path}: no results of a wave")
        check_version(found.get("format"), _FORMAT, path)
        results += found["members"]
    return sorted(results, key=lambda result: result["number"])


def write_trials(
    folder: Path, request: SweepRequest, layout: Layout, results: Sequence[Result]
) -> None:
    """Members that are done into `trials.jsonl` and the user's index, each once."""
    add_trials(folder, _trials(request, layout, results))


def keep_returns(
    folder: Path, request: SweepRequest, layout: Layout, results: Sequence[Result]
) -> None:
    """Put the validation returns of all waves into the one file that reports read."""
    trials = _trials(request, layout, results)
    ids = {result["number"]: trial.id for result, trial in zip(results, trials, strict=True)}
    kept: dict[str, kept_returns.Series] = {}
    for wave in layout.waves:
        found = saved_returns(folder, wave.number)
        task = layout.tasks[wave.members[0].setting]
        if task.pipeline is None or found is None:
            continue
        span = task.pipeline.splits.validation
        stamps = task.markets[0][0].timestamps[span.first + 1 : span.last + 1]
        for member, returns in zip(wave.members, found, strict=True):
            if member.number in ids:
                kept[ids[member.number]] = kept_returns.Series(stamps, returns)
    kept_returns.write_returns(folder, kept)


def _trials(request: SweepRequest, layout: Layout, results: Sequence[Result]) -> list[Trial]:
    own: dict[tuple[int, str], Task] = {}
    trials = []
    for result in results:
        number, symbol = result["setting"], result["symbol"]
        one = request.request(request.settings[number], result["seed"])
        if (number, symbol) not in own:
            own[number, symbol] = _alone(layout.tasks[number], symbol)
        score = result["validation_score"]
        rows = [] if score is None else [{"validation_score": score}]
        trials.append(trial_of(one, own[number, symbol], rows, symbol))
    return trials


def _alone(task: Task, symbol: str) -> Task:
    """With the bars that a run of this symbol would have had, so that it is the same trial."""
    if task.bars is None or symbol not in task.bars.symbols:
        return task
    return task._replace(bars=task.bars.select([symbol]))


def members_csv(results: Sequence[Result], settings: Sequence[Setting]) -> str:
    """A line a member: what it is, and what validation said."""
    import polars as pl

    rows = [
        {
            "member": result["number"],
            "symbol": result["symbol"],
            "seed": result["seed"],
            "setting": words(settings[result["setting"]]),
            "validation_score": result["validation_score"],
            "validation_sharpe": result["validation_sharpe"],
            "failed": result["failed"],
        }
        for result in results
    ]
    return pl.DataFrame(rows, infer_schema_length=None).write_csv()


def _file(folder: Path, wave: int) -> Path:
    return folder / "waves" / f"{wave:04d}.json"
