"""The test on data that training never saw: figures, and a report for each policy."""

import dataclasses
import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tradax import controls, discovery, kept_returns, ledger, run_directory
from tradax.config import section, to_dict
from tradax.data import features, samples
from tradax.evaluation.backtest import Backtest, symbol_of
from tradax.evaluation.evidence import excess_per_bar
from tradax.evaluation.posterior import Sampling, sharpe_posterior
from tradax.evaluation.robustness import Piece, outcome, robustness
from tradax.evaluation.scoring import evaluate
from tradax.evaluation.sharpe import sharpe_ratio
from tradax.evaluation.verdict import assess
from tradax.files import write_atomic
from tradax.hooks import read_rows
from tradax.preparation import OF_FOLDS, Request, Task, data_facts, needs_bars, reopen
from tradax.protocols import Policy
from tradax.reporting.folds import folds_part
from tradax.reporting.frame import Part
from tradax.reporting.luck import luck_part
from tradax.reporting.page import Report, summary, write_report
from tradax.reporting.posterior import posterior_part
from tradax.reporting.robustness import robustness_part
from tradax.reporting.series import csv_files
from tradax.reporting.simulated import write_simulated
from tradax.reporting.trades import trades_part
from tradax.resuming import check_data
from tradax.rollout import JaxSource
from tradax.rows import Row
from tradax.walks import learned_rows, market_source, saved_policies, tested_policies, walked

_OF_TRAINING = ("steps_per_second", "offline")  # entries of summary.json


def held_out_test(
    request: Request,
    task: Task,
    folder: Path,
    policies: Mapping[str, Policy],
    *,
    sampling: Sampling | None = None,
    write: bool = True,
) -> dict[str, Any]:
    """Walk the held-out span with every policy, and write one report a symbol or portfolio.

    Every policy is a trial, which goes into the ledger; the index of trials also where `write` is
    False.

    Returns: the summary: one symbol's, or `{"symbols": {name: summary}}`.
    """
    if not task.markets:
        (policy,) = policies.values()
        source = task.single_sources[0]
        if write:
            rows = read_rows(task.folders[0] / "metrics.jsonl")
            ledger.add_trials(folder, [trial_of(request, task, rows, request.env)])
        if request.env in discovery.environments():
            assert isinstance(source, JaxSource)
            return {"strategies": _simulated(request, task, folder, policy, source, write)}
        score = evaluate(policy, source, seed=request.seed + 1)
        return {"mean_return": score.mean, "std_return": score.std, "episodes": len(score.returns)}
    tested = {}
    walkers = tested_policies(task, policies)
    if write and not task.folds:  # which validate each on a span of its own
        _keep_returns(request, task, folder, walkers)
    for index, (market, policy) in enumerate(zip(task.markets, walkers, strict=True)):
        symbol = symbol_of(market)
        several = len(task.markets) > 1
        symbol_folder = folder / run_directory.symbol_folder(symbol) if several else folder
        report = _report(request, task, folder, policy, index, sampling, write)
        tested[symbol] = summary(report)
        if not write:
            continue
        if several:
            run_directory.write_json(symbol_folder / "summary.json", tested[symbol])
        for name, text in csv_files(report.backtest).items():
            write_atomic(symbol_folder / name, text)
        write_report(symbol_folder / "report.html", report)
    return {"symbols": tested} if len(tested) > 1 else next(iter(tested.values()))


def _keep_returns(request: Request, task: Task, folder: Path, policies: list[Policy]) -> None:
    """Keep what each policy made of the validation span on which it was chosen."""
    module = discovery.module("envs", request.env)
    kept = {}
    for index, (markets, policy) in enumerate(zip(task.markets, policies, strict=True)):
        name = trial_of(request, task, [], symbol_of(markets)).id
        kept[name] = kept_returns.on_validation(
            policy, module, market_source(task, index), task.splits, markets[0].timestamps
        )
    kept_returns.write_returns(folder, kept)


def retest(
    folder: Path | str,
    *,
    skip_posterior: bool = False,
    sampling: Sampling | None = None,
    write: bool = True,
) -> dict[str, Any]:
    """Test a finished run again, on the same held-out data; write its reports if `write`.

    Returns: the summary, as `Result.summary`.

    Raises:
        ModelFileError: not a run directory, or without policies.
        ConfigError: the data changed since training.
    """
    folder = Path(folder)
    request, task = reopen(folder)
    check_data(folder, task)
    request = dataclasses.replace(request, skip_posterior=skip_posterior)
    policies = saved_policies(request, task)
    outcome = held_out_test(request, task, folder, policies, sampling=sampling, write=write)
    # What was said of the training stays: a test does not know it.
    if (folder / "summary.json").exists():
        said = run_directory.read_json(folder / "summary.json")
        outcome = {name: said[name] for name in _OF_TRAINING if name in said} | outcome
    if write:
        run_directory.write_json(folder / "summary.json", outcome)
    return outcome


def _simulated(
    request: Request,
    task: Task,
    folder: Path,
    policy: Policy,
    source: JaxSource,
    write: bool,
) -> dict[str, dict[str, Any]]:
    """Strategy -> figures over simulated paths, the policy's and those of known rules."""
    module = importlib.import_module(f"tradax.evaluation.{request.env}")
    known = importlib.import_module(f"tradax.envs.{request.env}_baselines")
    strategies = {"policy": policy, **known.baselines(source.env, source.params)}
    results = {
        name: module.assess(strategy, source.env, source.params, seed=request.seed + 1)
        for name, strategy in strategies.items()
    }
    if write:
        rows = read_rows(task.folders[0] / "metrics.jsonl")
        write_simulated(
            folder / "report.html",
            f"{request.algorithm} on {request.env}",
            results,
            learning=rows,
            settings=all_settings(request),
            run=_run_facts(request, folder, rows),
        )
    return {
        name: {k: v for k, v in vars(result).items() if isinstance(v, int | float)}
        for name, result in results.items()
    }


def _report(
    request: Request,
    task: Task,
    folder: Path,
    policy: Policy,
    index: int,
    sampling: Sampling | None,
    write: bool,
) -> Report:
    """The policy on the symbol or portfolio of that index, against what it is compared with."""
    periods_per_year = task.markets[index][0].periods_per_year
    result = walked(request, task, policy, index)
    rows = learned_rows(task, index)
    markets, source = task.markets[index], market_source(task, index)
    module = discovery.module("envs", request.env)
    pieces = [Piece(policy.actor(sample=False), source.params, task.tested)]
    trial = trial_of(request, task, rows, result.symbol, result)
    ledger.add_trials(folder if write else None, [trial], run=folder)
    posterior = None
    if not request.skip_posterior:
        posterior = sharpe_posterior(
            result.policy.returns,
            periods_per_year,
            benchmark=result.baselines["buy_and_hold"].returns,
            **(sampling or Sampling(request.seed))._asdict(),
        )
    assert task.bars is not None
    record = ledger.record(trial, folder)
    verdict = assess(
        result,
        periods_per_year=periods_per_year,
        posterior=posterior,
        seed=request.seed,
        trials=record,
        validation=None if record is None else kept_returns.together(record.entries),
        survivors=any(name in samples.SAMPLES for name in task.bars.source.split(", ")),
    )
    return Report(
        title=f"{result.symbol}: {request.algorithm} on {request.env}",
        symbol=result.symbol,
        backtest=result,
        verdict=verdict,
        parts=[
            luck_part(verdict),
            *_folds(task, index, result, periods_per_year),
            posterior_part(posterior, skipped=request.skip_posterior),
            robustness_part(
                robustness(result, module, source.env, pieces, markets),
                outcome(result),
                controls.load(request, folder, result.symbol),
            ),
            trades_part(result),
        ],
        learning=rows,
        settings=all_settings(request),
        data=data_facts(task) | {"symbol": result.symbol},
        run=_run_facts(request, folder, rows)
        | {"steps_per_second": rows[-1]["steps_per_second"] if rows else None},
    )


def _folds(task: Task, index: int, result: Backtest, periods_per_year: float) -> list[Part]:
    """The walk-forward's part of the page, where there is one."""
    if not task.folds:
        return []
    assert task.bars is not None
    each = len(task.deployed)
    folders = task.folders[index % each :: each]
    scores = [_best_score(read_rows(folder / "metrics.jsonl")) for folder in folders]
    return [folds_part(result, task.folds, task.bars.timestamps, scores, periods_per_year)]


def _best_score(rows: list[Row]) -> float | None:
    """On validation, of the rows of metrics.jsonl."""
    scores = [row["validation_score"] for row in rows if "validation_score" in row]
    return max(scores, default=None)


def trial_of(
    request: Request, task: Task, rows: list[Row], symbol: str, test: Backtest | None = None
) -> ledger.Trial:
    """What the ledger keeps of a policy; without figures of a test where it was not tested."""
    without = _NOT_LEARNED if request.folds is not None else _NOT_LEARNED.union(OF_FOLDS)
    asked = {k: v for k, v in vars(request).items() if k not in without}
    trial = ledger.Trial(
        algorithm=request.algorithm,
        env=request.env,
        symbol=symbol,
        seed=request.seed,
        timesteps=request.total_timesteps,
        settings=ledger.settings_hash(asked),
        data_sha256=None if task.bars is None else task.bars.sha256,
        validation_score=_best_score(rows),
    )
    if test is None:
        return trial
    curve = test.policy
    digest = hashlib.sha256(curve.timestamps.astype(np.int64).tobytes())
    digest.update(curve.price.tobytes())
    return dataclasses.replace(
        trial,
        test_sha256=digest.hexdigest(),
        sharpe=curve.metrics.sharpe,
        sharpe_per_bar=sharpe_ratio(np.nan_to_num(curve.returns)),
        excess_per_bar=excess_per_bar(test),
        bars=len(curve.returns),
        tested=True,
    )


# Named in a trial by themselves, or without influence on what is learned.
_NOT_LEARNED = {
    *("algorithm", "env", "data", "symbols", "seed", "total_timesteps"),
    *("skip_posterior", "log_rows", "controls"),
}


def _run_facts(request: Request, folder: Path, rows: list[Row]) -> dict[str, Any]:
    manifest = run_directory.read_json(folder / "manifest.json")
    return {
        "command": manifest["command"],
        "seed": request.seed,
        "versions": manifest["versions"],
        "timesteps": rows[-1]["timesteps"] if rows else 0,
    }


def all_settings(request: Request) -> dict[str, dict[str, Any]]:
    """Every option that the run used, defaults included; features only where there is data."""
    modules: list[ModuleType] = [
        discovery.module("algorithms", request.algorithm),
        discovery.module("envs", request.env),
        *((features,) if needs_bars(request.env) else ()),
    ]
    return {section(m.Config): to_dict(request.options_of(m)) for m in modules}
