"""Train on a data frame that already holds signals of one's own."""

import numpy as np
import polars as pl

import tradax
from tradax.data import samples

bars = samples.load("AAPL")
close = pl.Series(bars.close[0])
frame = pl.DataFrame(
    {
        "timestamp": bars.timestamps,
        **{name: getattr(bars, name)[0] for name in ("open", "high", "low", "close", "volume")},
        # A signal may use this bar and earlier ones; it becomes a feature as it is.
        "distance_to_high": np.log(close / close.rolling_max(60, min_samples=1)),
    }
)
result = tradax.train(
    data=frame, signals=["distance_to_high"], total_timesteps=100_000, skip_posterior=True
)
print(result.summary["verdict"]["headline"])
