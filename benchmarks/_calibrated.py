"""Whole runs on simulated markets, and what is true of their policies."""

import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import tradax
from benchmarks._planted import DAYS, Process, simulated
from tradax.data import features
from tradax.data.bars import Bars
from tradax.data.pipeline import Pipeline
from tradax.data.splits import Span
from tradax.envs import discrete_trading
from tradax.evaluation.backtest import backtest
from tradax.evaluation.bootstrap import block_length, performance_intervals
from tradax.evaluation.evidence import excess_per_bar
from tradax.evaluation.posterior import sharpe_posterior
from tradax.evaluation.sharpe import sharpe_ratio
from tradax.evaluation.verdict import assess
from tradax.ledger import Record
from tradax.model_file import load_policy
from tradax.rollout import JaxSource
from tradax.sweeps.wave import member_folder

BARS, TEST = 22 * DAYS + 2, 10 * DAYS  # one bar has no return yet, and one begins the test
SPLITS = {"train_fraction": 0.4, "validation_fraction": 0.1454}
PPO = {
    "num_envs": 16,
    "n_steps": 64,
    "minibatches": 4,
    "hidden_sizes": [16],
    "learning_rate": 3e-3,
    "gamma": 0.95,
    "normalize_rewards": True,
}
TRAIN_STEPS, SWEEP_STEPS = 200_000, 16_384
SEEDS, RATES = 10, [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
FRESH, AT_ONCE = 800, 80
"""Fresh markets of as many bars as the test, on which the truth is measured: its standard error is
0.011 a year where that of a test is 0.32. Policies of a job share it. Walked so many at once."""


def trained(
    process: Process, markets: int, seed: int, posterior: bool, again: int
) -> list[dict[str, Any]]:
    """A policy a market: grade, 90% intervals of its Sharpe ratio, and its true one.

    Args: again: further tests of each policy, see `tested_again`.
    """
    bars = simulated(process, markets, BARS, seed)
    with tempfile.TemporaryDirectory() as base, _own_index(base):
        result = tradax.train(
            "ppo",
            "discrete_trading",
            bars,
            preprocessing=False,
            total_timesteps=TRAIN_STEPS,
            settings={"ppo": PPO, "discrete_trading": costs(process)},
            skip_posterior=not posterior,
            evaluations=10,
            log_rows=5,
            seed=seed,
            out=Path(base) / "run",
            **SPLITS,
        )
    said = [
        result.summary["symbols"][symbol] if markets > 1 else result.summary
        for symbol in bars.symbols
    ]
    policies = [result.policies[symbol] for symbol in bars.symbols]
    true = true_sharpes(policies, process, seed)
    further = tested_again(policies, process, seed, posterior, again)
    found = []
    for summary, truth, tests in zip(said, true, further, strict=True):
        assert summary["test"]["bars"] == TEST
        found.append(
            {
                "grade": summary["verdict"]["grade"],
                "bootstrap": summary["verdict"]["figures"]["sharpe_interval_90"],
                "posterior": (summary["posterior"] or {}).get("sharpe_interval"),
                "true": truth,
                "again": tests,
            }
        )
    return found


def swept(process: Process, markets: int, seed: int) -> list[dict[str, Any]]:
    """The best of a sweep of 50 members a market, chosen honestly and not: grades."""
    bars = simulated(process, markets, BARS, seed)
    with tempfile.TemporaryDirectory() as base, _own_index(base):
        result = tradax.sweep(
            "ppo",
            "discrete_trading",
            bars,
            seeds=range(seed, seed + SEEDS),
            grid={"ppo.learning_rate": RATES},
            preprocessing=False,
            total_timesteps=SWEEP_STEPS,
            settings={"ppo": PPO, "discrete_trading": costs(process)},
            skip_posterior=True,
            evaluations=2,
            log_rows=1,
            out=Path(base) / "sweep",
            **SPLITS,
        )
        policies: dict[str, list[Any]] = {symbol: [] for symbol in bars.symbols}
        for member in result.members:
            path = member_folder(result.run_dir, member["number"]) / "policy.zip"
            policies[member["symbol"]].append(load_policy(path))
    by_test = _best_by_test(bars, [policies[symbol] for symbol in bars.symbols], process, seed)
    return [
        {"by_validation": result.tested[symbol]["verdict"]["grade"], **grades}
        for symbol, grades in zip(bars.symbols, by_test, strict=True)
    ]


def costs(process: Process) -> dict[str, float]:
    """None on noise, where most policies would else learn not to trade: too easy a test."""
    return {} if process.edge else {"commission_bps": 0.0, "half_spread_bps": 0.0}


def true_sharpes(policies: list[Any], process: Process, seed: int) -> list[float | None]:
    """Annual, on fresh bars of the same process; None of a policy that never trades."""
    stacked, moments = _stacked(policies), []
    for part in range(FRESH // AT_ONCE):
        bars = simulated(process, AT_ONCE, TEST + 2, [10_000_000 + seed, part])
        env, params, span = _markets(bars, None, process)
        moments.append(np.asarray(_moments(env, params, span, stacked), np.float64).mean(axis=1))
    found = np.mean(moments, axis=0)  # [M, 2]
    variance = found[:, 1] - found[:, 0] ** 2
    return [
        float(mean / np.sqrt(v) * np.sqrt(DAYS)) if v > 1e-12 else None
        for mean, v in zip(found[:, 0], variance, strict=True)
    ]


def tested_again(
    policies: list[Any], process: Process, seed: int, posterior: bool, times: int
) -> list[list[dict[str, Any]]]:
    """Intervals of each policy over that many other spans of the process, for the coverage alone.

    Whether an interval holds the truth depends on the test's own market, which no other policy
    shares; to train one takes far longer than to test it once more.
    """
    if times == 0:
        return [[] for _ in policies]
    bars = simulated(process, len(policies) * times, TEST + 2, [20_000_000 + seed, 0])
    env, params, span = _markets(bars, None, process)
    repeated = jax.tree.map(lambda x: jnp.repeat(x, times, axis=0)[:, None], _stacked(policies))
    returns = np.asarray(_tested(env, params, span, repeated), np.float64)[:, 0]  # [M * times, n]
    # The first bar has no return yet, and the second one begins the test.
    hold = np.asarray(bars.close[:, 2:] / bars.close[:, 1:-1] - 1.0, np.float64)
    found = [_intervals(*both, posterior) for both in zip(returns, hold, strict=True)]
    return [found[i : i + times] for i in range(0, len(found), times)]


def _intervals(returns: np.ndarray, hold: np.ndarray, posterior: bool) -> dict[str, Any]:
    """90% intervals of the Sharpe ratio, with blocks as the verdict has them."""
    own, other = np.log1p(returns), np.log1p(hold)
    block = block_length(np.stack([own - other, own, returns, hold], axis=1))
    sharpe = performance_intervals(returns, DAYS, block=block)["sharpe"]
    sampled = sharpe_posterior(returns, DAYS, benchmark=hold) if posterior else None
    return {
        "bootstrap": None if sharpe is None else sharpe.ends,
        "posterior": None if sampled is None else sampled.sharpe_interval,
    }


def _best_by_test(
    bars: Bars, policies: list[list[Any]], process: Process, seed: int
) -> list[dict[str, str]]:
    """All members are tested, and the one with the highest Sharpe ratio is shown."""
    env, params, span = _markets(bars, SPLITS, process)

    returns = _tested(env, params, span, _stacked([_stacked(own) for own in policies]))
    returns = np.asarray(returns, np.float64)  # [M, 50, n]
    pipeline = Pipeline.fit(bars, features.Config(indicators=False), train=0.4, validation=0.1454)
    grades = []
    for index, market in enumerate(pipeline.transform(bars)):
        sharpes = [sharpe_ratio(own) for own in returns[index]]
        best = int(np.argmax([-np.inf if s is None else s for s in sharpes]))
        own = jax.tree.map(lambda x, i=index: x[i], params)
        shown = backtest(policies[index][best], discrete_trading, env, own, (market,), span)
        hold = np.diff(np.log(shown.baselines["buy_and_hold"].net_worth))
        excesses = [sharpe_ratio(np.log1p(one) - hold) for one in returns[index]]
        assert sharpes[best] is None or np.isclose(
            excesses[best] or 0.0, excess_per_bar(shown) or 0.0, atol=1e-3
        )
        record = Record(
            trials=len(sharpes),
            tested=len(sharpes),
            missing=0,
            sharpes=tuple(s for s in sharpes if s is not None),
            excesses=tuple(s for s in excesses if s is not None),
        )
        per_year = market.periods_per_year
        grades.append(
            {
                "by_test": assess(shown, periods_per_year=per_year, seed=seed, trials=record).grade,
                "undeflated": assess(shown, periods_per_year=per_year, seed=seed).grade,
            }
        )
    return grades


def _markets(
    bars: Bars, splits: dict[str, float] | None, process: Process
) -> tuple[Any, Any, Span]:
    """The environment, its parameters stacked over symbols, and the test span, or all of it."""
    fractions = splits or {"train_fraction": 0.5, "validation_fraction": 0.1}
    pipeline = Pipeline.fit(
        bars,
        features.Config(indicators=False),
        train=fractions["train_fraction"],
        validation=fractions["validation_fraction"],
    )
    span = pipeline.splits.test
    if splits is None:
        span = Span(pipeline.splits.train.first, span.last)
    made = [
        discrete_trading.make(discrete_trading.Config(**costs(process)), market, span)
        for market in pipeline.transform(bars)
    ]
    return made[0][0], jax.tree.map(lambda *x: jnp.stack(x), *(p for _, p in made)), span


@eqx.filter_jit
def _moments(env, params, span: Span, policies) -> jax.Array:
    """First and second moment of each policy's returns on each market [policies, markets, 2]."""

    def one(policy, params):
        returns = _returns(env, params, span, policy)
        return jnp.stack([returns.mean(), (returns**2).mean()])

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(policies, params)


@eqx.filter_jit
def _tested(env, params, span: Span, policies) -> jax.Array:
    """Returns of each market's own policies [markets, members, n]."""

    def one(policy, params):
        return _returns(env, params, span, policy)

    return jax.vmap(jax.vmap(one, (0, None)))(policies, params)


def _returns(env, params, span: Span, policy) -> jax.Array:
    """Simple returns of a deterministic walk [n]."""
    params = discrete_trading.over_span(params, span)
    source = JaxSource(env=env, params=params, spec=policy.spec, num_envs=1)
    steps = span.last - span.first
    _, info = source.walk(policy.actor(sample=False), jax.random.key(0), steps)
    worth = jnp.concatenate([params.initial_cash[None], info["net_worth"]])
    return worth[1:] / worth[:-1] - 1.0


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def _own_index(base: str):
    return mock.patch.dict(os.environ, {"TRADAX_TRIALS": str(Path(base) / "trials.jsonl")})
