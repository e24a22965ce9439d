"""Share of a clairvoyant's profit that PPO captures when it is shown tomorrow's return.

A feature that no real agent can have, the return of the next bar, is added to each asset's table;
orders are filled at the close at which they are given, at no cost. The clairvoyant holds, on every
bar, what will rise the most, or cash. Profit is log growth over the test years, which training did
not see. Real daily prices: the S&P 500 for one asset, three US stocks for the portfolio. The
claim: every seed captures more than 90%.
"""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._training import train_seeds
from tradax import discovery
from tradax.algorithms import ppo
from tradax.data import features, samples
from tradax.data.pipeline import Market, Pipeline
from tradax.rollout import jax_source

SEEDS, STEPS = 5, 1_000_000
COSTLESS = {"commission_bps": 0.0, "half_spread_bps": 0.0, "fill": "close"}
DATA = {
    "trading": ("sp500", None),
    "discrete_trading": ("sp500", None),
    "portfolio": ("us20", ["AAPL", "JPM", "XOM"]),
}


def main() -> None:
    print("| environment | clairvoyant's growth | share captured by each seed | lowest |")
    print("|---|---|---|---|")
    for name in DATA:
        best, captured = shares(name)
        listed = ", ".join(f"{share:.1%}" for share in captured)
        held = "" if captured.min() > 0.9 else " (THE CLAIM DOES NOT HOLD)"
        print(f"| {name} | {best:.2f} | {listed} | {captured.min():.1%}{held} |", flush=True)


def shares(name: str) -> tuple[float, np.ndarray]:
    """Log growth of the clairvoyant, and the share of it of every seed."""
    data, symbols = DATA[name]
    bars = samples.load(data, symbols=symbols)
    pipeline = Pipeline.fit(bars, features.Config(indicators=False))
    markets = tuple(foresight(market) for market in pipeline.transform(bars))
    module = discovery.module("envs", name)
    one = markets if getattr(module, "HOLDS_ALL_SYMBOLS", False) else markets[0]
    env, params = module.make(module.Config(**COSTLESS), one, pipeline.splits.train)
    config = ppo.Config(gamma=0.0, gae_lambda=0.0, normalize_advantages=True)
    result = train_seeds(ppo, config, env, params, seeds=SEEDS, steps=STEPS)
    span = pipeline.splits.test
    walked = jax_source(env, module.over_span(params, span))
    n_steps = span.last - span.first
    close = np.stack([m.close for m in markets], axis=1)[span.first : span.last + 1]
    best = float(np.log(np.maximum(close[1:] / close[:-1], 1.0).max(axis=1)).sum())

    @jax.jit
    def growth(policy):
        actor = policy.actor(sample=False)
        worth = walked.walk(actor, jax.random.key(0), n_steps)[1]["net_worth"][-1]
        return jnp.log(worth / params.initial_cash)

    return best, np.asarray(jax.vmap(growth)(result.policy), float) / best


def foresight(market: Market) -> Market:
    """The market with the next bar's return, over its usual size, as a feature more."""
    following = np.append(market.close[1:] / market.close[:-1] - 1.0, 0.0)
    following = np.clip(following / np.std(following), -5.0, 5.0)
    table = np.column_stack([market.table, following]).astype(market.table.dtype)
    return market._replace(table=table, names=(*market.names, "tomorrow"))


if __name__ == "__main__":
    main()
