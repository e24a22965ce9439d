"""The posterior covers the truth, is the same for the same seed, and says nothing of nothing."""

from dataclasses import asdict

import jax
import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from tradax import cli, held_out, run_directory
from tradax.errors import TradaxError
from tradax.evaluation import joint_returns
from tradax.evaluation import posterior as module
from tradax.evaluation.posterior import Cone, Posterior, sharpe_posterior
from tradax.reporting.posterior import posterior_part

DAYS = 252.0


@pytest.fixture(scope="module", autouse=True)
def compile_well():
    """A sampler runs for longer than it compiles."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def markets(n: int) -> tuple[np.ndarray, np.ndarray]:
    """A benchmark, and which of its bars a policy was invested on."""
    rng = np.random.default_rng(0)
    return 0.0015 + 0.01 * rng.standard_t(6, n) / np.sqrt(6 / 4), rng.random(n) < 0.5


def test_alpha_beta_and_sharpe_are_those_of_least_squares_where_returns_are_normal():
    rng = np.random.default_rng(3)
    n = 750
    market = 0.0004 + 0.01 * rng.standard_normal(n)
    returns = 0.0003 + 0.5 * market + 0.004 * rng.standard_normal(n)
    fit = sm.OLS(returns, sm.add_constant(market)).fit()
    found = sharpe_posterior(returns, DAYS, benchmark=market, draws=700)
    assert found.converged
    assert found.residuals == "student-t"
    assert found.beta_mean == pytest.approx(fit.params[1], abs=0.25 * fit.bse[1])
    assert found.alpha_mean == pytest.approx(DAYS * fit.params[0], abs=0.35 * DAYS * fit.bse[0])
    ends = DAYS * fit.conf_int(0.1)[0]  # of Student's t, by statsmodels
    assert found.alpha_interval == pytest.approx(tuple(ends), abs=0.35 * DAYS * fit.bse[0])
    sharpe = returns.mean() / returns.std() * np.sqrt(DAYS)
    assert found.sharpe_mean == pytest.approx(sharpe, abs=0.35 * np.sqrt(DAYS / n))


def test_posterior_of_a_small_case_is_that_of_numerical_integration():
    n = 80
    series = 0.01 * stats.t(4, loc=0.1).rvs(n, random_state=1)
    found = joint_returns.sample(
        series, None, np.ones(n, bool), student_residuals=False, seed=0, draws=1500, chains=2
    ).draws
    # The same density on a grid of mean, log scale and log(nu - 2).
    mu = np.linspace(-0.006, 0.01, 61)[:, None, None]
    v = np.linspace(-1.2, 0.6, 61)[None, :, None] + np.log(series.std())
    w = np.linspace(-5.0, 5.0, 61)[None, None, :]
    nu, sigma = 2.0 + np.exp(w), np.exp(v)
    log = stats.norm(0, 0.01).logpdf(mu) + stats.norm(np.log(series.std()), 1.0).logpdf(v)
    log = log + w - 0.1 * np.exp(w)
    for value in series:
        log = log + stats.t.logpdf(value, nu, mu, sigma)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    for draws, grid in (
        (found.benchmark_mean[:, 0], mu),
        (np.log(found.benchmark_scale[:, 0]), v),
        (np.log(found.benchmark_nu[:, 0] - 2.0), w),
    ):
        mean = float((weight * grid).sum())
        deviation = float(np.sqrt((weight * (grid - mean) ** 2).sum()))
        assert draws.mean() == pytest.approx(mean, abs=0.12 * deviation)
        assert draws.std() == pytest.approx(deviation, rel=0.12)


def test_a_policy_that_is_half_in_cash_has_a_posterior_that_covers_the_truth():
    n, mean, deviation = 750, 0.0015, 0.01
    market, invested = markets(n)
    returns = np.where(invested, market, 0.0)
    # Half the bars: mean m/2, second moment (s^2 + m^2)/2.
    variance = (deviation**2 + mean**2) / 2 - (mean / 2) ** 2
    truth = mean / 2 / np.sqrt(variance) * np.sqrt(DAYS)

    posterior = sharpe_posterior(returns, DAYS, benchmark=market, seed=1, draws=700)
    assert posterior.converged
    assert posterior.note == ""
    low, high = posterior.sharpe_interval
    assert low < truth < high
    error = np.sqrt(DAYS / n)  # of a Sharpe ratio near 0, annualised
    assert 2.0 * error < high - low < 5.0 * error  # 90% is 3.3 standard errors
    assert posterior.p_positive > 0.7
    low, high = posterior.excess_interval
    assert low < -mean / 2 * DAYS < high
    assert 0.0 <= posterior.p_beats_benchmark < 0.5
    low, high = posterior.beta_interval
    assert low < 0.5 < high
    low, high = posterior.alpha_interval
    assert low < 0.0 < high
    # A year of growth: the median near that of the means, quantiles in order, monthly.
    cone = posterior.cone
    assert cone.year[0] == 0.0
    assert cone.year[-1] == 1.0
    assert len(cone.year) == 13
    ends = [cone.policy[q][-1] for q in ("5", "25", "50", "75", "95")]
    assert ends == sorted(ends)
    assert cone.policy["50"][0] == 1.0
    growth = np.exp(DAYS * np.log1p(returns).mean())
    assert ends[2] == pytest.approx(growth, rel=0.1)
    assert cone.benchmark_median[-1] == pytest.approx(
        np.exp(DAYS * np.log1p(market).mean()), rel=0.15
    )

    again = sharpe_posterior(returns, DAYS, benchmark=market, seed=1, draws=700)
    assert again == posterior


def test_rare_costs_and_changing_sides_are_no_outliers():
    market, chosen = markets(750)
    costly = market - 0.005 * (np.arange(750) % 20 == 0)  # most residuals are 0
    found = sharpe_posterior(costly, DAYS, benchmark=market, draws=700)
    assert found.residuals == "normal"
    assert found.excess_mean == pytest.approx(-0.005 / 20 * DAYS, rel=0.1)
    either = np.where(chosen | (np.arange(750) % 2 == 0), market, -market)  # long in 3 of 4
    found = sharpe_posterior(either, DAYS, benchmark=market, draws=700)
    slope, _, error = joint_returns.least_squares(either, market)
    assert found.residuals == "normal"
    assert found.beta_mean == pytest.approx(slope, abs=0.5 * error)
    low, high = found.beta_interval
    assert high - low > 2.5 * error  # 90% is 3.3 standard errors, those of unequal variances


def test_what_equals_the_benchmark_has_no_alpha_and_a_flat_benchmark_explains_nothing():
    market, _ = markets(80)  # as many bars and draws as above: one program
    found = sharpe_posterior(market, DAYS, benchmark=market, draws=1500)
    assert found.converged
    assert found.sharpe_mean is not None
    assert found.alpha_mean is found.beta_mean is found.excess_mean is None
    assert "equal the benchmark" in found.note
    found = sharpe_posterior(market, DAYS, benchmark=np.zeros(80), draws=1500)
    assert found.sharpe_mean is not None
    assert found.alpha_mean is None
    assert "does not vary" in found.note


def test_too_few_bars_are_said():
    market, _ = markets(59)
    assert "59 bars are too few" in sharpe_posterior(market, DAYS).note
    rare = np.where(np.arange(500) < 19, 0.01, 0.0)
    found = sharpe_posterior(rare, DAYS)
    assert "held on 19 bars" in found.note
    assert not found.converged


@pytest.mark.parametrize("returns", [np.zeros(100), np.full(100, 1e-4), np.array([0.1])])
def test_returns_that_do_not_vary_have_no_sharpe_ratio(returns):
    posterior = sharpe_posterior(returns, DAYS)
    assert posterior.sharpe_mean is posterior.p_positive is None
    assert not posterior.converged
    assert "no Sharpe ratio" in posterior.note


def test_returns_that_are_not_finite_get_no_statement():
    posterior = sharpe_posterior(np.array([0.1, np.nan, 0.2]), DAYS)
    assert posterior.sharpe_mean is None
    assert "no statement" in posterior.note


def test_a_benchmark_of_other_bars_is_an_error():
    with pytest.raises(TradaxError, match="100 returns and 90 of the benchmark"):
        sharpe_posterior(np.ones(100), DAYS, benchmark=np.ones(90))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r_hat": 1.2}, "did not converge"),
        ({"r_hat": np.nan}, "did not converge"),
        ({"divergences": 3}, "3 divergences"),
        ({"scale": 3.0}, "deviation is 3 times"),
        ({"shift": 0.01}, "standard errors above"),
    ],
)
def test_no_statement_where_sampling_or_the_model_failed(monkeypatch, changes, said):
    returns = 0.01 * np.random.default_rng(0).choice([-1.0, 1.0], 500)

    def given(scale=1.0, shift=0.0, r_hat=1.0, divergences=0):
        each = np.ones(100)
        draws = joint_returns.Draws(
            benchmark_mean=np.full((100, 2), returns.mean() + shift),
            benchmark_scale=np.full((100, 2), 0.01 * scale),
            benchmark_nu=np.full((100, 2), 1e6),
            intercept=0.0 * each,
            slope=each,
            residual_scale=0.0 * each,
            residual_nu=np.inf * each,
            held=each,
            quiet_mean=0.0,
            quiet_deviation=0.0,
        )
        sampled = joint_returns.Sampled(draws, r_hat, divergences)
        monkeypatch.setattr(module, "sample", lambda *_, **__: sampled)
        monkeypatch.setattr(module, "_density", lambda _: ())
        return sharpe_posterior(returns, DAYS)

    assert given().note == ""
    posterior = given(**changes)
    assert said in posterior.note
    assert posterior.sharpe_mean is posterior.sharpe_interval is posterior.p_positive is None
    assert posterior.cone is None


def test_the_page_shows_both_charts_in_words_and_says_how_to_add_what_was_skipped():
    given = Posterior(
        sharpe_mean=0.5,
        sharpe_interval=(-0.1, 1.1),
        p_positive=0.92,
        alpha_mean=0.01,
        alpha_interval=(-0.02, 0.04),
        p_alpha_positive=0.7,
        beta_mean=0.45,
        beta_interval=(0.4, 0.5),
        cone=Cone((0.0, 1.0), {str(q): (1.0, 1.0 + q / 100) for q in (5, 25, 50, 75, 95)}),
        density=((-1.0, 0.1), (0.5, 1.0), (2.0, 0.1)),
        r_hat=1.0,
        converged=True,
    )
    part = posterior_part(given, skipped=False)
    assert [chart.name for chart in part.charts] == ["sharpe-posterior", "cone"]
    assert "-0.10 to 1.10" in part.charts[0].summary
    assert "1.05 to 1.95" in part.charts[1].summary
    assert "0.40 to 0.50" in part.section.body
    assert part.summary["posterior"]["cone"]["policy"]["95"] == (1.0, 1.95)
    assert "tradax posterior RUN" in posterior_part(None, skipped=True).section.body


def test_the_command_samples_a_finished_run_and_refuses_what_it_cannot(
    monkeypatch, tmp_path, capsys
):
    asked = []
    found = asdict(Posterior(note="nothing to say"))

    def retest(folder, *, sampling):
        asked.append(sampling)
        return {"symbol": "SIM", "posterior": found}

    monkeypatch.setattr(held_out, "retest", retest)
    run_directory.write_config(tmp_path, {"env": "trading", "seed": 7})
    assert cli.main(["posterior", str(tmp_path)]) == 2
    assert "not finished" in capsys.readouterr().err
    (tmp_path / "summary.json").write_text("{}")
    assert cli.main(["posterior", str(tmp_path), "--draws", "200"]) == 0
    assert asked == [(7, 200)]
    assert "SIM: nothing to say" in capsys.readouterr().out
    assert cli.main(["posterior", str(tmp_path), "--draws", "5"]) == 2
    assert "--draws 5 is too few" in capsys.readouterr().err
    run_directory.write_config(tmp_path, {"env": "execution", "seed": 7})
    assert cli.main(["posterior", str(tmp_path)]) == 2
    assert "execution is not tested on prices" in capsys.readouterr().err
