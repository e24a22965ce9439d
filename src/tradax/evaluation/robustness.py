"""What is left of a result at other costs, and with slower orders.

All walks of a kind are one compiled program, whose arrays are stacked only where they differ from
walk to walk; markets of equal shapes share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax.data.pipeline import Market
from tradax.data.splits import Span
from tradax.envs._baselines import Plan
from tradax.evaluation.backtest import Backtest, benchmark_of
from tradax.evaluation.regimes import (
    Earned,
    Figures,
    Period,
    Regime,
    figures,
    periods,
    volatility_regimes,
)
from tradax.protocols import Actor
from tradax.rollout import JaxSource, jax_source
from tradax.spaces import Observation

COSTS_BPS = (0, 1, 2, 5, 10, 20, 35, 50)
"""Of which tables show figures."""
DELAYS = (1, 2, 5)
_GRID_BPS = np.arange(0.0, COSTS_BPS[-1] + 1.0)
_SAME = 1e-6  # total returns of float32 walks that differ by less do not differ


class Piece(NamedTuple):
    """A stretch of the tested span, and who acted there."""

    actor: Actor
    params: Any
    """The environment's, at the costs of the test."""
    span: Span


class AtCost(NamedTuple):
    """Both at the same cost, in basis points of what is traded, one way."""

    bps: float
    policy: Figures
    buy_and_hold: Figures

    @property
    def excess(self) -> float:
        """Total return beyond that of buy-and-hold."""
        return self.policy.total_return - self.buy_and_hold.total_return


class BreakEven(NamedTuple):
    """The lowest cost at which the policy earns no more than something else."""

    bps: float | None
    words: str
    """The number; or why there is none."""


class Delay(NamedTuple):
    """Orders that act so many bars later than in the test."""

    bars: int
    policy: Figures


class Copy(NamedTuple):
    """The same training on destroyed prices, on its own test span."""

    total_return: float
    excess: float
    """Total return beyond that of buy-and-hold on the same prices."""
    sharpe: float | None


Copies = dict[str, list[Copy]]
"""What was done to the prices -> a result a copy."""


def outcome(result: Backtest) -> Copy:
    """What the policy of a test made of it."""
    made = result.policy.metrics
    hold = result.baselines["buy_and_hold"].metrics
    return Copy(made.total_return, made.total_return - hold.total_return, made.sharpe)


@dataclass(frozen=True)
class Robustness:
    """How a result changes with what it rests on."""

    costs: list[AtCost]
    """Every whole basis point from 0 to 50."""
    beats_hold_until: BreakEven
    beats_cash_until: BreakEven
    delays: list[Delay]
    """0 bars first, as tested."""
    periods: list[Period]
    regimes: list[Regime]


def robustness(
    result: Backtest,
    module: ModuleType,
    env: Any,
    pieces: Sequence[Piece],
    markets: tuple[Market, ...],
) -> Robustness:
    """Walk the span of `result` again and cut it up.

    Args:
        module: the environment's, with `over_span` and `at_cost`.
        pieces: what the span consists of, in order; each begins with cash alone.
        markets: what the environment holds.
    """
    per_year = markets[0].periods_per_year
    tested, held, cash = result.policy, *(result.baselines[n] for n in ("buy_and_hold", "cash"))
    idle = module.idle(env) if hasattr(module, "idle") else jnp.asarray(cash.actions[0])
    walks = [Variation(cost_bps=bps) for bps in _GRID_BPS] + [Variation(delay=d) for d in DELAYS]
    delayed = [
        piece._replace(actor=Delayed(piece.actor, idle, jnp.int32(0), max(DELAYS)))
        for piece in pieces
    ]
    ours = curves(module, env, delayed, walks)
    whole = Span(pieces[0].span.first, pieces[-1].span.last)
    hold = [Piece(Plan(jnp.asarray(held.actions)), pieces[0].params, whole)]
    theirs = curves(module, benchmark_of(module, env), hold, walks[: len(_GRID_BPS)])
    costs = [
        AtCost(float(bps), figures(one, per_year), figures(other, per_year))
        for bps, one, other in zip(_GRID_BPS, ours, theirs, strict=False)
    ]
    return Robustness(
        costs=costs,
        beats_hold_until=break_even(_GRID_BPS, [at.excess for at in costs]),
        beats_cash_until=break_even(
            _GRID_BPS, [at.policy.total_return - cash.metrics.total_return for at in costs]
        ),
        delays=[
            Delay(bars, figures(worth, per_year))
            for bars, worth in zip(
                (0, *DELAYS), [tested.net_worth, *ours[len(_GRID_BPS) :]], strict=True
            )
        ],
        periods=periods(tested.timestamps[1:], tested.returns, held.returns, per_year),
        regimes=volatility_regimes(
            known_volatility(markets, whole), tested.returns, held.returns, per_year
        ),
    )


class Variation(NamedTuple):
    """How a walk differs from the test."""

    cost_bps: float | None = None
    """Of what is traded, one way, and no other cost; None: the costs of the test."""
    delay: int = 0
    """Bars."""


def curves(
    module: ModuleType, env: Any, pieces: Sequence[Piece], variations: Sequence[Variation]
) -> np.ndarray:
    """Net worth [variations, n + 1] of the pieces chained, as a multiple of that at the start.

    Args:
        pieces: their actors are `Delayed` where a variation has a delay.
    """
    worth = np.ones((len(variations), 1))
    for piece in pieces:
        params = module.over_span(piece.params, piece.span)
        walked = net_worths(
            jax_source(env, params),
            [(_params(module, params, v), _actor(piece.actor, v)) for v in variations],
            piece.span.last - piece.span.first,
        )
        worth = np.concatenate([worth, worth[:, -1:] * walked[:, 1:] / walked[:, :1]], axis=1)
    return worth


def _params(module: ModuleType, params: Any, variation: Variation) -> Any:
    if variation.cost_bps is None:
        return params
    return module.at_cost(params, 1e-4 * variation.cost_bps)


def _actor(actor: Actor, variation: Variation) -> Actor:
    if not isinstance(actor, Delayed):
        return actor
    return eqx.tree_at(lambda a: a.delay, actor, jnp.int32(variation.delay))


class Delayed(Actor):
    """The orders of `actor`, each acting some bars later; until the first does, `idle`.

    It is asked on every bar, and sees the account as the late orders have left it.
    """

    actor: Actor
    idle: jax.Array
    """The action that leaves cash alone."""
    delay: jax.Array
    """int32, at most `longest`."""
    longest: int = eqx.field(static=True)

    def tabulate(self, table: jax.Array) -> "Delayed":
        return eqx.tree_at(lambda a: a.actor, self, self.actor.tabulate(table))

    @property
    def tabulations(self) -> int:
        return self.actor.tabulations

    def initial_memory(self, batch: int):
        waiting = jnp.broadcast_to(self.idle, (self.longest + 1, batch, *self.idle.shape))
        return self.actor.initial_memory(batch), waiting

    def __call__(self, obs: Observation, memory: Any, key: jax.Array):
        inner, waiting = memory  # waiting: [longest + 1, B, ...], the newest first
        action, inner, extras = self.actor(obs, inner, key)
        waiting = jnp.concatenate([action[None].astype(waiting.dtype), waiting[:-1]])
        return waiting[self.delay], (inner, waiting), extras


def net_worths(
    source: JaxSource, strategies: Sequence[tuple[Any, Actor]], n_steps: int
) -> np.ndarray:
    """Net worth [strategies, n_steps + 1] of walks side by side, deterministic; after ruin what
    was left.

    Args:
        strategies: parameters and actor of each; equal but for the values of their arrays.
    """
    trees = [eqx.partition(strategy, eqx.is_array) for strategy in strategies]
    leaves = [jax.tree.leaves(arrays) for arrays, _ in trees]
    differs = tuple(any(x is not xs[0] for x in xs) for xs in zip(*leaves, strict=True))
    merged = [
        jnp.stack(xs) if differ else xs[0]
        for xs, differ in zip(zip(*leaves, strict=True), differs, strict=True)
    ]
    like = jax.tree.structure(trees[0][0])
    worth, over = _abreast(source, merged, trees[0][1], like, differs, len(leaves), n_steps)
    worth, over = np.asarray(worth, np.float64), np.asarray(over)
    initial = np.broadcast_to(float(source.params.initial_cash), (len(leaves), 1))
    worth = np.concatenate([initial, worth], axis=1)
    last = np.count_nonzero(~over, axis=1)  # steps that were taken
    steps = np.minimum(np.arange(n_steps + 1), last[:, None])
    return np.take_along_axis(worth, steps, axis=1)


@eqx.filter_jit
def _abreast(source, merged: list, rest, like, differs: tuple, copies: int, n_steps: int):
    """Returns: net worth [copies, n_steps], and whether the episode was over before."""

    def one(leaves):
        params, actor = eqx.combine(jax.tree.unflatten(like, leaves), rest)
        mine = eqx.tree_at(lambda s: s.params, source, params)
        _, info = mine.walk(actor, jax.random.key(0), n_steps)
        return info["net_worth"], info["over"]

    axes = [0 if differ else None for differ in differs]
    return jax.vmap(one, in_axes=(axes,), axis_size=copies)(merged)


def break_even(bps: np.ndarray, gain: Sequence[float]) -> BreakEven:
    """The lowest cost at which `gain` falls to 0, linear between the costs that were walked.

    Args:
        bps, gain: [costs], from the lowest cost on; gain is what the policy earns beyond the other.
    """
    values = np.asarray(gain, float)
    if np.abs(values).max() <= _SAME:
        return BreakEven(None, "none: both earn the same at every cost")
    if values[0] <= 0.0:
        return BreakEven(None, "below 0")
    not_above = np.flatnonzero(values <= 0.0)
    if not len(not_above):
        return BreakEven(None, f"above {bps[-1]:g}")
    after = not_above[0]
    before = after - 1
    share = values[before] / (values[before] - values[after])
    found = float(bps[before] + share * (bps[after] - bps[before]))
    return BreakEven(found, f"{found:.1f}")


def known_volatility(markets: tuple[Market, ...], span: Span) -> np.ndarray:
    """Realised volatility of a bar [n] as it was known before each return of the span; the mean
    over a portfolio's assets."""
    return np.mean([m.volatility[span.first : span.last] for m in markets], axis=0)


def to_plain(found: Robustness) -> dict[str, Any]:
    """For summary.json."""

    def both(row: Any) -> dict[str, Any]:
        return {
            name: value._asdict() if isinstance(value, Figures | Earned) else value
            for name, value in row._asdict().items()
        }

    return {
        "costs": [both(at) | {"excess": at.excess} for at in found.costs if at.bps in COSTS_BPS],
        "break_even_bps": {
            "buy_and_hold": found.beats_hold_until._asdict(),
            "cash": found.beats_cash_until._asdict(),
        },
        "delays": [both(delay) for delay in found.delays],
        "periods": [both(period) for period in found.periods],
        "regimes": [both(regime) for regime in found.regimes],
    }
