"""A moving average on the S&P 500, ten years: its true Sharpe ratio, alpha, beta, and next year."""

import numpy as np

from tradax.data import samples
from tradax.evaluation.posterior import sharpe_posterior

close = samples.load("sp500").close[0]
market = close[1:] / close[:-1] - 1.0
mean = np.convolve(close, np.full(100, 0.01))[: len(close)]
invested = (close > mean)[:-1]  # known at the close before the bar
market, invested = market[-2520:], invested[-2520:]

found = sharpe_posterior(invested * market, 252, benchmark=market)
assert found.cone is not None  # where the sampler or the model failed, `note` says so
for name in ("sharpe", "alpha", "beta", "excess"):
    low, high = getattr(found, f"{name}_interval")
    print(f"{name:<7}{getattr(found, f'{name}_mean'):>7.3f}  90% from {low:.3f} to {high:.3f}")
print(f"Sharpe ratio above 0: {found.p_positive:.1%}")
print(f"beats buy-and-hold:   {found.p_beats_benchmark:.1%}")
for quantile, growth in found.cone.policy.items():
    print(f"growth of 1 in a year, {quantile:>2}%: {growth[-1]:.2f}")
