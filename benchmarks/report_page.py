"""Opening the report page: size, and the time from the navigation to text and charts.

A fresh headless Chromium each time, 1,440 by 800 pixels, so nothing is cached. The policy trades on
half of the bars. Text fills the first screen; the first chart lies on the second. The page is open
once its text is painted and that chart is drawn; all others follow without being scrolled to. The
CPU time is that of the page's main thread until the last chart; other programs on the machine
change it least.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser import Browser
from test_report import report
from test_verdict import simulated, walk
from tradax.reporting.page import write_report
from tradax.reporting.trades import trades_part

BARS = (5040, 100_000)
OPENED = 7


def main() -> None:
    print(
        "| bars | size, MB | text painted, s | first chart drawn, s | all charts drawn, s "
        "| fastest | CPU time, s |"
    )
    print("|---|---|---|---|---|---|---|")
    for bars in BARS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "report.html"
            returns = np.random.default_rng(0).normal(0.0002, 0.01 if bars < 9000 else 1e-4, bars)
            backtest = simulated(walk(returns), (returns > 0).astype(float))
            parts = [*report().parts, trades_part(backtest)]
            write_report(path, report(backtest=backtest, parts=parts))
            painted, first, drawn, cpu = np.array([_open(path) for _ in range(OPENED)]).T
            size = path.stat().st_size / 1e6
        print(
            f"| {bars:,} | {size:.1f} | {np.median(painted):.1f} | {np.median(first):.1f} |"
            f" {np.median(drawn):.1f} | {drawn.min():.1f} | {np.median(cpu):.1f} |",
            flush=True,
        )


def _open(path: Path) -> tuple[float, float, float, float]:
    """Seconds to the first text, to the first and the last chart, and of the main thread's CPU."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        Browser(Path(profile)) as browser,
    ):
        browser.size(1440)
        browser.call("Performance.enable", timeDomain="threadTicks")
        browser.open(path.as_uri())
        drawn = browser.drawn_after() / 1e3
        first = browser.drawn_after("first drawn") / 1e3
        painted = browser.run("performance.getEntriesByType('paint').at(-1).startTime") / 1e3
        metrics = browser.call("Performance.getMetrics")["metrics"]
        (cpu,) = (m["value"] for m in metrics if m["name"] == "TaskDuration")
        return painted, first, drawn, cpu


if __name__ == "__main__":
    main()
