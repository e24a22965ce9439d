"""Whether a backtest is evidence of skill: intervals by bootstrap, and what they allow to say."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tradax.evaluation.backtest import Backtest
from tradax.evaluation.bootstrap import LEAST_BARS
from tradax.evaluation.evidence import Figure, figures_of
from tradax.evaluation.posterior import Posterior
from tradax.ledger import VARIABLE, Record

Grade = Literal["none", "weak", "moderate", "strong"]

LEAST_TRADES = 10
STRONG_YEARS = 3.0
STRONG_PSR = 0.99
GRADES: dict[Grade, tuple[int, float]] = {
    "weak": (90, 0.90),
    "moderate": (95, 0.95),
    "strong": (99, 0.99),
}
"""Grade -> the interval, in percent, that must lie above 0; the confidence after deflation."""

RULE = (
    "The returns after costs are resampled by a stationary block bootstrap. The grade is weak, "
    "moderate or strong where the 90%, 95% or 99% interval of the mean log return lies above that "
    "of buy-and-hold, and also above that of cash; otherwise it is none. Where more than one trial "
    "was tested on this span, both differences must also stand after deflation for the number of "
    "trials: their deflated Sharpe ratios must be above 0.90, 0.95 or 0.99. Strong also needs "
    f"{STRONG_YEARS:.0f} years of bars and a probabilistic Sharpe ratio above {STRONG_PSR}. With "
    f"fewer than {LEAST_TRADES} bars on which it traded, a policy gets no more than weak. It is "
    f"none whatever the figures where there are fewer than {LEAST_BARS} bars, where the policy "
    "never traded or did what buy-and-hold does, and where orders were filled at prices that the "
    "policy had already seen."
)


@dataclass(frozen=True)
class Verdict:
    """A grade, and the figures that it rests on, in words and in numbers."""

    grade: Grade
    headline: str
    sentences: tuple[str, ...]
    caveats: tuple[str, ...]
    rule: str
    figures: dict[str, Figure]
    """Fractions a year unless named otherwise; intervals are [low, high]; None: not defined."""


def assess(
    backtest: Backtest,
    *,
    periods_per_year: float,
    posterior: Posterior | None = None,
    seed: int = 0,
    replications: int = 2000,
    trials: Record | None = None,
    validation: np.ndarray | None = None,
    survivors: bool = False,
) -> Verdict:
    """Judge the policy's net returns against buy-and-hold and cash.

    Args:
        trials: on the same data, this one among them, if known.
        validation: returns [n, N] of those whose validation returns were kept.
        survivors: the symbols were chosen with hindsight, as in the bundled samples.
    """
    figures = figures_of(
        backtest,
        periods_per_year,
        trials=trials,
        validation=validation,
        seed=seed,
        replications=replications,
    )
    grade, headline = _grade(backtest, figures)
    return Verdict(
        grade=grade,
        headline=headline,
        sentences=_sentences(backtest, figures, posterior, trials),
        caveats=_caveats(backtest, figures, trials, survivors),
        rule=RULE,
        figures=figures,
    )


def _grade(backtest: Backtest, figures: dict[str, Figure]) -> tuple[Grade, str]:
    """Returns: grade and headline, by `RULE`."""
    if backtest.look_ahead:
        return "none", (
            "This is no evidence of anything: orders were filled at prices that the policy had "
            "already seen (look-ahead)."
        )
    if _number(figures["trades"]) == 0:
        return "none", "The policy never traded, so there is nothing to judge."
    if _number(figures["bars"]) < LEAST_BARS:
        return "none", (
            f"No statement is possible: {_number(figures['bars']):.0f} bars are too few "
            f"({LEAST_BARS} are the least)."
        )
    if _is_buy_and_hold(backtest, figures):
        return "none", "The policy did what buy-and-hold does; it shows no skill of its own."

    grade: Grade = "none"
    by_search = False
    for candidate, (level, confidence) in GRADES.items():
        if _lower_bound(figures, level) <= 0.0:
            break
        if _number(figures["test_span_used_times"]) > 1 and not _deflated(figures) > confidence:
            by_search = True
            break
        grade = candidate
    enough = (
        _number(figures["years"]) >= STRONG_YEARS
        and _number(figures["probabilistic_sharpe"]) > STRONG_PSR
    )
    if grade == "strong" and not enough:
        grade = "moderate"
    if _number(figures["trades"]) < LEAST_TRADES and grade != "none":
        grade = "weak"
    if grade != "none":
        return grade, (
            f"{grade.capitalize()} evidence, from one test span, that the policy beats both "
            "buy-and-hold and cash after costs."
        )
    if by_search:
        return "none", (
            f"No evidence: the best of {_number(figures['test_span_used_times']):,.0f} trials that "
            "were tested on this span may look as good as this by chance."
        )
    for other, words in _OTHERS.items():
        interval = figures[f"excess_over_{other}_interval_95"]
        if isinstance(interval, list) and interval[1] < 0.0:
            return "none", f"The policy did worse than {words} after costs, by more than chance."
    return "none", "No evidence that the policy beats both buy-and-hold and cash after costs."


def _lower_bound(figures: dict[str, Figure], level: int) -> float:
    """The lower of both excesses' lower bounds."""
    bounds = [-math.inf, -math.inf]
    for index, other in enumerate(_OTHERS):
        interval = figures[f"excess_over_{other}_interval_{level}"]
        if isinstance(interval, list):
            bounds[index] = interval[0]
    return min(bounds)


def _deflated(figures: dict[str, Figure]) -> float:
    """The lower confidence in both excesses after deflation."""
    found = [figures[f"deflated_excess_over_{other}"] for other in _OTHERS]
    return min(value if isinstance(value, float) else -math.inf for value in found)


_OTHERS = {"buy_and_hold": "buy-and-hold", "cash": "cash"}


def _is_buy_and_hold(backtest: Backtest, figures: dict[str, Figure]) -> bool:
    """Its returns differ by less than a hundredth of how much buy-and-hold's vary."""
    volatility = backtest.baselines["buy_and_hold"].metrics.volatility
    return _number(figures["tracking_error"]) < 0.01 * volatility


def _sentences(
    backtest: Backtest,
    figures: dict[str, Figure],
    posterior: Posterior | None,
    trials: Record | None,
) -> tuple[str, ...]:
    policy, gross = backtest.policy.metrics, backtest.gross.metrics
    others = backtest.baselines
    hold = others["buy_and_hold"].metrics
    first, last = (str(backtest.policy.timestamps[i])[:10] for i in (0, -1))
    start = float(backtest.policy.net_worth[0])
    several = len(backtest.assets) > 1
    by_year = ""
    if policy.annual_return is not None and _number(figures["years"]) >= 1.0:
        by_year = f" ({policy.annual_return:,.1%} a year)"
    sentences = [
        f"The test span has {_bars(len(backtest.policy.returns))} of {backtest.symbol}, {first} to "
        f"{last} ({_number(figures['years']):.1f} years).",
        f"After costs the policy returned {policy.total_return:,.1%}{by_year}; buy-and-hold "
        f"returned {hold.total_return:,.1%}, "
        + ", ".join(
            f"{_WORDS.get(name, name.replace('_', ' '))} {curve.metrics.total_return:,.1%}"
            for name, curve in others.items()
            if name != "buy_and_hold"
        )
        + ("; buy-and-hold is equal parts of all assets, bought once." if several else "."),
        *(sentence for other in _OTHERS for sentence in _comparison(figures, other)),
    ]
    if isinstance(figures["sharpe_interval_95"], list):
        versus = f"; buy-and-hold's is {hold.sharpe:.2f}" if hold.sharpe is not None else ""
        sentences.append(
            f"The Sharpe ratio is {_number(figures['sharpe']):.2f} "
            f"(95% interval {_range(figures['sharpe_interval_95'], '.2f')}){versus}. The "
            f"probabilistic Sharpe ratio is {_number(figures['probabilistic_sharpe']):.3f}: the "
            "confidence that the true one is above 0, had nothing else been tried."
        )
        sentences += _search(figures, trials)
    sentences.append(
        f"Trading on {_bars(policy.trades)} cost {policy.costs:,.2f}, or "
        f"{policy.costs / start:,.1%} of the initial {start:,.2f}; without costs the same orders "
        f"would have returned {gross.total_return:,.1%}."
    )
    sentences.append(
        f"The largest loss from a peak was {policy.max_drawdown:.1%} (buy-and-hold "
        f"{hold.max_drawdown:.1%}); the longest time below a peak was "
        f"{_bars(policy.max_drawdown_bars)}."
    )
    if posterior is not None and posterior.p_positive is not None:
        sentences.append(
            "Under the Bayesian model the true Sharpe ratio is above 0 with probability "
            f"{posterior.p_positive:.1%}."
        )
    return tuple(sentences)


def _search(figures: dict[str, Figure], trials: Record | None) -> list[str]:
    """One sentence on what else was tried, or none where it is not known."""
    if trials is None:
        return []
    gone = f"; the folders of {trials.missing:,} are gone" if trials.missing else ""
    sentence = (
        f"The index of trials counts {_times(trials.trials, 'training')} on these data, this one "
        f"included, and {_times(trials.tested, 'use')} of the test span{gone}"
    )
    if isinstance(figures["deflated_sharpe"], float) and trials.tested > 1:
        sentence += (
            f". Deflated for them, the confidence is {figures['deflated_sharpe']:.3f} that the "
            "true Sharpe ratio is above 0"
        )
        both = [figures[f"deflated_excess_over_{other}"] for other in _OTHERS]
        if all(isinstance(value, float) for value in both):
            sentence += (
                f", {_number(both[0]):.3f} that it is above buy-and-hold's return and "
                f"{_number(both[1]):.3f} that it is above cash's"
            )
    return [f"{sentence}."]


def _times(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


_WORDS = {"random": "random actions", "mean_variance": "mean-variance"}


def _comparison(figures: dict[str, Figure], other: str) -> list[str]:
    """One sentence, or none where there is no interval."""
    excess, interval = (
        figures[f"excess_over_{other}"],
        figures[f"excess_over_{other}_interval_95"],
    )
    if not isinstance(interval, list):
        return []
    if interval[0] > 0.0:
        meaning = "which lies above 0"
    elif interval[1] < 0.0:
        meaning = "which lies below 0"
    else:
        meaning = "which includes 0, so the difference may be chance"
    value = _number(excess)
    return [
        f"The policy's mean log return was {abs(value):,.1%} a year "
        f"{'above' if value >= 0 else 'below'} that of {_OTHERS[other]}; the 95% interval of the "
        f"difference is {_range(interval, ',.1%')}, {meaning}."
    ]


def _caveats(
    backtest: Backtest, figures: dict[str, Figure], trials: Record | None, survivors: bool
) -> tuple[str, ...]:
    policy = backtest.policy.metrics
    caveats = []
    if backtest.look_ahead:
        caveats.append(
            "Orders were filled at the close that the policy had just seen. Nobody can trade like "
            "that; test again with fills at the next open."
        )
    several = len(backtest.assets) > 1
    caveats.append(
        f"One test span of one {'set of assets' if several else 'asset'}: another span or another "
        f"{'set' if several else 'asset'} may say something else."
    )
    if trials is None:
        caveats.append(
            "How many settings and seeds were tried before this one is not accounted for, as the "
            f"index of trials is turned off ({VARIABLE}=off) or cannot be read. The best of many "
            "looks good by chance, and intervals are too narrow for it."
        )
    elif trials.tested > 1:
        caveats.append(
            f"{trials.tested:,} settings or seeds were tested on this span. If this one was chosen "
            "among them by its test result, the intervals are too narrow (the grade and the "
            "deflated Sharpe ratio allow for it): the best of many looks good by chance."
        )
    if _number(figures["overfitting_probability"]) > 0.5:
        caveats.append(
            "Choosing by validation chose nothing: in "
            f"{_number(figures['overfitting_probability']):.0%} of the splits of the validation "
            "span the best trial of one half was no better than the median trial on the other "
            "(trials that are equally good look like this too)."
        )
    if _number(figures["years"]) < 1.0:
        caveats.append("The span is shorter than a year, so it shows one kind of market at most.")
    if survivors:
        caveats.append(
            "The prices are of companies that survived and grew, chosen with hindsight: "
            "buy-and-hold, and every policy that is often invested, looks better than it was."
        )
    if 0 < policy.trades < LEAST_TRADES:
        caveats.append(
            f"The policy traded on {_bars(policy.trades)} only; its result rests on few decisions."
        )
    if policy.trades > 0 and _is_buy_and_hold(backtest, figures):
        caveats.append("The policy's returns can hardly be told from buy-and-hold's.")
    elif policy.exposure > 0.99:
        caveats.append(
            "The policy was invested on nearly every bar, so most of its return is the "
            + ("assets'." if several else "asset's.")
        )
    if backtest.policy.net_worth.min() <= 0.0:
        caveats.append("The policy was ruined; a loss beyond 99.9% counts as 99.9%.")
    return tuple(caveats)


def _bars(count: int) -> str:
    return _times(count, "bar")


def _range(interval: Figure, form: str) -> str:
    assert isinstance(interval, list)
    return f"{interval[0]:{form}} to {interval[1]:{form}}"


def _number(figure: Figure) -> float:
    """A figure that is a plain number; NaN where it is not defined."""
    return figure if isinstance(figure, int | float) else math.nan
