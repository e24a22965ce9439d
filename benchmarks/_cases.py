"""Markets and networks on which all sides of a row are compared; the same numbers in each process.

Nothing is imported here but what the row needs, for a peer's environment may lack the rest.
"""

from typing import Any

import numpy as np

ASSETS = 20


def environment(case: dict[str, Any]) -> tuple[Any, Any]:
    """The gymnax environment that a case names, and its parameters."""
    return MARKETS[case["env"]](case) if case["env"] in MARKETS else _classic(case)


def portfolio(case: dict[str, Any]) -> tuple[Any, Any]:
    """20 assets, ten years of daily bars; `features` columns of noise, as speed asks no value."""
    from tradax.data import synthetic
    from tradax.data.pipeline import Market
    from tradax.data.splits import Span
    from tradax.envs import portfolio

    bars = synthetic.load("gbm", bars=2_520, assets=ASSETS, correlation=0.3)
    rng = np.random.default_rng(0)
    each = case["features"] // ASSETS
    zeros = np.zeros(len(bars))
    markets = tuple(
        Market(
            symbol=symbol,
            timestamps=bars.timestamps,
            open=bars.open[i],
            high=bars.high[i],
            low=bars.low[i],
            close=bars.close[i],
            volume=zeros,
            volatility=zeros,
            table=rng.standard_normal((len(bars), each)).astype(np.float32),
            names=tuple(f"x{j}" for j in range(each)),
            first_row=0,
            periods_per_year=252.0,
            has_range=True,
            has_volume=False,
        )
        for i, symbol in enumerate(bars.symbols)
    )
    return portfolio.make(portfolio.Config(), markets, Span(0, len(bars) - 1))


def trading(case: dict[str, Any]) -> tuple[Any, Any]:
    """What `gymnasium.make("tradax/Trading-v0")` trades: the S&P 500's training years."""
    from tradax.envs._made import made

    found = made("trading", data="sp500")
    return found.env, found.params


def trading_400(case: dict[str, Any]) -> tuple[Any, Any]:
    """The same with 400 features: 34 bars of them, without the last columns."""
    from dataclasses import replace

    from tradax.envs._made import made

    found = made("trading", data="sp500", features={"window": 34})
    return found.env, replace(found.params, table=found.params.table[:, :400])


def planted(case: dict[str, Any]) -> tuple[Any, Any, Any]:
    """`trading` with a signal in it (`benchmarks._planted`): environment, training, validation.

    The best rule's Sharpe ratio is 2 a year.
    """
    from benchmarks._planted import Process, edge_for, simulated
    from tradax.data import features
    from tradax.data.pipeline import Pipeline
    from tradax.envs import trading

    bars = simulated(Process(edge=edge_for(2.0)), symbols=1, bars=5_040, seed=0)
    pipeline = Pipeline.fit(bars, features.Config(indicators=False))
    (market,) = pipeline.transform(bars)
    env, params = trading.make(trading.Config(), market, pipeline.splits.train)
    return env, params, trading.over_span(params, pipeline.splits.validation)


def flat(env: Any) -> Any:
    """A market as any other gymnax environment: whole observations, not rows and accounts."""
    from gymnax.environments.environment import Environment

    class Flat(Environment):
        num_actions = env.num_actions
        default_params = env.default_params
        step, reset = env.step, env.reset
        action_space, observation_space = env.action_space, env.observation_space

    return Flat()


def _classic(case: dict[str, Any]) -> tuple[Any, Any]:
    from tradax.rollout import gymnax_environment

    env, params = gymnax_environment(case["env"])
    if case.get("upright"):  # nobody falls: every episode takes all its steps
        never = np.float32(1e30)
        params = params.replace(x_threshold=never, theta_threshold_radians=never)
    return env, params


MARKETS = {"portfolio": portfolio, "trading": trading, "trading_400": trading_400}


def level(case: dict[str, Any], env: Any, validation: Any) -> float:
    """The return that `to_return` waits for: a share of what the rule that knows the market has.

    It holds the asset wherever the signal of `planted` is 1, and is out of the market elsewhere.
    """
    import jax
    import jax.numpy as jnp

    from tradax.envs._baselines import Plan
    from tradax.rollout import jax_source

    first, rows = int(validation.first_row), int(validation.episode_length)
    signal = validation.table[first : first + rows, -1]
    plan = Plan(jnp.stack([signal, jnp.ones_like(signal)], axis=1))
    source = jax_source(env, validation)
    returns, _ = source.episodes(plan, jax.random.key(0), rows)
    return case["share"] * float(returns[0])
