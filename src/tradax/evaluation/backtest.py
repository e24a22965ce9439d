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
from tradax.rollout import JaxSource, jax_source


@dataclass(frozen=True)
class Curve:
    """What one strategy did; index 0 of `net_worth` and `timestamps` is before its first bar."""

    name: str
    timestamps: np.ndarray
    """[n + 1], of the bar at whose close the net worth was taken."""
    net_worth: np.ndarray
    """[n + 1]"""
    price: np.ndarray
    """[n + 1], close; for a portfolio what 1 is worth that was put equally into all assets."""
    shares: np.ndarray
    """[n], held at the end of each bar; for a portfolio what is invested, in units of `price`."""
    traded: np.ndarray
    """[n], shares bought plus shares sold."""
    change: np.ndarray
    """[n], signed change of shares; 0 for a portfolio, which buys some and sells others."""
    fill_price: np.ndarray
    """[n], of the last fill in the bar; 0 without one, and for a portfolio."""
    cost: np.ndarray
    """[n], in currency."""
    turnover: np.ndarray
    """[n], in currency."""
    actions: np.ndarray
    """[n, ...], as the environment was given them."""
    metrics: metrics.Metrics
    weights: np.ndarray | None = None
    """[n, assets], of net worth at the end of each bar; only for a portfolio."""

    @property
    def returns(self) -> np.ndarray:
        """Simple returns [n]."""
        return self.net_worth[1:] / self.net_worth[:-1] - 1.0


@dataclass(frozen=True)
class Backtest:
    """A policy on a held-out span, and what it must beat."""

    symbol: str
    """See `symbol_of`."""
    span: Span
    policy: Curve
    gross: Curve
    """The same orders at no cost."""
    baselines: dict[str, Curve]
    """Name -> what it did; `buy_and_hold` and `cash` are always among them."""
    look_ahead: bool
    """Orders were filled at a price that the agent had already seen."""
    assets: tuple[str, ...] = ()
    """Symbols of a portfolio; empty where one symbol is traded."""


def backtest(
    policy: Policy,
    module: ModuleType,
    env: Any,
    params: Any,
    markets: tuple[Market, ...],
    span: Span,
    seed: int = 0,
) -> Backtest:
    """Walk `span` once, deterministically, at the costs of `params`.

    Args:
        module: the environment's, with `over_span`, `without_costs`, `rivals`, and `benchmark`
            where buy-and-hold and cash act in another than the policy.
        markets: what the environment holds: one, or those of a portfolio.
    """
    n_steps = span.last - span.first
    params = module.over_span(params, span)
    source = JaxSource(env=env, params=params, spec=policy.spec, num_envs=1)
    key = jax.random.key(seed)
    apart = jax_source(benchmark_of(module, env), params)

    def run(name: str, actor, params=params) -> Curve:
        at = apart if name in _BENCHMARKS else source
        at = eqx.tree_at(lambda s: s.params, at, params)
        found = walked(at, actor, key, n_steps)
        return _curve(name, *found, markets, span, float(params.initial_cash))

    learned = run("policy", policy.actor(sample=False))
    actions = jax.numpy.asarray(learned.actions)
    rivals = module.rivals(env, params, n_steps, key)
    return Backtest(
        symbol=symbol_of(markets),
        span=span,
        policy=learned,
        gross=run("gross", Plan(actions), module.without_costs(params)),
        baselines={name: run(name, actor) for name, actor in rivals.items()},
        look_ahead=env.fill == "close",
        assets=() if learned.weights is None else tuple(m.symbol for m in markets),
    )


def benchmark_of(module: ModuleType, env: Any) -> Any:
    """The environment in which buy-and-hold and cash act."""
    return module.benchmark(env) if hasattr(module, "benchmark") else env


def symbol_of(markets: tuple[Market, ...]) -> str:
    """The symbol, or a name for several: "A+B", and "20 assets" where that would be long."""
    symbols = [market.symbol for market in markets]
    return "+".join(symbols) if len(symbols) <= _MOST_NAMED else f"{len(symbols)} assets"


@eqx.filter_jit
def walked(source: JaxSource, actor, key: jax.Array, n_steps: int):
    """`source.walk`, compiled once for each shape."""
    return source.walk(actor, key, n_steps)


def _curve(
    name: str, actions, info: dict, markets: tuple[Market, ...], span: Span, initial_cash: float
) -> Curve:
    info = {key: np.asarray(value, np.float64) for key, value in info.items()}
    rows = slice(span.first, span.last + 1)
    close = np.stack([market.close[rows] for market in markets], axis=1)
    price = close[:, 0]
    if "weights" in info:
        price = (close / close[0]).mean(axis=1)
        info |= _as_one_asset(info, price)
    over = info["over"].astype(bool)  # after ruin nothing happens any more
    for key in ("cost", "traded", "turnover", "fill_price"):
        info[key] = np.where(over, 0.0, info[key])
    net_worth = np.concatenate([[initial_cash], info["net_worth"]])
    if over.any():
        net_worth[1:][over] = net_worth[1:][~over][-1]
        for key in {"shares", "weights", "position"} & info.keys():
            info[key][over] = 0.0
    shares, weights = info["shares"], info.get("weights")
    change = np.diff(shares, prepend=0.0) * (info["traded"] > 0)
    return Curve(
        name=name,
        timestamps=markets[0].timestamps[rows],
        net_worth=net_worth,
        price=price,
        shares=shares,
        traded=info["traded"],
        change=change if weights is None else np.zeros_like(change),
        fill_price=info["fill_price"],
        cost=info["cost"],
        turnover=info["turnover"],
        actions=np.asarray(actions),
        metrics=metrics.compute(
            net_worth,
            info.get("position", shares),
            info["cost"],
            info["turnover"],
            markets[0].periods_per_year,
        ),
        weights=weights,
    )


def _as_one_asset(info: dict, price: np.ndarray) -> dict:
    """What a portfolio held and traded, in units of the index of its assets.

    Weights and orders of less than `_ROUNDING` are what float32 and a softmax leave of nothing.
    """
    worth = info["net_worth"]
    turnover = np.where(info["turnover"] > _ROUNDING * worth, info["turnover"], 0.0)
    position = np.abs(info["weights"]).sum(axis=1)
    return {
        "position": np.where(position > _ROUNDING, position, 0.0),
        "shares": info["weights"].sum(axis=1) * worth / price[1:],
        "traded": turnover / price[1:],
        "turnover": turnover,
        "fill_price": np.zeros_like(worth),
    }


_ROUNDING = 1e-5
_BENCHMARKS = ("buy_and_hold", "cash")
_MOST_NAMED = 4
