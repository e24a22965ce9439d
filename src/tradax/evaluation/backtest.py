"""Walk a span that the policy never saw, beside the baselines, all at the same costs."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import numpy as np

from tradax.data.pipeline import Market
from tradax.data.splits import Span
from tradax.envs._baselines import Plan
from tradax.evaluation import metrics
from tradax.protocols import Policy
from tradax.rollout import JaxSource


@dataclass(frozen=True)
class Curve:
    """What one strategy did; index 0 of `net_worth` and `timestamps` is before its first bar."""

    name: str
    timestamps: np.ndarray
    """[n + 1], of the bar at whose close the net worth was taken."""
    net_worth: np.ndarray
    """[n + 1]"""
    price: np.ndarray
    """[n + 1], close."""
    shares: np.ndarray
    """[n], held at the end of each bar."""
    traded: np.ndarray
    """[n], shares bought plus shares sold."""
    change: np.ndarray
    """[n], signed change of shares."""
    fill_price: np.ndarray
    """[n], of the last fill in the bar; 0 without one."""
    cost: np.ndarray
    """[n], in currency."""
    turnover: np.ndarray
    """[n], in currency."""
    actions: np.ndarray
    """[n, ...], as the environment was given them."""
    metrics: metrics.Metrics

    @property
    def returns(self) -> np.ndarray:
        """Simple returns [n]."""
        return self.net_worth[1:] / self.net_worth[:-1] - 1.0


@dataclass(frozen=True)
class Backtest:
    """A policy on a held-out span, and what it must beat."""

    symbol: str
    span: Span
    policy: Curve
    gross: Curve
    """The same orders at no cost."""
    baselines: dict[str, Curve]
    """Name -> what it did; `buy_and_hold` and `cash` are always among them."""
    look_ahead: bool
    """Orders were filled at a price that the agent had already seen."""


def backtest(
    policy: Policy,
    module: ModuleType,
    env: Any,
    params: Any,
    market: Market,
    span: Span,
    seed: int = 0,
) -> Backtest:
    """Walk `span` once, deterministically, at the costs of `params`.

    Args:
        module: the environment's, with `over_span`, `without_costs` and `rivals`.
    """
    n_steps = span.last - span.first
    params = module.over_span(params, span)
    source = JaxSource(env=env, params=params, spec=policy.spec, num_envs=1)
    key = jax.random.key(seed)

    def run(name: str, actor, params=params) -> Curve:
        walked = _walk(eqx.tree_at(lambda s: s.params, source, params), actor, key, n_steps)
        return _curve(name, *walked, market, span, float(params.initial_cash))

    learned = run("policy", policy.actor(sample=False))
    actions = jax.numpy.asarray(learned.actions)
    rivals = module.rivals(env, params, n_steps, key)
    return Backtest(
        symbol=market.symbol,
        span=span,
        policy=learned,
        gross=run("gross", Plan(actions), module.without_costs(params)),
        baselines={name: run(name, actor) for name, actor in rivals.items()},
        look_ahead=env.fill == "close",
    )


@eqx.filter_jit
def _walk(source: JaxSource, actor, key: jax.Array, n_steps: int):
    return source.walk(actor, key, n_steps)


def _curve(
    name: str, actions, info: dict, market: Market, span: Span, initial_cash: float
) -> Curve:
    info = {key: np.asarray(value, np.float64) for key, value in info.items()}
    over = info["over"].astype(bool)  # after ruin nothing happens any more
    for key in ("cost", "traded", "turnover", "fill_price"):
        info[key] = np.where(over, 0.0, info[key])
    rows = slice(span.first, span.last + 1)
    net_worth = np.concatenate([[initial_cash], info["net_worth"]])
    shares = info["shares"]
    if over.any():
        net_worth[1:][over] = net_worth[1:][~over][-1]
        shares = np.where(over, 0.0, shares)
    change = np.diff(shares, prepend=0.0)
    return Curve(
        name=name,
        timestamps=market.timestamps[rows],
        net_worth=net_worth,
        price=market.close[rows],
        shares=shares,
        traded=info["traded"],
        change=np.where(info["traded"] > 0, change, 0.0),
        fill_price=info["fill_price"],
        cost=info["cost"],
        turnover=info["turnover"],
        actions=np.asarray(actions),
        metrics=metrics.compute(
            net_worth, shares, info["cost"], info["turnover"], market.periods_per_year
        ),
    )
