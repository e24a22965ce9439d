"""Serve a run: a bar in, an order out, and a broker's fill fed back."""

import tradax
from tradax.data import samples
from tradax.serving.history import before, row

# Train on all but the last 60 bars, which then come one by one.
bars = samples.load("AAPL")
past = before(bars, bars.timestamps[-60])
run = tradax.train(data=past, total_timesteps=50_000, skip_posterior=True).run_dir

trader = tradax.Trader(run, cash=50_000.0)
for number in range(len(bars) - 60, len(bars)):
    for bar in row(bars, number):  # {"timestamp": ..., "open": ..., "close": ..., ...}
        order = trader.bar(bar)
        if order is not None and order.side != "hold":
            print(f"{order.timestamp}: {order.side} {order.quantity:.2f} shares")
            # What the broker did after that; else the fill that the backtest assumes is taken.
            trader.fill(order.side, order.quantity, 1.0005 * bar["close"], commission=1.0)
print(trader.account)
