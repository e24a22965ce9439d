"""A sweep's folder: what was asked, what each wave found, every member as a trial.

sweep.yaml       everything that was asked for       manifest.json  versions, data hash
members/00017/   policy.zip, policy-last.zip, metrics.jsonl
waves/0003.json  results of a wave that is done      waves/0003/    its checkpoints until then
trials.jsonl     every member                        table.csv      a line a symbol and setting
best/SYMBOL/     run directory of the member that was best on validation, tested
summary.json     the table and the tests
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tradax import run_directory
from tradax.config import checked
from tradax.errors import ConfigError, ModelFileError
from tradax.files import write_atomic, write_json
from tradax.reading import MOST_YAML, check_version, yaml_value
from tradax.sweeps.members import SweepRequest
from tradax.sweeps.wave import Result

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
    shutil.rmtree(checkpoints(folder, wave), ignore_errors=True)


def checkpoints(folder: Path, wave: int) -> Path:
    """Where a wave is saved until it is done."""
    return folder / "waves" / f"{wave:04d}"


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


def write_trials(folder: Path, request: SweepRequest, data_sha256: str | None) -> None:
    """`trials.jsonl` with every member that is done, each once, however often it was tried."""
    lines = []
    for result in read_results(folder):
        setting = request.settings[result["setting"]]
        one = request.request(setting, result["seed"])
        trial = {
            "algorithm": one.algorithm,
            "env": one.env,
            "symbol": result["symbol"],
            "seed": one.seed,
            "timesteps": one.total_timesteps,
            "settings": run_directory.settings_hash(one.settings),
            "data_sha256": data_sha256,
            "member": result["number"],
            "validation_score": result["validation_score"],
            "validation_sharpe": result["validation_sharpe"],
            "failed": result["failed"],
        }
        lines.append(json.dumps(trial, allow_nan=False) + "\n")
    write_atomic(folder / "trials.jsonl", "".join(lines))


def _file(folder: Path, wave: int) -> Path:
    return folder / "waves" / f"{wave:04d}.json"


def summary_of(folder: Path) -> dict[str, Any]:
    """What `summary.json` says."""
    return run_directory.read_json(folder / "summary.json")
