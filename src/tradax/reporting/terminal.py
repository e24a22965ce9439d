"""A run's summary as tables on standard output."""

from typing import Any

from tradax.reporting.frame import number


def print_summary(summary: dict[str, Any]) -> None:
    """A table a symbol, on standard output."""
    if "mean_return" in summary:
        print(
            f"mean return {summary['mean_return']:.2f} (standard deviation "
            f"{summary['std_return']:.2f}, {summary['episodes']} episodes)"
        )
        return
    if "verdict" not in summary and "symbols" not in summary:
        _print_simulated(summary["strategies"])
        return
    for name, tested in summary.get("symbols", {summary.get("symbol"): summary}).items():
        print(f"\n{name}: {tested['verdict']['headline']}")
        print(f"{'':18}{'return':>9}{'a year':>9}{'Sharpe':>8}{'drawdown':>10}{'costs':>12}")
        for strategy, m in tested["strategies"].items():
            sharpe = "-" if m["sharpe"] is None else f"{m['sharpe']:.2f}"
            print(
                f"{strategy.replace('_', ' '):18}{m['total_return']:>9.1%}"
                f"{m['annual_return']:>9.1%}{sharpe:>8}{m['max_drawdown']:>10.1%}"
                f"{m['costs']:>12,.0f}"
            )


def _print_simulated(strategies: dict[str, dict[str, float]]) -> None:
    """Figures over simulated paths, a row a figure and a column a strategy."""
    width = max(12, *(len(name) + 2 for name in strategies))
    print(" " * 16 + "".join(f"{name.replace('_', ' '):>{width}}" for name in strategies))
    for figure in next(iter(strategies.values())):
        values = "".join(f"{number(values[figure]):>{width}}" for values in strategies.values())
        print(f"{figure.replace('_', ' '):<16}{values}")
