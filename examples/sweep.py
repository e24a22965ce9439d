"""Two stocks, three learning rates, four seeds: 24 runs as one program.

python examples/sweep.py
"""

import tempfile

import tradax

with tempfile.TemporaryDirectory() as folder:
    swept = tradax.sweep(
        data="us20",
        symbols=["AAPL", "JPM"],
        seeds=4,
        grid={"ppo.learning_rate": [1e-4, 1e-3, 1e-2]},
        total_timesteps=20_000,
        skip_posterior=True,
        out=f"{folder}/sweep",
    )
    for line in swept.table:
        rate = swept.settings[line.setting]["ppo"]["learning_rate"]
        print(f"{line.symbol}: {rate:g} -> {line.score:.3f} ({line.low:.3f} to {line.high:.3f})")
    for symbol, summary in swept.tested.items():
        print(f"{symbol}: {summary['verdict']['headline']}")
