"""What was asked for, and all that is built from it before training begins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax import discovery, run_directory
from tradax.config import checked, from_dict, section
from tradax.data import features, samples
from tradax.data.bars import Bars
from tradax.data.pipeline import Market, Pipeline
from tradax.data.splits import Span, Splits, WalkForward
from tradax.errors import ConfigError
from tradax.evaluation.backtest import symbol_of
from tradax.evaluation.scoring import HOST_ENVS, LONGEST, play, whole_return
from tradax.host_source import HostSource
from tradax.logged import Log
from tradax.protocols import Algorithm, Policy, Source
from tradax.rollout import JaxSource, jax_source
from tradax.sources import GYMNASIUM, source_of


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
    controls: int = 0
    """Trainings on shuffled prices, and as many on noise, to compare with."""
    total_timesteps: int
    seed: int = 0
    train_fraction: float = 0.7
    validation_fraction: float = 0.15
    folds: int | None = None
    """Pieces of the test span, each with a training of its own before it; None: one training."""
    rolling: bool = False
    purge_bars: int = 5
    embargo_bars: int = 5
    """Like `rolling` and `purge_bars` for folds only; see `splits.WalkForward`."""
    evaluations: int = 20
    log_rows: int = 100
    normalizer: str | None = None
    """Class of a scikit-learn normaliser that was given; its numbers are in the run directory."""
    offline: str | None = None
    """Parquet file of trajectories to learn from, instead of the environment."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Section (`ppo`, `trading`, `features`) -> option -> value."""

    @property
    def walk_forward(self) -> WalkForward | None:
        if self.folds is None:
            return None
        return WalkForward(self.folds, self.rolling, self.purge_bars, self.embargo_bars)

    def options_of(self, module: ModuleType) -> Any:
        """The module's `Config` with what was asked for, and defaults."""
        return from_dict(module.Config, self.settings.get(section(module.Config), {}))


OF_FOLDS = ("folds", "rolling", "purge_bars", "embargo_bars")
"""Options of a request that mean something with folds only."""


class Task(NamedTuple):
    """Everything between the request and the training loop."""

    algorithm: Algorithm
    source: Source
    evaluate: Callable[[Any], jax.Array]
    """Score of a policy, or of all members' [M]; the best one is kept."""
    members: int | None
    folders: list[Path]
    """One a policy."""
    markets: tuple[tuple[Market, ...], ...]
    """What each environment trades: one symbol, or all in a portfolio."""
    pipeline: Pipeline | None
    bars: Bars | None
    single_sources: Sequence[Source]
    """For the tests: one environment each, or several to play episodes in."""
    log: Log | None = None
    """What is learned from, instead of the environment."""
    folds: tuple[Splits, ...] = ()
    """Of a walk-forward, the earliest first. Members are then all policies of the first fold, all
    of the second and so on; pipeline and folder of the run are the last fold's; in the tables of
    `markets` and `single_sources` each row of the test span is as its own fold sees it."""

    @property
    def deployed(self) -> list[Path]:
        """The folders of the policies that are the newest: all, or the last fold's."""
        return self.folders[-(len(self.folders) // max(len(self.folds), 1)) :]

    @property
    def splits(self) -> Splits:
        """Of a walk-forward, what the first fold learned from, and the tests of all together."""
        assert self.pipeline is not None
        last = self.pipeline.splits
        if not self.folds:
            return last
        return self.folds[0]._replace(test=Span(self.folds[0].test.first, last.test.last))

    @property
    def tested(self) -> Span:
        """The rows of the test, of all folds together."""
        return self.splits.test


def prepare(
    request: Request,
    *,
    env: Any = None,
    frame: Any = None,
    normalizer: Any = None,
    begun: bool = False,
) -> Task:
    """Check everything and build what the training loop needs; writes nothing.

    Args:
        env: an environment object or (environment, parameters), where `request.env` only names it.
        frame: bars or a data frame, where `request.data` is "frame".
        normalizer: what `Pipeline.fit` takes, where `request.normalizer` names it.
        begun: the run has begun before, so the policy that it began with is not needed again.
    """
    algorithm_module = discovery.module("algorithms", request.algorithm)
    config = request.options_of(algorithm_module)
    if begun and getattr(config, "initial_policy", None) is not None:
        config = replace(config, initial_policy=None)
    _check(request)

    def algorithm_for(source: Source) -> Algorithm:
        return algorithm_module.make(config, source.spec, jnp.float32(1))

    if needs_bars(request.env):
        return _on_bars(request, frame, normalizer, config.num_envs, algorithm_for)
    return _without_bars(request, env, config.num_envs, algorithm_for)


def _check(request: Request) -> None:
    allowed = {request.algorithm, request.env, "features"}
    if request.env.startswith(GYMNASIUM):
        allowed.add("gymnasium")
    for name in request.settings:
        if name not in allowed:
            raise ConfigError(
                f"settings for {name}, which this run does not use; allowed: "
                f"{', '.join(sorted(allowed))}"
            )
    if request.folds is not None and not needs_bars(request.env):
        raise ConfigError(
            f"{request.env} has no bars to walk forward on; leave out folds (--folds)"
        )
    usual = Request(algorithm="", env="", data=None, total_timesteps=1)
    if request.folds is None and (
        given := [name for name in OF_FOLDS if getattr(request, name) != getattr(usual, name)]
    ):
        raise ConfigError(f"{', '.join(given)} belong to folds (--folds), which is not given")
    for name in ("total_timesteps", "evaluations", "log_rows"):
        if getattr(request, name) < 1:
            raise ConfigError(f"{name} is {getattr(request, name)}; it must be at least 1")


def _without_bars(
    request: Request, env: Any, num_envs: int, algorithm_for: Callable[[Source], Algorithm]
) -> Task:
    """A market that simulates its prices, or an environment that is no market."""
    environment = request.env if env is None else env
    market = request.env in discovery.environments()
    names = ("data", "symbols", "signals", "closes_only", "intersection", "normalizer")
    if given := [name for name in names if getattr(request, name)]:
        raise ConfigError(
            f"{request.env} {'simulates its prices' if market else 'is no market'} and takes no "
            f"data; leave out {', '.join(given)}"
        )
    if market:
        env_module = discovery.module("envs", request.env)
        environment = env_module.make(request.options_of(env_module))
    make_kwargs = request.settings.get("gymnasium")
    source = source_of(environment, num_envs=num_envs, make_kwargs=make_kwargs)
    # What an environment on the host is evaluated in must not disturb what it is trained in.
    test = source.fresh(HOST_ENVS) if isinstance(source, HostSource) else source.of(HOST_ENVS)

    def mean_return(policy: Policy) -> jax.Array:
        key = jax.random.key(request.seed)
        return jnp.mean(play(test, policy.actor(sample=False), key, LONGEST)[0])

    return Task(algorithm_for(source), source, mean_return, None, [Path()], (), None, None, [test])


def _on_bars(
    request: Request,
    frame: Any,
    normalizer: Any,
    num_envs: int,
    algorithm_for: Callable[[Source], Algorithm],
) -> Task:
    """A market on given bars: features, spans, one environment a symbol or one for all."""
    env_module = discovery.module("envs", request.env)
    env_config = request.options_of(env_module)
    holds_all = getattr(env_module, "HOLDS_ALL_SYMBOLS", False)
    if holds_all and request.shared_policy:
        raise ConfigError(
            f"{request.env} holds all symbols at once, with one policy; leave out shared_policy "
            "(--shared-policy)"
        )
    bars = frame if isinstance(frame, Bars) else load_bars(request, frame)
    how = request.walk_forward
    fractions = {"train": request.train_fraction, "validation": request.validation_fraction}
    given = {"normalizer": normalizer, **fractions}
    if how is None:
        pipelines = (Pipeline.fit(bars, request.options_of(features), **given),)
    else:
        pipelines = Pipeline.walk_forward(bars, request.options_of(features), how, **given)
    seen = [pipeline.transform(bars) for pipeline in pipelines]
    markets = [(symbols,) if holds_all else tuple((m,) for m in symbols) for symbols in seen]
    shared = request.shared_policy and len(seen[0]) > 1

    def made(market: tuple[Market, ...], span: Span) -> JaxSource:
        return jax_source(*env_module.make(env_config, market, span))

    trained = [
        made(market, pipeline.splits.train)
        for pipeline, symbols, own in zip(pipelines, seen, markets, strict=True)
        for market in ((symbols,) if shared else own)
    ]
    members = len(trained) if len(trained) > 1 else None
    source = replace(trained[0], num_envs=num_envs)
    algorithm = algorithm_for(source)
    if members is not None:
        source = eqx.tree_at(lambda s: s.params, source, _stacked([s.params for s in trained]))
    every_market = source.params
    if shared:
        spans = [pipeline.splits.train for pipeline in pipelines]
        every_market = _stacked(
            [
                _stacked([made(market, span).params for market in own])
                for own, span in zip(markets, spans, strict=True)
            ]
        )
    score = _validation_score(
        eqx.tree_at(lambda s: s.params, trained[0], every_market),
        env_module.over_span,
        [
            pipeline.splits.validation
            for pipeline in pipelines
            for _ in range(len(trained) // len(pipelines))
        ],
        shared,
    )
    tested, singles = markets[0], trained
    if how is not None:
        tested = _as_seen(markets, [pipeline.splits.test for pipeline in pipelines])
    if how is not None or shared:
        singles = [made(market, pipelines[-1].splits.train) for market in tested]
    each = run_directory.symbol_folders([symbol_of(market) for market in tested])
    newest = [Path()] if shared or len(tested) == 1 else each
    return Task(
        algorithm,
        source,
        score,
        members,
        [f / "folds" / str(k) for k in range(1, len(pipelines)) for f in newest] + newest,
        tested,
        pipelines[-1],
        bars,
        singles,
        folds=() if how is None else tuple(pipeline.splits for pipeline in pipelines),
    )


def _stacked(params: list[Any]) -> Any:
    return params[0] if len(params) == 1 else jax.tree.map(lambda *x: jnp.stack(x), *params)


def _as_seen(
    markets: list[tuple[tuple[Market, ...], ...]], tests: list[Span]
) -> tuple[tuple[Market, ...], ...]:
    """The last fold's markets, with every row of an earlier fold's test as that fold sees it."""

    def joined(folds: tuple[Market, ...]) -> Market:
        table = folds[-1].table.copy()
        for market, test in zip(folds[:-1], tests, strict=False):
            table[test.first : test.last + 1] = market.table[test.first : test.last + 1]
        return folds[-1]._replace(table=table)

    return tuple(
        tuple(map(joined, zip(*assets, strict=True))) for assets in zip(*markets, strict=True)
    )


def load_bars(request: Request, data: Any = None) -> Bars:
    """The request's bars, or others (file names or a frame) read as it says."""
    return samples.load(
        request.data if data is None else data,
        symbols=request.symbols,
        signals=request.signals,
        closes_only=request.closes_only,
        intersection=request.intersection,
    )


def _validation_score(
    market: JaxSource, over_span: Callable, spans: list[Span], shared: bool
) -> Callable[[Policy], jax.Array]:
    """Return over the validation span, of each policy; of a shared one the mean of all markets.

    Args:
        market: its parameters are stacked as the policies are; of policies that are shared, by
            market within each.
        spans: of each policy, all of the same number of rows.
    """
    several = len(spans) > 1
    rows = np.array([span.first for span in spans], np.int32)
    firsts = jnp.asarray(rows if several else rows[0])

    def score(policy):
        return _scores(
            market,
            policy,
            firsts,
            over_span=over_span,
            rows=spans[0].rows,
            shared=shared,
            several=several,
        )

    return score


@eqx.filter_jit
def _scores(market, policy, firsts, *, over_span, rows, shared, several):
    """Compiled once for each shape; all but the first three are static."""

    def one(params, policy, first):
        params = over_span(params, Span(first, first + rows - 1))
        return whole_return(eqx.tree_at(lambda s: s.params, market, params), rows, policy)

    def mean(params, policy, first):
        return jnp.mean(jax.vmap(one, in_axes=(0, None, None))(params, policy, first))

    measure = mean if shared else one
    return (jax.vmap(measure) if several else measure)(market.params, policy, firsts)


def needs_bars(env: Any) -> bool:
    """Whether an environment trades given bars; else it simulates, or is not a market."""
    return isinstance(env, str) and "rivals" in discovery.functions("envs", env)


def policy_names(request: Request, task: Task) -> list[str]:
    """What each policy is called: its symbol or the environment; with the fold, but in the last."""
    if len(task.deployed) == len(task.markets):
        names = [symbol_of(market) for market in task.markets]
    else:
        names = [request.env]
    return [f"{name}, fold {k}" for k in range(1, len(task.folds)) for name in names] + names


def data_facts(task: Task) -> dict[str, Any]:
    """Where the bars come from, and which dates are for what."""
    assert task.pipeline is not None
    assert task.bars is not None
    stamps = [str(t)[:19] for t in task.bars.timestamps]

    def dates(span: Span) -> list[str]:
        return [stamps[span.first], stamps[span.last]]

    return {
        "source": task.bars.source,
        "sha256": task.bars.sha256,
        "symbols": list(task.bars.symbols),
        "rows": len(task.bars),
        "features": list(task.markets[0][0].names),
        "train": dates(task.pipeline.splits.train),
        "validation": dates(task.pipeline.splits.validation),
        "test": dates(task.tested),
    }


def reopen(folder: Path) -> tuple[Request, Task]:
    """A run's request, and its task once more, on the same data.

    Raises:
        ModelFileError: not a run directory.
    """
    request = read_request(folder)
    task = prepare(
        request,
        frame=saved_frame(request, folder),
        normalizer=saved_normalizer(request, folder),
        begun=True,
    )
    return request, task._replace(folders=[folder / path for path in task.folders])


def read_request(folder: Path) -> Request:
    """Raises TradaxError where `folder` is not a run's."""
    config = run_directory.read_config(folder)
    return checked(Request, config, str(folder / "config.yaml"))


def saved_frame(request: Request, folder: Path) -> Bars | None:
    """The data of a run that was given a frame; None where it has a name or files."""
    if request.data != "frame":
        return None
    return samples.load([str(folder / "bars.parquet")], closes_only=request.closes_only)


def saved_normalizer(request: Request, folder: Path) -> tuple | None:
    """The normalisers of a run that was given one; None where it fitted its own."""
    return None if request.normalizer is None else Pipeline.load(folder).normalizers
