"""One run from end to end: data, training, the test on years never seen, the report."""

import contextlib
import importlib
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax import discovery, run_directory, training
from tradax.checkpoint import load_checkpoint
from tradax.config import from_dict, section, to_dict
from tradax.data import features, samples
from tradax.data.bars import Bars
from tradax.data.pipeline import Market, Pipeline
from tradax.envs._market import MarketEnvironment
from tradax.errors import ConfigError, TradaxError, TrainingError
from tradax.evaluation.backtest import Backtest, backtest, symbol_of
from tradax.evaluation.off_policy import effective_sample_size, log_ratios
from tradax.evaluation.posterior import sharpe_posterior
from tradax.evaluation.scoring import episodes_jit, evaluate
from tradax.evaluation.verdict import assess
from tradax.hooks import Checkpoints, Display, MetricsFile, TensorBoard, read_rows
from tradax.logged import Log, LoggedSource, check_name, logged_source, read_log, record, write_log
from tradax.model_file import load_policy, save_policy
from tradax.policies import NetworkPolicy
from tradax.protocols import Algorithm, Policy, Source
from tradax.reporting.page import Report, summary, write_report
from tradax.reporting.simulated import write_simulated
from tradax.rollout import JaxSource, jax_source

SECTIONS = ("features", "split")
_LEARNS = "LEARNS_FROM_LOGS"
_LEAST_SAMPLE = 0.05  # of the log, as effective sample size, before one is warned


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for, in plain values: `config.yaml` holds just this."""

    algorithm: str
    env: str
    data: str | list[str] | None
    symbols: list[str] | None = None
    signals: list[str] | None = None
    closes_only: bool = False
    intersection: bool = False
    shared_policy: bool = False
    skip_posterior: bool = False
    total_timesteps: int
    seed: int = 0
    train_fraction: float = 0.7
    validation_fraction: float = 0.15
    evaluations: int = 20
    log_rows: int = 100
    offline: str | None = None
    """Parquet file of trajectories to learn from, instead of the environment."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Section (`ppo`, `trading`, `features`) -> option -> value."""


@dataclass(frozen=True)
class Result:
    """What a training run leaves behind."""

    policies: dict[str, NetworkPolicy]
    """Symbol ("A+B" for a portfolio) or environment -> best policy on validation."""
    metrics: dict[str, list[training.Row]]
    """The same -> logged rows."""
    summary: dict[str, Any]
    """What `summary.json` holds."""
    run_dir: Path
    interrupted: bool

    @property
    def policy(self) -> NetworkPolicy:
        """The only policy, or the first symbol's."""
        return next(iter(self.policies.values()))


class Task(NamedTuple):
    """Everything between the request and the training loop."""

    algorithm: Algorithm
    source: Source
    evaluate: Any
    members: int | None
    folders: list[Path]
    """One a policy."""
    markets: tuple[tuple[Market, ...], ...]
    """What each environment trades: one symbol, or all in a portfolio."""
    pipeline: Pipeline | None
    bars: Bars | None
    single_sources: list[JaxSource]
    """One environment each, for the tests."""
    log: Log | None = None
    """What is learned from, instead of the environment."""


def train(
    algorithm: Any = "ppo",
    env: Any = "trading",
    data: Any = None,
    *,
    symbols: list[str] | None = None,
    signals: list[str] | None = None,
    total_timesteps: int = 1_000_000,
    seed: int = 0,
    settings: dict[str, dict[str, Any]] | None = None,
    preprocessing: bool = True,
    closes_only: bool = False,
    intersection: bool = False,
    shared_policy: bool = False,
    skip_posterior: bool = False,
    train_fraction: float = 0.7,
    validation_fraction: float = 0.15,
    evaluations: int = 20,
    log_rows: int = 100,
    offline: Path | str | None = None,
    out: Path | str | None = None,
    resume: Path | str | None = None,
    progress: bool = False,
    command: str | None = None,
) -> Result:
    """Train a policy, test it on held-out data, and write a run directory.

    Args:
        algorithm: a name (`tradax list`), or a `Config` of one.
        env: "trading" or another market, its `Config`, a gymnax name such as "CartPole-v1", a
            gymnax environment, or (environment, parameters).
        data: sample name(s), CSV or Parquet file(s), or a polars or pandas frame; "sp500" by
            default. Not for environments that simulate their prices, or that are not markets.
        symbols: which of the data's symbols; all by default, each with a policy of its own,
            except that a portfolio has one policy for all that it holds.
        signals: which extra columns are features; all numeric ones by default.
        settings: options by section, for instance `{"ppo": {"learning_rate": 3e-4},
            "trading": {"commission_bps": 2}, "features": {"window": 5}}`.
        preprocessing: False gives the agent plain returns and signals, not normalised.
        shared_policy: one policy for all symbols.
        train_fraction, validation_fraction: of the rows in time order; the rest is the test.
        offline: a Parquet file that `tradax.collect` wrote: learn from its trajectories only. The
            environment then serves for validation and the test; `total_timesteps` counts logged
            steps, which are drawn again and again.
        out: a new folder; runs/NAME-1, -2, ... by default.
        resume: a run folder to go on with; other arguments than `total_timesteps` are its own.
        progress: show progress on standard error.

    Raises:
        TradaxError: bad data or options, before anything is compiled or written.
        TrainingError: a number became NaN or infinite; the last good policy is in the folder.
    """
    settings = {name: dict(options) for name, options in (settings or {}).items()}
    if not preprocessing:
        settings.setdefault("features", {})["indicators"] = False
    frame = None if data is None or isinstance(data, str | list | tuple | Path) else data
    if resume is not None:
        request = _request_of(Path(resume))
        folder = Path(resume)
        if total_timesteps > request.total_timesteps:
            request = _replace(request, total_timesteps=total_timesteps)
        if request.data == "frame":
            frame = _saved_frame(request, folder)
    else:
        algorithm, settings = _named("algorithms", algorithm, settings)
        name, settings = _named("envs", env, settings) if not _is_object(env) else (env, settings)
        request = Request(
            algorithm=algorithm,
            env=name if isinstance(name, str) else _object_name(env),
            data="frame" if frame is not None else _plain_data(data, name),
            symbols=symbols,
            signals=signals,
            closes_only=closes_only,
            intersection=intersection,
            shared_policy=shared_policy,
            skip_posterior=skip_posterior,
            total_timesteps=total_timesteps,
            seed=seed,
            train_fraction=train_fraction,
            validation_fraction=validation_fraction,
            evaluations=evaluations,
            log_rows=log_rows,
            offline=None if offline is None else str(offline),
            settings=settings,
        )
        folder = None
    task = prepare(request, env=env if _is_object(env) else None, frame=frame)
    if request.offline is not None:
        task = _from_log(request, task)

    if folder is None:
        folder = run_directory.create(out, f"{request.env}-{request.algorithm}")
    task = task._replace(folders=[folder / path for path in task.folders])
    run_directory.write_config(folder, vars(request))
    if frame is not None and resume is None and task.bars is not None:
        task.bars.write_parquet(folder / "bars.parquet")
    run_directory.write_manifest(
        folder,
        seed=request.seed,
        data=None if task.bars is None else _data_facts(task),
        command=command or "tradax.train(...) from Python",
    )
    if task.pipeline is not None:
        task.pipeline.save(folder)
    trained = _run(request, task, folder, resume is not None, progress)
    return _finish(request, task, folder, trained)


def prepare(request: Request, *, env: Any = None, frame: Any = None) -> Task:
    """Check everything and build what the training loop needs; writes nothing.

    Args:
        env: an environment object or (environment, parameters), where `request.env` only names it.
        frame: bars or a data frame, where `request.data` is "frame".
    """
    algorithm_module = discovery.module("algorithms", request.algorithm)
    config = from_dict(algorithm_module.Config, request.settings.get(request.algorithm, {}))
    _check_sections(request)
    for name in ("total_timesteps", "evaluations", "log_rows"):
        if getattr(request, name) < 1:
            raise ConfigError(f"{name} is {getattr(request, name)}; it must be at least 1")
    horizon = jnp.float32(1)
    if not needs_bars(request.env):
        environment, params = env if isinstance(env, tuple) else (env or request.env, None)
        if request.env in discovery.environments():
            if request.data is not None:
                raise ConfigError(
                    f"{request.env} simulates its prices and takes no data; leave it out"
                )
            env_module = discovery.module("envs", request.env)
            env_config = from_dict(env_module.Config, request.settings.get(request.env, {}))
            environment, params = env_module.make(env_config)
        source = jax_source(environment, params, num_envs=config.num_envs)
        algorithm = algorithm_module.make(config, source.spec, horizon)
        test = jax_source(environment, params, num_envs=20)

        def mean_return(policy):
            key = jax.random.key(request.seed)
            return jnp.mean(episodes_jit(test, policy.actor(sample=False), key, 10_000)[0])

        return Task(algorithm, source, mean_return, None, [Path()], (), None, None, [test])

    env_module = discovery.module("envs", request.env)
    env_config = from_dict(env_module.Config, request.settings.get(request.env, {}))
    holds_all = getattr(env_module, "HOLDS_ALL_SYMBOLS", False)
    if holds_all and request.shared_policy:
        raise ConfigError(
            f"{request.env} holds all symbols at once, with one policy; leave out shared_policy "
            "(--shared-policy)"
        )
    bars = frame if isinstance(frame, Bars) else None
    if bars is None:
        bars = samples.load(
            request.data if frame is None else frame,
            symbols=request.symbols,
            signals=request.signals,
            closes_only=request.closes_only,
            intersection=request.intersection,
        )
    pipeline = Pipeline.fit(
        bars,
        from_dict(features.Config, request.settings.get("features", {})),
        train=request.train_fraction,
        validation=request.validation_fraction,
    )
    symbols = pipeline.transform(bars)
    markets = (symbols,) if holds_all else tuple((market,) for market in symbols)
    span = pipeline.splits.train
    made = [env_module.make(env_config, market, span) for market in markets]
    singles = [jax_source(environment, params) for environment, params in made]
    shared = request.shared_policy and len(markets) > 1
    several = len(markets) > 1 and not shared
    if shared:
        source = jax_source(*env_module.make(env_config, symbols, span), num_envs=config.num_envs)
    else:
        source = jax_source(*made[0], num_envs=config.num_envs)
    algorithm = algorithm_module.make(config, source.spec, horizon)
    every_market = singles[0].params
    if len(markets) > 1:
        every_market = jax.tree.map(lambda *x: jnp.stack(x), *(s.params for s in singles))
    if several:
        source = eqx.tree_at(lambda s: s.params, source, every_market)

    held_out = pipeline.splits.validation
    test = eqx.tree_at(lambda s: s.params, singles[0], every_market)
    policy_axis = 0 if several else None

    @eqx.filter_jit
    def scores(source, policy):
        def one(params, policy):
            walked = eqx.tree_at(lambda s: s.params, source, env_module.over_span(params, held_out))
            actor = policy.actor(sample=False)
            return walked.episodes(actor, jax.random.key(0), held_out.rows)[0][0]

        if len(markets) == 1:
            return one(source.params, policy)
        return jax.vmap(one, in_axes=(0, policy_axis))(source.params, policy)

    def validation_score(policy):
        result = scores(test, policy)
        return jnp.mean(result) if shared else result

    folders = [Path(_folder_name(symbol_of(m))) for m in markets] if several else [Path()]
    members = len(markets) if several else None
    return Task(
        algorithm, source, validation_score, members, folders, markets, pipeline, bars, singles
    )


def collect(
    policy: Policy | Path | str,
    env: Any = None,
    *,
    path: Path | str | None = None,
    n_steps: int | None = None,
    episodes: int | None = None,
    num_envs: int = 64,
    max_steps: int = 10_000,
    seed: int = 0,
) -> Log:
    """Let a policy act, sampling its actions, and write every step to a Parquet file.

    Args:
        policy: a policy, a run directory, or a `policy.zip`.
        env: a gymnax name, a simulated market's name, an environment object, or (environment,
            parameters). By default the environment of the run directory, with the data that it
            was trained on.
        path: the file, .parquet; not written by default.
        n_steps: steps in all, side by side in `num_envs` environments, rounded up to a multiple
            of these. For learning.
        episodes: instead, so many whole episodes, side by side. For estimates of values too.
        max_steps: episodes that have not ended by then are left unfinished.

    Returns: what was written.

    Raises:
        TradaxError: policy and environment do not fit, or an option is outside what is allowed.
    """
    name = env if isinstance(env, str) else ""
    if path is not None:
        check_name(path)
    if env is None:
        if isinstance(policy, Policy):
            raise ConfigError("give the environment, or a run directory instead of the policy")
        folder = Path(policy)
        request = _request_of(folder)
        frame = _saved_frame(request, folder) if request.data == "frame" else None
        task, name = prepare(request, frame=frame), request.env
        if task.members is not None:
            raise ConfigError(
                f"{folder} holds a policy for each of {', '.join(_names(request, task))}; give "
                "one policy.zip, and (environment, parameters)"
            )
        assert isinstance(task.source, JaxSource)
        environment, params = task.source.env, task.source.params
    else:
        environment, params = env if isinstance(env, tuple) else (env, None)
        if isinstance(env, str) and env in discovery.environments():
            if needs_bars(env):
                raise ConfigError(
                    f"{env} trades given prices; give a run directory, or (environment, parameters)"
                )
            env_module = discovery.module("envs", env)
            environment, params = env_module.make(env_module.Config())
    source = jax_source(environment, params, num_envs=num_envs)
    if not isinstance(policy, Policy):
        policy = load_policy(policy)
    log = record(
        policy,
        source,
        n_steps=n_steps,
        episodes=episodes,
        max_steps=max_steps,
        seed=seed,
        name=name or _object_name(env),
    )
    if path is not None:
        write_log(log, path)
    return log


def _from_log(request: Request, task: Task) -> Task:
    """The same task, learning from a file alone."""
    assert request.offline is not None
    if not discovery.flag("algorithms", request.algorithm, _LEARNS):
        fit = [n for n in discovery.algorithms() if discovery.flag("algorithms", n, _LEARNS)]
        raise ConfigError(
            f"{request.algorithm} cannot learn from logged trajectories; these can: "
            f"{', '.join(fit)}"
        )
    if task.members is not None:
        raise ConfigError(
            "a log trains one policy, and these data have several symbols with one each; choose "
            "one of them (--symbols), or one policy for all (--shared-policy)"
        )
    assert isinstance(task.source, JaxSource)
    log = read_log(request.offline)
    source = logged_source(log, like=task.source, num_envs=task.source.num_envs)
    return task._replace(source=source, log=log)


def _log_facts(task: Task, policy: NetworkPolicy) -> dict[str, Any]:
    """What the policy learned from, and how much the log knows of what it does now."""
    assert task.log is not None
    assert isinstance(task.source, LoggedSource)
    log = task.log
    ratio = log_ratios(policy, log, task.source.table)
    fraction = effective_sample_size(np.exp(np.minimum(ratio, 60.0))) / len(log)
    if fraction < _LEAST_SAMPLE:
        warnings.warn(
            f"the log knows little of what the policy does now: the effective sample size of its "
            f"importance weights is {fraction:.1%} of {len(log):,} steps, under "
            f"{_LEAST_SAMPLE:.0%}. Record more, with a policy closer to this one, or lower "
            "behaviour_kl",
            stacklevel=2,
        )
    return {
        "file": log.source,
        "steps": len(log),
        "episodes": len(log.ends),
        "mean_return": float(log.returns.mean()),
        "effective_sample_fraction": fraction,
    }


def needs_bars(env: Any) -> bool:
    """Whether an environment trades given bars; else it simulates, or is not a market."""
    return isinstance(env, str) and "rivals" in discovery.functions("envs", env)


def _run(request: Request, task: Task, folder: Path, resume: bool, progress: bool):
    """Train, with files and display attached."""
    key = jax.random.key(request.seed)
    algorithm, source = task.algorithm, task.source
    if task.members is not None:
        # The same seed for every symbol: each is the run that it would be alone.
        key = jnp.stack([key] * task.members)
    saved = None
    if resume:
        like = training.blank(algorithm, source, key, request.total_timesteps, task.members)
        saved = load_checkpoint(folder / "checkpoints", like)
    update = 0 if saved is None else int(jnp.max(saved.state.update))
    total = training.updates_needed(algorithm, request.total_timesteps)
    hooks: list[training.Hook] = [
        MetricsFile(task.folders, keep_until_update=update),
        TensorBoard(task.folders),
        Checkpoints(folder / "checkpoints"),
    ]
    with contextlib.ExitStack() as stack:
        if progress:
            display = Display(total * algorithm.steps_per_update)
            stack.callback(display.close)
            hooks.append(display)
        try:
            return training.train(
                algorithm,
                source,
                key,
                total_timesteps=request.total_timesteps,
                members=task.members,
                evaluate=task.evaluate,
                evaluations=request.evaluations,
                log_rows=request.log_rows,
                hooks=hooks,
                resume=saved,
            )
        except TrainingError as error:
            _save_policies(request, task, error.policy, "policy-last.zip")  # type: ignore[attr-defined]
            raise


def _finish(request: Request, task: Task, folder: Path, trained: training.Trained) -> Result:
    """Save the policies; unless interrupted, test them and write the report."""
    _save_policies(request, task, trained.policy, "policy-last.zip")
    best = _save_policies(request, task, trained.best_policy, "policy.zip")
    names = _names(request, task)
    rows = {n: read_rows(f / "metrics.jsonl") for n, f in zip(names, task.folders, strict=True)}
    policies = dict(zip(names, best, strict=True))
    outcome: dict[str, Any] = {"steps_per_second": round(trained.steps_per_second)}
    if not trained.interrupted:
        outcome |= held_out_test(request, task, folder, policies)
        if task.log is not None:
            outcome["offline"] = _log_facts(task, best[0])
        run_directory.write_json(folder / "summary.json", outcome)
        for name, tested in outcome.get("symbols", {names[0]: outcome}).items():
            figures = tested.get("strategies", {}).get("policy", {})
            trial = {
                "algorithm": request.algorithm,
                "env": request.env,
                "symbol": name,
                "seed": request.seed,
                "timesteps": request.total_timesteps,
                "settings": run_directory.settings_hash(request.settings),
                "data_sha256": task.bars.sha256 if task.bars is not None else None,
                "sharpe": figures.get("sharpe"),
            }
            run_directory.add_trial(folder, trial)
    return Result(policies, rows, outcome, folder, trained.interrupted)


def held_out_test(
    request: Request,
    task: Task,
    folder: Path,
    policies: dict[str, NetworkPolicy],
    *,
    write: bool = True,
) -> dict[str, Any]:
    """Walk the held-out span with every policy, and write one report a symbol or portfolio.

    Returns: the summary: one symbol's, or `{"symbols": {name: summary}}`.
    """
    if not task.markets:
        (policy,) = policies.values()
        source = task.single_sources[0]
        if request.env in discovery.environments():
            return {"strategies": _simulated(request, task, folder, policy, source, write)}
        score = evaluate(policy, (source.env, source.params), seed=request.seed + 1)
        return {"mean_return": score.mean, "std_return": score.std, "episodes": 100}
    tested = {}
    for index, (market, source) in enumerate(zip(task.markets, task.single_sources, strict=True)):
        symbol = symbol_of(market)
        policy = policies.get(symbol) or next(iter(policies.values()))
        several = len(task.markets) > 1
        symbol_folder = folder / _folder_name(symbol) if several else folder
        report = _report(request, task, folder, policy, index, source)
        tested[symbol] = summary(report)
        if not write:
            continue
        if several:
            run_directory.write_json(symbol_folder / "summary.json", tested[symbol])
        write_report(symbol_folder / "report.html", report)
    return {"symbols": tested} if len(tested) > 1 else next(iter(tested.values()))


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
        manifest = run_directory.read_json(folder / "manifest.json")
        write_simulated(
            folder / "report.html",
            f"{request.algorithm} on {request.env}",
            results,
            learning=rows,
            settings=_all_settings(request, markets=False),
            run={
                "command": manifest["command"],
                "seed": request.seed,
                "versions": manifest["versions"],
                "timesteps": rows[-1]["timesteps"] if rows else 0,
            },
        )
    return {
        name: {k: v for k, v in vars(result).items() if isinstance(v, int | float)}
        for name, result in results.items()
    }


def _report(request, task: Task, folder: Path, policy, index: int, source) -> Report:
    assert task.pipeline is not None
    markets = task.markets[index]
    periods_per_year = markets[0].periods_per_year
    span = task.pipeline.splits.test
    env_module = discovery.module("envs", request.env)
    result: Backtest = backtest(
        policy, env_module, source.env, source.params, markets, span, request.seed
    )
    posterior = None
    if not request.skip_posterior:
        posterior = sharpe_posterior(
            result.policy.returns,
            periods_per_year,
            benchmark=result.baselines["buy_and_hold"].returns,
            seed=request.seed,
        )
    assert task.bars is not None
    verdict = assess(
        result,
        periods_per_year=periods_per_year,
        posterior=posterior,
        seed=request.seed,
        survivors=any(name in samples.SAMPLES for name in task.bars.source.split(", ")),
    )
    rows = read_rows(task.folders[index if task.members else 0] / "metrics.jsonl")
    manifest = run_directory.read_json(folder / "manifest.json")
    return Report(
        title=f"{result.symbol}: {request.algorithm} on {request.env}",
        symbol=result.symbol,
        backtest=result,
        verdict=verdict,
        posterior=posterior,
        posterior_skipped=request.skip_posterior,
        learning=rows,
        settings=_all_settings(request),
        data=_data_facts(task) | {"symbol": result.symbol},
        run={
            "command": manifest["command"],
            "seed": request.seed,
            "versions": manifest["versions"],
            "timesteps": rows[-1]["timesteps"] if rows else 0,
            "steps_per_second": rows[-1]["steps_per_second"] if rows else None,
        },
    )


def retest(
    folder: Path | str, *, skip_posterior: bool = False, write: bool = True
) -> dict[str, Any]:
    """Test a finished run again, on the same held-out data; write its reports if `write`.

    Returns: the summary, as `Result.summary`.

    Raises:
        ModelFileError: not a run directory, or without policies.
    """
    folder = Path(folder)
    request = _replace(_request_of(folder), skip_posterior=skip_posterior)
    frame = _saved_frame(request, folder) if request.data == "frame" else None
    task = prepare(request, frame=frame)
    task = task._replace(folders=[folder / path for path in task.folders])
    names = _names(request, task)
    policies = {n: load_policy(f / "policy.zip") for n, f in zip(names, task.folders, strict=True)}
    outcome = held_out_test(request, task, folder, policies, write=write)
    if write:
        run_directory.write_json(folder / "summary.json", outcome)
    return outcome


def _names(request: Request, task: Task) -> list[str]:
    """What each policy is called: its symbol, or the environment."""
    if task.members is not None or len(task.markets) == 1:
        return [symbol_of(market) for market in task.markets]
    return [request.env]


def _save_policies(request: Request, task: Task, policy, name: str) -> list[NetworkPolicy]:
    policies = []
    for index, folder in enumerate(task.folders):
        one = policy
        if task.members is not None:
            one = jax.tree.map(lambda x, index=index: x[index], policy)
        metadata = {"algorithm": request.algorithm, "env": request.env}
        if task.members is not None or len(task.markets) == 1:
            metadata["symbol"] = symbol_of(task.markets[index])
        save_policy(one, folder / name, metadata)
        policies.append(one)
    return policies


def _data_facts(task: Task) -> dict[str, Any]:
    assert task.pipeline is not None
    assert task.bars is not None
    stamps = [str(t)[:19] for t in task.bars.timestamps]
    splits = task.pipeline.splits
    return {
        "source": task.bars.source,
        "sha256": task.bars.sha256,
        "symbols": list(task.bars.symbols),
        "rows": len(task.bars),
        "features": list(task.markets[0][0].names),
        **{
            name: [stamps[span.first], stamps[span.last]] for name, span in splits._asdict().items()
        },
    }


def _all_settings(request: Request, *, markets: bool = True) -> dict[str, dict[str, Any]]:
    """Every option that the run used, defaults included; features only where there is data."""
    modules: list[ModuleType] = [
        discovery.module("algorithms", request.algorithm),
        discovery.module("envs", request.env),
        *((features,) if markets else ()),
    ]
    return {
        section(m.Config): to_dict(from_dict(m.Config, request.settings.get(section(m.Config), {})))
        for m in modules
    }


def _request_of(folder: Path) -> Request:
    config = run_directory.read_config(folder)
    try:
        return Request(**config)
    except TypeError as error:
        raise TradaxError(f"{folder / 'config.yaml'}: {error}") from None


def _saved_frame(request: Request, folder: Path) -> Bars:
    """The data of a run that was given a frame."""
    return samples.load([str(folder / "bars.parquet")], closes_only=request.closes_only)


def _replace(request: Request, **changes: Any) -> Request:
    return Request(**{**vars(request), **changes})


def _check_sections(request: Request) -> None:
    allowed = {request.algorithm, request.env, "features"}
    for name in request.settings:
        if name not in allowed:
            raise ConfigError(
                f"settings for {name}, which this run does not use; allowed: "
                f"{', '.join(sorted(allowed))}"
            )


def _named(kind: str, given: Any, settings: dict) -> tuple[str, dict]:
    """A name and its settings, from a name or a `Config` object."""
    if isinstance(given, str):
        return given, settings
    module = sys.modules.get(type(given).__module__)
    name = section(type(given))
    if module is None or name not in (
        discovery.algorithms() if kind == "algorithms" else discovery.environments()
    ):
        raise ConfigError(f"{given!r} is neither a name nor the Config of one")
    return name, {**settings, name: to_dict(given)}


def _is_object(env: Any) -> bool:
    """Whether `env` is an environment rather than a name or a Config."""
    return isinstance(env, tuple) or hasattr(env, "reset_env") or hasattr(env, "step_env")


def _object_name(env: Any) -> str:
    environment = env[0] if isinstance(env, tuple) else env
    name = str(getattr(environment, "name", type(environment).__name__))
    if isinstance(environment, MarketEnvironment):
        name = f"{name}-object"  # not one whose data this run prepares
    return name


def _plain_data(data: Any, env: Any) -> str | list[str] | None:
    if data is None:
        return "sp500" if needs_bars(env) else None
    if isinstance(data, str | Path):
        return str(data)
    return [str(item) for item in data]


def _folder_name(symbol: str) -> str:
    """A symbol as a folder's name: no separators, no leading dot."""
    cleaned = "".join(c if c.isalnum() or c in "-_.^=" else "_" for c in symbol)
    return cleaned.lstrip(".") or "_"
