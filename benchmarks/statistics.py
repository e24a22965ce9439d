"""Figures of returns against quantstats and empyrical: the largest differences.

Daily returns of the S&P 500 1999-2018, and 2,000 simulated ones with Student-t tails. quantstats
takes the bias-corrected skewness and kurtosis of pandas for the probabilistic Sharpe ratio, where
Bailey and Lopez de Prado divide by n: a difference of less than 1e-5 with thousands of bars.
"""

import json

import numpy as np

from benchmarks._peers import asked
from tradax.data import samples
from tradax.evaluation.bootstrap import performance
from tradax.evaluation.sharpe import probabilistic_sharpe

MOST = {"probabilistic_sharpe": 1e-5}  # else 1e-8


def main() -> None:
    close = samples.load("sp500").close[0]
    simulated = 0.0004 + 0.01 * np.random.default_rng(0).standard_t(4, 2_000)
    series = {"S&P 500": close[1:] / close[:-1] - 1.0, "simulated": simulated}
    print("| figure | returns | of | ours | theirs | difference |\n|---|---|---|---|---|---|")
    wrong = []
    for name, returns in series.items():
        ours = performance(returns, 252.0)._asdict()
        psr = probabilistic_sharpe(returns)
        assert psr is not None
        ours["probabilistic_sharpe"] = psr
        for library, figures in json.loads(asked("statistics", json.dumps(list(returns)))).items():
            for figure, theirs in figures.items():
                difference = abs(ours[figure] - theirs)
                words = figure.replace("_", " ")
                print(
                    f"| {words} | {name} | {library} | {ours[figure]:.6f} | {theirs:.6f} "
                    f"| {difference:.0e} |"
                )
                if not difference < MOST.get(figure, 1e-8):
                    wrong.append(f"{words} of {name}")
    if wrong:
        raise SystemExit(f"differs: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
