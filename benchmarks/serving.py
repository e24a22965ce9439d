"""Time from a bar to its order: `tradax act --stream` inside one process, over a held-out span.

A line of JSON in, a line of JSON out: checks, features, normaliser, the environment's step and
the policy. A first answer compiles, and is reported apart. The policy is that of a short training.
"""

import json
import tempfile
import time

import jax
import numpy as np

import tradax
from tradax.preparation import reopen
from tradax.serving.history import row
from tradax.serving.stream import Stream, open_traders

RUNS = {
    "trading": {"data": "sp500"},
    "discrete_trading": {"data": "AAPL"},
    "portfolio": {"data": "us20", "symbols": ["AAPL", "JPM", "MRK", "PG", "XOM"]},
}


def seconds(env: str, asked: dict) -> np.ndarray:
    """Of every answer with an order; a portfolio's from the last of its bars."""
    with tempfile.TemporaryDirectory() as folder:
        run = tradax.train(
            env=env, total_timesteps=20_000, skip_posterior=True, out=f"{folder}/run", **asked
        ).run_dir
        _, task = reopen(run)
        assert task.bars is not None
        assert task.pipeline is not None
        stream = Stream(open_traders(run))
        span = task.pipeline.splits.test
        taken = []
        for number in range(span.first, span.last + 1):
            bars = row(task.bars, number)
            lines = [json.dumps({**b, "timestamp": b["timestamp"].isoformat()}) for b in bars]
            for line in lines:
                start = time.perf_counter()
                answer = stream.answer(line)
                elapsed = time.perf_counter() - start
            assert "account" in answer
            taken.append(elapsed)
    return np.array(taken)


def main() -> None:
    print(f"{jax.devices()[0].device_kind}, {jax.default_backend()}\n")
    print("| environment | bars | median, ms | 99th percentile, ms | first, ms |")
    print("|---|---|---|---|---|")
    for env, asked in RUNS.items():
        first, *rest = 1e3 * seconds(env, asked)
        median, high = np.quantile(rest, (0.5, 0.99))
        print(f"| {env} | {len(rest)} | {median:.2f} | {high:.2f} | {first:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
