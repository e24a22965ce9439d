"""Train anew before each of five pieces of the test span, and test them as one (a minute)."""

import tempfile
from pathlib import Path

import tradax

with tempfile.TemporaryDirectory() as folder:
    result = tradax.train(
        data="sp500",
        total_timesteps=100_000,
        train_fraction=0.4,
        validation_fraction=0.1,
        folds=5,
        skip_posterior=True,
        out=Path(folder) / "run",
    )
    print(result.summary["verdict"]["headline"])
    for place, fold in enumerate(result.summary["folds"], 1):
        policy, hold = (fold[name]["total_return"] for name in ("policy", "buy_and_hold"))
        first, last = (date[:10] for date in fold["test"])
        print(f"fold {place}, {first} to {last}: {policy:.1%}, buy and hold {hold:.1%}")
