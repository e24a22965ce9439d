"""What came out of a sweep: a line a symbol and setting, and which is best on validation."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import trim_mean

from tradax.sweeps.grid import Setting, words
from tradax.sweeps.wave import Result

_RESAMPLES = 2000


class Line(NamedTuple):
    """Validation scores over the seeds of one symbol and setting."""

    symbol: str
    setting: int
    seeds: int
    failed: int
    score: float
    """Interquartile mean; a seed that failed counts as the worst there is."""
    low: float
    high: float
    """Of its 95% bootstrap interval."""
    best: int
    """Number of the member with the best score."""


def lines(results: Sequence[Result], *, seed: int = 0) -> list[Line]:
    """In the order of symbols, the best setting first."""
    grouped: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        grouped.setdefault((result["symbol"], result["setting"]), []).append(result)
    order = list(dict.fromkeys(result["symbol"] for result in results))
    found = [_line(*key, members, seed) for key, members in grouped.items()]
    return sorted(found, key=lambda line: (order.index(line.symbol), -line.score))


def best_of_populations(results: Sequence[Result]) -> list[Result]:
    """Of each symbol and seed the member with the best validation score, all as one setting."""
    best: dict[tuple[str, int], Result] = {}
    for result in results:
        other = best.setdefault((result["symbol"], result["seed"]), result)
        if _score(result) > _score(other):
            best[result["symbol"], result["seed"]] = result
    return [result | {"setting": 0} for result in best.values()]


def interquartile_mean(scores: Sequence[float | None]) -> float:
    """Of validation scores; None, of a member that failed, counts as the worst there is.

    `evaluation.seeds` has it for scores that are all finite, of two seeds at least.
    """
    return float(trim_mean(_numbers(scores), 0.25))


def winners(table: Sequence[Line]) -> dict[str, Line]:
    """Symbol -> the line with the best score; symbols of which every member failed are not in."""
    found: dict[str, Line] = {}
    for line in table:
        if np.isfinite(line.score) and line.symbol not in found:
            found[line.symbol] = line
    return found


def as_dict(line: Line, setting: Setting) -> dict[str, Any]:
    """For `summary.json`: numbers that do not exist are None."""
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in line._asdict().items()
    } | {"options": setting}


def print_table(
    table: Sequence[Line], settings: Sequence[Setting], tested: dict[str, Any], *, most: int = 40
) -> None:
    """On standard output: of every symbol its settings, the chosen one with its test."""
    told = [words(setting) for setting in settings]
    chosen, width = winners(table), max(map(len, told))
    names = max(8, *(len(line.symbol) + 2 for line in table))
    print(f"{'symbol':{names}}{'setting':{width + 2}}{'validation':>11}{'95% interval':>20}  test")
    shown = [line for line in table if line is chosen.get(line.symbol)]
    shown += [line for line in table if line not in shown][: max(most - len(shown), 0)]
    for line in (line for line in table if line in shown):
        interval = f"{line.low:.4g} to {line.high:.4g}"
        is_chosen = line is chosen.get(line.symbol)
        test = _test_words(tested.get(line.symbol)) if is_chosen else ""
        lost = f"  {line.failed} of {line.seeds} failed" if line.failed else ""
        print(
            f"{line.symbol:{names}}{told[line.setting]:{width + 2}}{line.score:>11.4g}"
            f"{interval:>20}  {test}{lost}".rstrip()
        )
    if len(shown) < len(table):
        print(f"... and {len(table) - len(shown)} lines more, in table.csv")


def csv(table: Sequence[Line], settings: Sequence[Setting]) -> str:
    """The whole table."""
    import polars as pl

    rows = [
        {k: v for k, v in as_dict(line, {}).items() if k != "options"}
        | {"setting": words(settings[line.setting])}
        for line in table
    ]
    return pl.DataFrame(rows).write_csv()


def _line(symbol: str, setting: int, members: list[Result], seed: int) -> Line:
    scores = _numbers([member["validation_score"] for member in members])
    draws = np.random.default_rng(seed).integers(len(scores), size=(_RESAMPLES, len(scores)))
    with np.errstate(invalid="ignore"):
        means = trim_mean(scores[draws], 0.25, axis=1)
        low, high = np.quantile(np.nan_to_num(means, nan=-np.inf), [0.025, 0.975], method="nearest")
    return Line(
        symbol,
        setting,
        len(members),
        sum(member["validation_score"] is None for member in members),
        interquartile_mean([member["validation_score"] for member in members]),
        float(low),
        float(high),
        members[int(np.argmax(scores))]["number"],
    )


def _score(result: Result) -> float:
    """On validation; a member that failed has the worst there is."""
    return float(_numbers([result["validation_score"]])[0])


def _numbers(scores: Sequence[float | None]) -> np.ndarray:
    return np.array([-np.inf if score is None else score for score in scores])


def _test_words(summary: dict[str, Any] | None) -> str:
    """The policy's figures of the test in a few words."""
    if summary is None:
        return ""
    if "mean_return" in summary:
        return f"mean return {summary['mean_return']:.4g}"
    figures = summary["strategies"]["policy"]
    if "total_return" not in figures:
        name, value = next((n, v) for n, v in figures.items() if n != "paths")
        return f"{name.replace('_', ' ')} {value:.4g}"
    sharpe = "-" if figures["sharpe"] is None else f"{figures['sharpe']:.2f}"
    return f"return {figures['total_return']:.1%}, Sharpe {sharpe}"
