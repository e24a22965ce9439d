"""Bootstrap, overfitting, superiority and seeds: by hand, against arch and scipy, on noise."""

import itertools

import numpy as np
import pytest

from tradax.data import samples
from tradax.errors import TradaxError
from tradax.evaluation import metrics
from tradax.evaluation.bootstrap import block_length, performance, performance_intervals
from tradax.evaluation.overfitting import overfitting
from tradax.evaluation.seeds import interquartile_mean
from tradax.evaluation.superiority import superior_ability

DAYS = 252.0


def returns_of(sample: str) -> np.ndarray:
    """[n, symbols]"""
    close = samples.load(sample).close.T
    return close[1:] / close[:-1] - 1.0


def test_performance_equals_the_metrics_of_a_backtest():
    returns = returns_of("sp500")[:, 0]
    worth = 1000.0 * np.cumprod(np.concatenate([[1.0], 1.0 + returns]))
    nothing = np.zeros(len(returns))
    expected = metrics.compute(worth, nothing, nothing, nothing, DAYS)
    for name, value in performance(returns, DAYS)._asdict().items():
        assert value == pytest.approx(getattr(expected, name), rel=1e-9)
    by_hand = performance(np.array([0.1, -0.1, 0.0, 0.2]), 4.0)
    assert by_hand == pytest.approx((0.05 / np.sqrt(0.05 / 3) * 2, 0.188, 0.188, 0.1))
    assert performance(np.array([-0.1, 0.05]), 2.0).max_drawdown == pytest.approx(0.1)


def test_intervals_are_arch_percentile_intervals():
    from arch.bootstrap import StationaryBootstrap

    returns = returns_of("sp500")[-750:]
    block = block_length(returns)
    found = performance_intervals(returns[:, 0], DAYS, seed=3, replications=300)
    peer = StationaryBootstrap(block, returns, seed=3).conf_int(
        lambda sample: np.array(performance(sample[:, 0], DAYS)),
        reps=300,
        method="percentile",
        size=0.9,
    )
    for interval, (low, high) in zip(found.values(), peer.T, strict=True):
        assert interval.ends == pytest.approx((low, high), rel=1e-8)
        assert low < interval.estimate < high


def test_90_percent_intervals_hold_the_true_sharpe_ratio_in_about_90_of_100_samples():
    rng = np.random.default_rng(0)
    truth, held = 0.1 * np.sqrt(DAYS), 0
    for seed in range(100):
        returns = rng.normal(0.001, 0.01, 300)
        interval = performance_intervals(returns, DAYS, seed=seed, replications=200)["sharpe"]
        held += interval.ends[0] < truth < interval.ends[1]
    assert 82 <= held <= 97


def test_intervals_of_too_little_are_absent():
    few = performance_intervals(np.array([0.01, -0.02, 0.03]), DAYS, replications=20)
    assert few["total_return"].ends is None
    flat = performance_intervals(np.zeros(100), DAYS, replications=20)
    assert flat["sharpe"] is None
    assert flat["max_drawdown"] == (0.0, (0.0, 0.0))
    with pytest.raises(TradaxError, match="too few"):
        performance_intervals(np.array([]), DAYS)
    with pytest.raises(TradaxError, match="NaN"):
        performance_intervals(np.array([0.1, np.nan]), DAYS)
    with pytest.raises(TradaxError, match="level is 90"):
        performance_intervals(np.zeros(100), DAYS, level=90)


def overfitting_by_definition(returns: np.ndarray, blocks: int) -> list[float]:
    """Relative rank of the winner on the other half, split by split."""
    from scipy.stats import rankdata

    pieces = np.array_split(returns, blocks)
    ranks = []
    for half in itertools.combinations(range(blocks), blocks // 2):
        inside = np.concatenate([pieces[i] for i in half])
        outside = np.concatenate([pieces[i] for i in range(blocks) if i not in half])
        best = np.argmax(inside.mean(axis=0) / inside.std(axis=0, ddof=1))
        rank = rankdata(outside.mean(axis=0) / outside.std(axis=0, ddof=1))[best]
        ranks.append(rank / (returns.shape[1] + 1))
    return ranks


def test_overfitting_of_two_trials_by_hand():
    # The first trial earns in the first half only, the second in the second half only: whichever
    # wins on one half loses on the other.
    first = np.array([0.02, 0.03, -0.02, -0.03])
    found = overfitting(np.stack([first, first[::-1]], axis=1), blocks=2)
    assert found.probability == found.probability_of_loss == 1.0
    np.testing.assert_allclose(found.logits, np.log(0.5))  # rank 1 of 2: w = 1/3
    sharpe = 0.025 / np.sqrt(0.00005)
    np.testing.assert_allclose(found.in_sample, sharpe)
    np.testing.assert_allclose(found.out_of_sample, -sharpe)
    better = np.stack([first + 0.1, first], axis=1)
    assert overfitting(better, blocks=2).probability == 0.0


@pytest.mark.parametrize("trials", [20, 7])
def test_overfitting_equals_its_definition_on_real_returns(trials):
    returns = returns_of("us20")[-1501:, :trials]  # 1,501 do not divide into 6
    ranks = np.array(overfitting_by_definition(returns, 6))
    found = overfitting(returns, blocks=6)
    np.testing.assert_allclose(found.logits, np.log(ranks / (1 - ranks)), atol=1e-12)
    assert found.probability == np.mean(ranks <= 0.5)


def test_overfitting_is_a_half_on_noise_and_0_with_one_good_trial():
    rng = np.random.default_rng(0)
    noise = [rng.normal(0, 0.01, (400, 20)) for _ in range(30)]
    assert 0.4 < np.mean([overfitting(x, blocks=8).probability for x in noise]) < 0.6
    noise[0][:, 3] += 0.004
    assert overfitting(noise[0]).probability < 0.01
    assert len(overfitting(noise[0]).logits) == 12_870  # 16 choose 8


def test_overfitting_of_equal_or_idle_trials_is_certain():
    same = np.repeat(np.random.default_rng(0).normal(0, 0.01, (100, 1)), 5, axis=1)
    assert overfitting(same, blocks=4).probability == 1.0
    assert overfitting(np.zeros((100, 3)), blocks=4).probability == 1.0


def test_overfitting_says_what_it_needs():
    returns = np.random.default_rng(0).normal(0, 0.01, (31, 3))
    with pytest.raises(TradaxError, match="31 returns of 3 trials are too few for 16 blocks"):
        overfitting(returns)
    with pytest.raises(TradaxError, match="1 trials are too few"):
        overfitting(returns[:, :1], blocks=4)
    for blocks in (3, 0, 22):
        with pytest.raises(TradaxError, match="even number"):
            overfitting(returns, blocks=blocks)
    with pytest.raises(TradaxError, match="NaN"):
        overfitting(np.full((40, 2), np.nan))


def long_run_deviation(difference: np.ndarray, block: int) -> np.ndarray:
    """Hansen's, lag by lag."""
    n, q = len(difference), 1.0 / block
    centred = difference - difference.mean(axis=0)
    variance = (centred**2).mean(axis=0)
    for i in range(1, n):
        kernel = (n - i) / n * (1 - q) ** i + i / n * (1 - q) ** (n - i)
        variance += 2 * kernel * (centred[i:] * centred[:-i]).sum(axis=0) / n
    return np.sqrt(variance)


def test_superior_ability_equals_archs_test_of_studentised_differences():
    from arch.bootstrap import SPA

    returns, benchmark = returns_of("us20")[-1000:], returns_of("sp500")[-1000:, 0]
    difference = returns - benchmark[:, None]
    scaled = difference / long_run_deviation(difference, 5)
    peer = SPA(np.zeros(1000), -scaled, block_size=5, reps=400, seed=1)
    peer.compute()
    found = superior_ability(returns, benchmark, block=5, seed=1, replications=400)
    for name in ("consistent", "lower", "upper"):
        assert getattr(found, name) == pytest.approx(peer.pvalues[name], abs=1e-8)
    assert found.statistic == pytest.approx(np.sqrt(1000) * scaled.mean(axis=0).max(), rel=1e-8)
    assert found.best == scaled.mean(axis=0).argmax()
    assert found.lower <= found.consistent <= found.upper


def test_superior_ability_finds_an_edge_among_poor_trials_and_none_in_noise():
    rng = np.random.default_rng(0)
    p = []
    for seed in range(40):
        noise = rng.normal(0, 0.01, (250, 10))
        p.append(superior_ability(noise, np.zeros(250), seed=seed, replications=200).consistent)
    assert sum(value < 0.1 for value in p) <= 9  # 4 are expected
    noise = rng.normal(-0.002, 0.01, (500, 10))
    noise[:, 7] += 0.004
    found = superior_ability(noise, np.zeros(500))
    assert found.best == 7
    assert found.consistent < 0.01


def test_superior_ability_of_what_is_worse_the_same_or_wrong():
    rng = np.random.default_rng(0)
    benchmark = rng.normal(0, 0.01, 200)
    worse = superior_ability(benchmark - rng.uniform(0, 0.01, 200), benchmark)
    assert worse.statistic == 0.0
    assert worse.upper > 0.3
    assert superior_ability(np.stack([benchmark] * 2, axis=1), benchmark) is None
    with pytest.raises(TradaxError, match="199 returns and 200 of the benchmark"):
        superior_ability(benchmark[1:], benchmark)
    with pytest.raises(TradaxError, match="too few"):
        superior_ability(benchmark[:9], benchmark[:9])
    with pytest.raises(TradaxError, match="NaN"):
        superior_ability(np.full(200, np.nan), benchmark)


def test_interquartile_mean_by_hand():
    assert interquartile_mean(np.arange(8.0)).estimate == 3.5  # of 2, 3, 4, 5
    assert interquartile_mean(np.array([1.0, 100, 3, 2, -50])).estimate == 2.0
    # All scores together: the task with the high ones is cut off at the top.
    tasks = np.array([[1.0, 10], [2.0, 20], [3.0, 30], [4.0, 40]])
    assert interquartile_mean(tasks).estimate == (3 + 4 + 10 + 20) / 4


def test_interquartile_interval_is_that_of_seeds_drawn_task_by_task():
    rng = np.random.default_rng(0)
    scores = rng.normal([0.0, 1.0, 3.0], [1.0, 0.2, 2.0], (6, 3))
    found = interquartile_mean(scores, replications=4000)
    drawn = []
    for _ in range(4000):
        columns = [rng.choice(column, 6) for column in scores.T]
        drawn.append(np.sort(np.concatenate(columns))[4:-4].mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    error = 0.1 * (high - low)
    assert found.low == pytest.approx(low, abs=error)
    assert found.high == pytest.approx(high, abs=error)
    assert found == interquartile_mean(scores, replications=4000)


def test_interquartile_mean_says_what_it_needs():
    with pytest.raises(TradaxError, match="at least 2"):
        interquartile_mean(np.array([[1.0, 2.0]]))
    with pytest.raises(TradaxError, match="1 of 3 values are NaN"):
        interquartile_mean(np.array([1.0, 2.0, np.nan]))
    with pytest.raises(TradaxError, match="level"):
        interquartile_mean(np.array([1.0, 2.0]), level=95)
    assert interquartile_mean(np.ones(4)) == (1.0, 1.0, 1.0)
