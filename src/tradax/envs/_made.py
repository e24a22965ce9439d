"""What a Gymnasium id stands for: a market with options, on a span of its data, and its spaces."""

import functools
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from gymnasium import spaces

from tradax import discovery
from tradax.config import from_dict
from tradax.data import features as features_module
from tradax.data import normalize, samples
from tradax.data.pipeline import Market, Pipeline
from tradax.envs._market import MarketEnvironment
from tradax.errors import ConfigError
from tradax.spaces import ActionSpec, action_spec

_MOST = float(np.finfo(np.float32).max)  # Gymnasium's checker warns of infinite bounds


class Made(NamedTuple):
    """A market, and how Gymnasium sees it."""

    env: MarketEnvironment
    params: Any
    observation_space: spaces.Box
    action_space: spaces.Space
    """A Box is [-1, 1] in every dimension."""
    action: ActionSpec
    """The market's own."""


def made(
    market: str,
    *,
    data: Any = None,
    symbols: list[str] | None = None,
    signals: list[str] | None = None,
    span: Literal["train", "validation", "test"] | None = None,
    features: dict[str, Any] | None = None,
    train_fraction: float = 0.7,
    validation_fraction: float = 0.15,
    closes_only: bool = False,
    intersection: bool = False,
    **options: Any,
) -> Made:
    """Build a market by name.

    Args:
        data, symbols, signals, closes_only, intersection: as of `tradax.train`; "sp500" by
            default. Only for markets that trade given prices.
        span: "train" plays random windows of the earliest rows; "validation" and "test" walk
            once through the rows that follow. Whatever the span, features are normalised by the
            training rows.
        features: options of the features, such as {"window": 5}.
        options: of the market's `Config`.

    Raises:
        TradaxError: unknown names, bad data, or options outside what is allowed.
    """
    module = discovery.module("envs", market)
    config = from_dict(module.Config, options)
    own = (data, symbols, signals, span, features)
    if "rivals" not in discovery.functions("envs", market):
        names = ("data", "symbols", "signals", "span", "features")
        if given := [n for n, value in zip(names, own, strict=True) if value is not None]:
            raise ConfigError(f"{market} simulates its prices; leave out {', '.join(given)}")
        env, params = module.make(config)
        return _with_spaces(env, params, None)
    if span not in (None, "train", "validation", "test"):
        raise ConfigError(f"span is {span}; it must be train, validation or test")
    given = features_module.Config() if features is None else features
    if isinstance(given, dict):
        given = from_dict(features_module.Config, given)
    listed = tuple(None if x is None else tuple(x) for x in (symbols, signals))
    data = "sp500" if data is None else data
    # Samples do not change, and a vector of environments asks for the same one many times.
    fit = _fitted if isinstance(data, str) and data in samples.SAMPLES else _fitted.__wrapped__
    pipeline, markets = fit(
        data, *listed, closes_only, intersection, given, train_fraction, validation_fraction
    )
    chosen = markets
    if len(markets) == 1 and not getattr(module, "HOLDS_ALL_SYMBOLS", False):
        chosen = markets[0]
    env, params = module.make(config, chosen, pipeline.splits.train)
    if span in ("validation", "test"):
        params = module.over_span(params, getattr(pipeline.splits, span))
    return _with_spaces(env, params, normalize.LIMIT if given.indicators else _MOST)


@functools.lru_cache(maxsize=4)
def _fitted(
    data: Any,
    symbols: tuple[str, ...] | None,
    signals: tuple[str, ...] | None,
    closes_only: bool,
    intersection: bool,
    config: features_module.Config,
    train: float,
    validation: float,
) -> tuple[Pipeline, tuple[Market, ...]]:
    bars = samples.load(
        data, symbols=symbols, signals=signals, closes_only=closes_only, intersection=intersection
    )
    pipeline = Pipeline.fit(bars, config, train=train, validation=validation)
    return pipeline, pipeline.transform(bars)


def _with_spaces(env: MarketEnvironment, params: Any, feature_limit: float | None) -> Made:
    """Args: feature_limit: largest absolute feature; None: the table itself shows its bounds."""
    table = np.asarray(env.market_table(params))
    if feature_limit is None:
        low, high = table.min(axis=0), table.max(axis=0)
        low, high = low - (low == high), high + (low == high)  # a Box is no point
    else:
        low, high = (np.full(table.shape[1], s * feature_limit) for s in (-1.0, 1.0))
    account = np.full(env.account_size(params), env.account_limit)
    action = action_spec(env.action_space(params))
    if action.discrete:
        action_space = spaces.Discrete(action.size)
    else:
        action_space = spaces.Box(-1.0, 1.0, (action.size,), np.float32)
    return Made(
        env,
        jax.tree.map(jax.numpy.asarray, params),
        spaces.Box(
            np.append(low, -account).astype(np.float32),
            np.append(high, account).astype(np.float32),
            dtype=np.float32,
        ),
        action_space,
        action,
    )
