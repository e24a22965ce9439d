"""What is left of a policy at higher costs and with late orders, and on prices without patterns."""

import tradax

result = tradax.train(
    data="sp500", total_timesteps=100_000, evaluations=5, controls=3, skip_posterior=True
)
found = result.summary["robustness"]
for at in found["costs"]:
    print(f"{at['bps']:3.0f} bps: {at['policy']['total_return']:7.1%}, excess {at['excess']:7.1%}")
print("break-even against buy and hold, bps:", found["break_even_bps"]["buy_and_hold"]["words"])
for delay in found["delays"]:
    print(f"orders {delay['bars']} bars later: {delay['policy']['total_return']:7.1%}")
print(found["controls"]["statement"])
