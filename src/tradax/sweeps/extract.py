"""One member of a sweep as an ordinary run directory."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from tradax import discovery, resuming, run_directory
from tradax.errors import TradaxError
from tradax.files import renamed
from tradax.held_out import retest
from tradax.preparation import Request, needs_bars, prepare, saved_frame
from tradax.sweeps.members import SweepRequest
from tradax.sweeps.results import read_results, read_sweep
from tradax.sweeps.wave import Result, member_folder

_COPIED = ("policy.zip", "policy-last.zip", "metrics.jsonl", "settings.jsonl")


def extract(
    folder: Path | str, number: int, out: Path | str | None = None, *, skip_posterior: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Write a member's run directory, test it on held-out data, and write its report.

    Args:
        folder: of the sweep.
        number: of the member, as in `members.csv`.
        out: a new folder; the sweep's `runs/NUMBER` by default.

    Returns: the folder and the summary of the test.

    Raises:
        TradaxError: no such sweep or member, or the member was not trained or has failed.
    """
    folder = Path(folder)
    sweep = read_sweep(folder)
    results = {result["number"]: result for result in read_results(folder)}
    if number not in results:
        raise TradaxError(
            f"{folder} has no finished member {number}; it has {len(results)}, from 0 on, and "
            "members.csv lists them"
        )
    result = results[number]
    own = member_folder(folder, number)
    if not (own / "policy.zip").is_file():
        raise TradaxError(f"{folder}: member {number} has no policy: {result['failed']}")
    request, frame = _request(sweep, result, folder)
    task = prepare(request, frame=frame)
    target = run_directory.create(
        folder / "runs" / f"{number:05d}" if out is None else out, f"{number:05d}"
    )
    with run_directory.locked(target):
        if request.data == "frame" and task.bars is not None:
            with renamed(target / "bars.parquet") as temporary:
                task.bars.write_parquet(temporary)
        for name in _COPIED:
            if (own / name).is_file():
                with renamed(target / name) as temporary:
                    shutil.copyfile(own / name, temporary)
        if task.pipeline is not None:
            task.pipeline.save(target)
            task.pipeline.write_joblib(target)
        run_directory.write_manifest(
            target,
            seed=request.seed,
            data=resuming.facts(request, task),
            command=f"tradax extract {folder} {number}",
        )
        run_directory.write_config(target, vars(request))
        return target, retest(target, skip_posterior=skip_posterior)


def _request(sweep: SweepRequest, result: Result, folder: Path) -> tuple[Request, Any]:
    """The member's request as if it were trained alone, and its bars where they are kept."""
    request = sweep.request(sweep.settings[result["setting"]], result["seed"])
    frame = saved_frame(request, folder)
    module = discovery.module("envs", request.env) if needs_bars(request.env) else None
    if module is not None and not getattr(module, "HOLDS_ALL_SYMBOLS", False):
        if request.intersection and frame is None:
            # Alone it would have timestamps that others lack.
            frame = prepare(request).bars
            request = replace(request, data="frame", signals=None)
        frame = None if frame is None else frame.select([result["symbol"]])
        request = replace(request, symbols=[result["symbol"]])
    return request, frame
