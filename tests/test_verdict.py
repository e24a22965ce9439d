"""The grade: none on noise, something on a real edge, never more than the figures allow."""

import json

import numpy as np
import pytest

from tradax.data.splits import Span
from tradax.evaluation import metrics
from tradax.evaluation.backtest import Backtest, Curve
from tradax.evaluation.evidence import excess_per_bar
from tradax.evaluation.overfitting import overfitting
from tradax.evaluation.posterior import Posterior
from tradax.evaluation.sharpe import expected_highest_sharpe, probabilistic_sharpe, sharpe_ratio
from tradax.evaluation.superiority import superior_ability
from tradax.evaluation.verdict import assess
from tradax.ledger import Record

DAYS = 252.0


def curve(name: str, price: np.ndarray, weight: np.ndarray, cost_rate: float = 0.0006) -> Curve:
    """Hold `weight` [n] of net worth during each bar, reached at the previous close."""
    change = np.diff(weight, prepend=0.0)
    growth = (1 - cost_rate * np.abs(change)) * (1 + weight * (price[1:] / price[:-1] - 1))
    worth = 100_000.0 * np.cumprod(np.concatenate([[1.0], growth]))
    turnover = np.abs(change) * worth[:-1]
    shares = weight * worth[1:] / price[1:]
    return Curve(
        name=name,
        timestamps=np.datetime64("2020-01-01") + np.arange(len(price)),
        net_worth=worth,
        price=price,
        shares=shares,
        traded=turnover / price[:-1],
        change=np.sign(change) * turnover / price[:-1],
        fill_price=np.where(turnover > 0, price[:-1], 0.0),
        cost=cost_rate * turnover,
        turnover=turnover,
        actions=np.zeros((len(weight), 2)),
        metrics=metrics.compute(worth, shares, cost_rate * turnover, turnover, DAYS),
    )


def simulated(price: np.ndarray, weight: np.ndarray, look_ahead: bool = False) -> Backtest:
    n = len(weight)
    random = np.random.default_rng(1).integers(0, 2, n).astype(float)
    plans = {"buy_and_hold": np.ones(n), "cash": np.zeros(n), "random": random}
    return Backtest(
        symbol="SIM",
        span=Span(0, n),
        policy=curve("policy", price, weight),
        gross=curve("gross", price, weight, 0.0),
        baselines={name: curve(name, price, plan) for name, plan in plans.items()},
        look_ahead=look_ahead,
    )


def walk(returns: np.ndarray) -> np.ndarray:
    return 100.0 * np.cumprod(np.concatenate([[1.0], 1.0 + returns]))


def noise(seed: int, n: int = 504) -> Backtest:
    """A driftless market, and a policy that goes in and out at random."""
    rng = np.random.default_rng(seed)
    weight = (np.cumsum(rng.random(n) < 0.1) % 2).astype(float)
    return simulated(walk(rng.normal(0, 0.01, n)), weight)


def with_edge(n: int, skill: float = 0.7, **kwargs) -> Backtest:
    """A policy that guesses the next bar's sign right more often than not."""
    rng = np.random.default_rng(0)
    returns = rng.normal(0.0002, 0.01, n)
    weight = np.where(rng.random(n) < skill, returns > 0, returns <= 0).astype(float)
    return simulated(walk(returns), weight, **kwargs)


def test_noise_is_graded_none_in_95_of_100_markets():
    grades = [
        assess(noise(seed), periods_per_year=DAYS, seed=seed, replications=200).grade
        for seed in range(100)
    ]
    assert grades.count("none") >= 95


def test_a_large_edge_is_at_least_moderate_and_with_years_strong():
    short = assess(with_edge(504), periods_per_year=DAYS)
    assert short.grade == "moderate"  # fewer than three years
    long = assess(with_edge(1008), periods_per_year=DAYS)
    assert long.grade == "strong"
    assert long.figures["probabilistic_sharpe"] > 0.99
    assert "Strong evidence" in long.headline


def test_look_ahead_forces_none():
    verdict = assess(with_edge(1008, look_ahead=True), periods_per_year=DAYS)
    assert verdict.grade == "none"
    assert "look-ahead" in verdict.headline
    assert "close" in verdict.caveats[0]


def test_a_policy_that_never_trades_is_nothing_to_judge():
    price = noise(0).policy.price
    verdict = assess(simulated(price, np.zeros(504)), periods_per_year=DAYS)
    assert verdict.grade == "none"
    assert "never traded" in verdict.headline
    assert verdict.figures["sharpe"] is verdict.figures["probabilistic_sharpe"] is None
    assert verdict.figures["excess_over_cash_interval_95"] == [0.0, 0.0]


def test_buy_and_hold_shows_no_skill():
    rising = walk(np.random.default_rng(0).normal(0.003, 0.01, 504))
    verdict = assess(simulated(rising, np.ones(504)), periods_per_year=DAYS)
    assert verdict.grade == "none"
    assert "buy-and-hold does" in verdict.headline
    assert any("hardly be told" in caveat for caveat in verdict.caveats)


def test_staying_out_of_a_falling_market_does_not_beat_cash():
    rng = np.random.default_rng(0)
    falling = walk(rng.normal(-0.003, 0.01, 756))
    weight = (rng.random(756) < 0.05).astype(float)
    verdict = assess(simulated(falling, weight), periods_per_year=DAYS)
    assert verdict.figures["excess_over_buy_and_hold_interval_99"][0] > 0
    assert verdict.grade == "none"


def test_few_trades_are_at_most_weak():
    rng = np.random.default_rng(0)
    drift = np.repeat([0.003, -0.004, 0.003], 336)
    weight = np.repeat([1.0, 0.0, 1.0], 336)
    verdict = assess(simulated(walk(rng.normal(drift, 0.008)), weight), periods_per_year=DAYS)
    assert verdict.figures["excess_over_buy_and_hold_interval_99"][0] > 0
    assert verdict.figures["excess_over_cash_interval_99"][0] > 0
    assert verdict.grade == "weak"
    assert any("few decisions" in caveat for caveat in verdict.caveats)


def test_too_few_bars_allow_no_statement():
    verdict = assess(with_edge(40, skill=0.95), periods_per_year=DAYS)
    assert verdict.grade == "none"
    assert "too few" in verdict.headline
    assert verdict.figures["excess_over_cash_interval_95"] is None
    assert "interval" not in " ".join(verdict.sentences)
    assert any("shorter than a year" in caveat for caveat in verdict.caveats)


def test_a_policy_that_loses_by_more_than_chance_is_told_so():
    verdict = assess(with_edge(504, skill=0.3), periods_per_year=DAYS)
    assert verdict.grade == "none"
    assert "worse than buy-and-hold" in verdict.headline


def test_figures_are_those_of_the_curves_and_the_seed():
    backtest = with_edge(504)
    verdict = assess(backtest, periods_per_year=DAYS, seed=3)
    policy, hold = backtest.policy, backtest.baselines["buy_and_hold"]
    growth = np.log(policy.net_worth[-1]) - np.log(hold.net_worth[-1])
    figures = verdict.figures
    assert figures["excess_over_buy_and_hold"] == pytest.approx(growth / 2.0)
    assert figures["sharpe"] == pytest.approx(policy.metrics.sharpe)
    assert figures["sharpe_difference"] == pytest.approx(
        policy.metrics.sharpe - hold.metrics.sharpe
    )
    low, high = figures["sharpe_interval_95"]
    assert low < figures["sharpe_interval_90"][0] < figures["sharpe"] < high
    json.dumps(figures, allow_nan=False)
    assert assess(backtest, periods_per_year=DAYS, seed=3) == verdict
    assert assess(backtest, periods_per_year=DAYS, seed=4).figures != figures


def test_sentences_carry_the_figures_and_caveats_what_is_known():
    backtest = with_edge(504)
    posterior = Posterior(sharpe_mean=1.0, sharpe_interval=(0.1, 2.0), p_positive=0.97)
    verdict = assess(
        backtest,
        periods_per_year=DAYS,
        posterior=posterior,
        trials=Record(trials=40, tested=30, missing=3, sharpes=(0.1, -0.1, 0.0, 0.05)),
        survivors=True,
    )
    said = " ".join(verdict.sentences)
    for figure in (
        "504 bars of SIM",
        "2020-01-01",
        f"{backtest.policy.metrics.total_return:,.1%}",
        f"{backtest.policy.metrics.costs:,.2f}",
        f"{backtest.policy.metrics.max_drawdown:.1%}",
        "97.0%",
        "40 trainings on these data",
        "30 uses of the test span; the folders of 3 are gone",
        f"Deflated for them, the confidence is {verdict.figures['deflated_sharpe']:.3f}",
    ):
        assert figure in said
    warned = " ".join(verdict.caveats)
    assert "30 settings" in warned
    assert "survived" in warned


def test_the_deflated_sharpe_ratio_falls_with_the_trials_that_were_tested():
    backtest = with_edge(504, skill=0.56)
    draws = np.random.default_rng(0).normal(0, 0.05, 49)
    own = probabilistic_sharpe(backtest.policy.returns)
    deflated = []
    for others in (0, 9, 49):
        sharpes = (sharpe_ratio(backtest.policy.returns), *draws[:others])
        record = Record(trials=len(sharpes), tested=len(sharpes), missing=0, sharpes=sharpes)
        figures = assess(backtest, periods_per_year=DAYS, replications=50, trials=record).figures
        assert figures["trials"] == figures["test_span_used_times"] == others + 1
        assert figures["probabilistic_sharpe"] == own
        deflated.append(figures["deflated_sharpe"])
    assert own == deflated[0] > deflated[1] > deflated[2]


def searched(backtest: Backtest, trials: int) -> Record:
    """The policy is one of so many that were tested, the others without any skill."""
    draws = np.random.default_rng(0).normal(0, len(backtest.policy.returns) ** -0.5, (trials, 2))
    others = draws[1:].T.tolist()
    own = sharpe_ratio(backtest.policy.returns), excess_per_bar(backtest)
    return Record(
        trials=trials,
        tested=trials,
        missing=0,
        sharpes=(own[0], *others[0]),
        excesses=(own[1], *others[1]),
    )


def test_the_grade_falls_with_the_trials_that_were_tested():
    backtest = with_edge(1008, skill=0.6)
    grades = []
    for trials in (1, 8, 300_000):
        record = searched(backtest, trials)
        verdict = assess(backtest, periods_per_year=DAYS, trials=record, replications=500)
        grades.append(verdict.grade)
    assert grades == sorted(grades, key=["strong", "moderate", "weak", "none"].index)
    assert grades[0] in ("strong", "moderate")
    assert grades[-1] == "none"
    assert "the best of 300,000 trials" in verdict.headline
    both = [verdict.figures[f"deflated_excess_over_{o}"] for o in ("buy_and_hold", "cash")]
    assert min(both) < 0.9
    assert f"{both[0]:.3f} that it is above buy-and-hold's return" in " ".join(verdict.sentences)


def test_a_few_trials_that_came_out_alike_deflate_by_the_standard_error():
    backtest = with_edge(504, skill=0.6)
    own, n = sharpe_ratio(backtest.policy.returns), 504
    record = Record(trials=2, tested=2, missing=0, sharpes=(own, own))
    figures = assess(backtest, periods_per_year=DAYS, trials=record, replications=50).figures
    highest = expected_highest_sharpe(2, n**-0.5)
    expected = probabilistic_sharpe(backtest.policy.returns, highest)
    assert figures["deflated_sharpe"] == pytest.approx(expected, rel=1e-12)
    assert figures["deflated_excess_over_buy_and_hold"] is not None  # older lines have none


@pytest.mark.parametrize("bars", [63, 64])
@pytest.mark.parametrize("kept", [3, 4])
def test_overfitting_needs_four_trials_on_64_bars(kept, bars):
    backtest = with_edge(504)
    validation = np.random.default_rng(0).normal(0, 0.01, (bars, kept))
    verdict = assess(backtest, periods_per_year=DAYS, replications=50, validation=validation)
    probability = verdict.figures["overfitting_probability"]
    assert (verdict.figures["overfitting_trials"], verdict.figures["overfitting_bars"]) == (
        kept,
        bars,
    )
    if (kept, bars) == (4, 64):
        assert probability == overfitting(validation).probability
    else:
        assert probability is None
    # It says how the policy was chosen, not how good it is: a caveat, and no change of grade.
    alone = assess(backtest, periods_per_year=DAYS, replications=50)
    assert verdict.grade == alone.grade
    warned = any("Choosing by validation" in caveat for caveat in verdict.caveats)
    assert warned == (probability is not None and probability > 0.5)


def test_superior_ability_is_hansens_test_against_each_baseline():
    backtest = with_edge(504, skill=0.55)
    figures = assess(backtest, periods_per_year=DAYS, replications=50, seed=2).figures
    p = {
        name: superior_ability(
            backtest.policy.returns, curve.returns, seed=2, replications=50
        ).consistent
        for name, curve in backtest.baselines.items()
    }
    assert figures["superior_ability_p"] == p["buy_and_hold"]
    assert figures["superior_ability_p_every_baseline"] == max(p.values())
    idle = simulated(backtest.policy.price, np.ones(504))
    figures = assess(idle, periods_per_year=DAYS, replications=50).figures
    assert figures["superior_ability_p"] is figures["superior_ability_p_every_baseline"] is None


def test_without_an_index_of_trials_the_verdict_says_so():
    verdict = assess(with_edge(504), periods_per_year=DAYS, replications=50)
    assert verdict.figures["deflated_sharpe"] is verdict.figures["trials"] is None
    assert any("TRADAX_TRIALS=off" in caveat for caveat in verdict.caveats)
