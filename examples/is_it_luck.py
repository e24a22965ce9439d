"""Twenty moving averages on the S&P 500: is the best of them more than the luckiest?"""

import numpy as np

from tradax.data import samples
from tradax.evaluation.bootstrap import performance_intervals
from tradax.evaluation.overfitting import overfitting
from tradax.evaluation.sharpe import deflated_sharpe, probabilistic_sharpe, sharpe_ratio
from tradax.evaluation.superiority import superior_ability

close = samples.load("sp500").close[0]
market = close[1:] / close[:-1] - 1.0
lengths = range(10, 210, 10)
trials = np.zeros((len(market), len(lengths)))
for column, length in enumerate(lengths):
    mean = np.convolve(close, np.full(length, 1.0 / length))[: len(close)]
    invested = (close > mean)[:-1]  # known at the close before the bar
    invested[: length - 1] = False
    trials[:, column] = invested * market
trials = trials[max(lengths) :]
market = market[max(lengths) :]

sharpes = np.array([sharpe_ratio(column) for column in trials.T])
best = int(sharpes.argmax())
returns = trials[:, best]
interval = performance_intervals(returns, 252)["sharpe"]
beats = superior_ability(trials, market)
assert interval is not None
assert interval.ends is not None
assert beats is not None
low, high = interval.ends
print(f"best of {len(sharpes)}: {lengths[best]} days, Sharpe ratio {interval.estimate:.2f} a year")
print(f"90% interval                      {low:.2f} to {high:.2f}")
print(f"probabilistic Sharpe ratio        {probabilistic_sharpe(returns):.3f}")
print(f"deflated for the search           {deflated_sharpe(returns, sharpes):.3f}")
print(f"probability of overfitting        {overfitting(trials).probability:.2f}")
print(f"p-value of beating buy-and-hold   {beats.consistent:.3f}")
