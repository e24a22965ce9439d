"""What quantstats and empyrical say of returns on standard input; JSON.

python -m benchmarks.peers.statistics < RETURNS.json
"""

import json
import sys

import empyrical
import numpy as np
import pandas as pd
import quantstats.stats as quantstats


def main() -> None:
    returns = np.array(json.load(sys.stdin))
    series = pd.Series(returns, index=pd.bdate_range("2000-01-03", periods=len(returns)))
    figures = {
        "quantstats": {
            "sharpe": quantstats.sharpe(series, periods=252),
            "total_return": quantstats.comp(series),
            "max_drawdown": -quantstats.max_drawdown(series),
            "probabilistic_sharpe": quantstats.probabilistic_sharpe_ratio(series),
        },
        "empyrical": {
            "sharpe": empyrical.sharpe_ratio(returns, annualization=252),
            "total_return": empyrical.cum_returns_final(returns),
            "annual_return": empyrical.annual_return(returns, annualization=252),
            "max_drawdown": -empyrical.max_drawdown(returns),
        },
    }
    print(json.dumps({k: {n: float(x) for n, x in v.items()} for k, v in figures.items()}))


if __name__ == "__main__":
    main()
