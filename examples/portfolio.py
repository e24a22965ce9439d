"""Learn the weights of five stocks and cash, and see what was held in the years never seen."""

import tradax

result = tradax.train(
    algorithm="ppo",
    env="portfolio",
    data="us20",
    symbols=["AAPL", "JPM", "KO", "PFE", "XOM"],
    total_timesteps=200_000,
    settings={"portfolio": {"commission_bps": 10.0}},
    skip_posterior=True,
)
print(result.summary["verdict"]["headline"])
print(f"{'':18}{'return':>9}{'Sharpe':>8}{'turnover':>10}{'costs':>10}")
for name, figures in result.summary["strategies"].items():
    sharpe = "-" if figures["sharpe"] is None else f"{figures['sharpe']:.2f}"
    print(
        f"{name:18}{figures['total_return']:9.1%}{sharpe:>8}{figures['turnover']:10.1f}"
        f"{figures['costs']:10,.0f}"
    )
print("report:", result.run_dir / "report.html")
