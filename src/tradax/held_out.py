"""The test on data that training never saw: figures, and a report for each policy."""

import dataclasses
import hashlib
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tradax import discovery, ledger, run_directory
from tradax.config import section, to_dict
from tradax.data import features, samples
from tradax.evaluation.backtest import Backtest, backtest, symbol_of
from tradax.evaluation.posterior import Sampling, sharpe_posterior
from tradax.evaluation.scoring import evaluate
from tradax.evaluation.sharpe import sharpe_ratio
from tradax.evaluation.verdict import assess
from tradax.hooks import read_rows
from tradax.model_file import load_policy
from tradax.policies import NetworkPolicy
from tradax.preparation import Request, Task, data_facts, needs_bars, policy_names, reopen
from tradax.reporting.page import Report, summary, write_report
from tradax.reporting.posterior import posterior_part
from tradax.reporting.simulated import write_simulated
from tradax.rollout import JaxSource
from tradax.training import Row

_OF_TRAINING = ("steps_per_second", "offline")  # entries of summary.json


def held_out_test(
    request: Request,
    task: Task,
    folder: Path,
    policies: dict[str, NetworkPolicy],
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
    for index, (market, source) in enumerate(zip(task.markets, task.single_sources, strict=True)):
        assert isinstance(source, JaxSource)
        symbol = symbol_of(market)
        policy = policies.get(symbol) or next(iter(policies.values()))
        several = len(task.markets) > 1
        symbol_folder = folder / run_directory.symbol_folder(symbol) if several else folder
        report = _report(request, task, folder, policy, index, source, sampling, write)
        tested[symbol] = summary(report)
        if not write:
            continue
        if several:
            run_directory.write_json(symbol_folder / "summary.json", tested[symbol])
        write_report(symbol_folder / "report.html", report)
    return {"symbols": tested} if len(tested) > 1 else next(iter(tested.values()))


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
    """
    folder = Path(folder)
    request, task = reopen(folder)
    request = dataclasses.replace(request, skip_posterior=skip_posterior)
    names = policy_names(request, task)
    policies = {n: load_policy(f / "policy.zip") for n, f in zip(names, task.folders, strict=True)}
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
    policy: NetworkPolicy,
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
            settings=_all_settings(request),
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
    policy: NetworkPolicy,
    index: int,
    source: JaxSource,
    sampling: Sampling | None,
    write: bool,
) -> Report:
    """The policy on the symbol or portfolio of that index, against what it is compared with."""
    assert task.pipeline is not None
    markets = task.markets[index]
    periods_per_year = markets[0].periods_per_year
    span = task.pipeline.splits.test
    env_module = discovery.module("envs", request.env)
    result = backtest(policy, env_module, source.env, source.params, markets, span, request.seed)
    rows = read_rows(task.folders[index if task.members else 0] / "metrics.jsonl")
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
    verdict = assess(
        result,
        periods_per_year=periods_per_year,
        posterior=posterior,
        seed=request.seed,
        trials=ledger.record(trial, folder),
        survivors=any(name in samples.SAMPLES for name in task.bars.source.split(", ")),
    )
    return Report(
        title=f"{result.symbol}: {request.algorithm} on {request.env}",
        symbol=result.symbol,
        backtest=result,
        verdict=verdict,
        parts=[posterior_part(posterior, skipped=request.skip_posterior)],
        learning=rows,
        settings=_all_settings(request),
        data=data_facts(task) | {"symbol": result.symbol},
        run=_run_facts(request, folder, rows)
        | {"steps_per_second": rows[-1]["steps_per_second"] if rows else None},
    )


def trial_of(
    request: Request, task: Task, rows: list[Row], symbol: str, test: Backtest | None = None
) -> ledger.Trial:
    """What the ledger keeps of a policy; without figures of a test where it was not tested."""
    scores = [row["validation_score"] for row in rows if "validation_score" in row]
    asked = {k: v for k, v in vars(request).items() if k not in _NOT_LEARNED}
    trial = ledger.Trial(
        algorithm=request.algorithm,
        env=request.env,
        symbol=symbol,
        seed=request.seed,
        timesteps=request.total_timesteps,
        settings=ledger.settings_hash(asked),
        data_sha256=None if task.bars is None else task.bars.sha256,
        validation_score=max(scores, default=None),
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
        bars=len(curve.returns),
        tested=True,
    )


# Named in a trial by themselves, or without influence on what is learned.
_NOT_LEARNED = {
    *("algorithm", "env", "data", "symbols", "seed", "total_timesteps"),
    *("skip_posterior", "log_rows"),
}


def _run_facts(request: Request, folder: Path, rows: list[Row]) -> dict[str, Any]:
    manifest = run_directory.read_json(folder / "manifest.json")
    return {
        "command": manifest["command"],
        "seed": request.seed,
        "versions": manifest["versions"],
        "timesteps": rows[-1]["timesteps"] if rows else 0,
    }


def _all_settings(request: Request) -> dict[str, dict[str, Any]]:
    """Every option that the run used, defaults included; features only where there is data."""
    modules: list[ModuleType] = [
        discovery.module("algorithms", request.algorithm),
        discovery.module("envs", request.env),
        *((features,) if needs_bars(request.env) else ()),
    ]
    return {section(m.Config): to_dict(request.options_of(m)) for m in modules}
