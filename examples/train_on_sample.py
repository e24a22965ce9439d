"""Train PPO on daily S&P 500 bars and read the result of the years that it never saw."""

import tradax

result = tradax.train(
    algorithm="ppo",
    env="trading",
    data="sp500",
    total_timesteps=200_000,
    seed=0,
    settings={"trading": {"commission_bps": 2.0}, "features": {"window": 5}},
    skip_posterior=True,
)
print(result.summary["verdict"]["headline"])
for name, figures in result.summary["strategies"].items():
    print(f"{name:14} {figures['total_return']:8.1%}  drawdown {figures['max_drawdown']:.1%}")
print("report:", result.run_dir / "report.html")
