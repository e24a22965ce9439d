"""Runs are compared on the bars that all were tested on, and no more is said than these show."""

import dataclasses
import json

import numpy as np
import pytest

import tradax
from browser import CHROMIUM, Browser
from test_verdict import DAYS, curve, simulated, walk
from tradax import comparing, ledger, run_directory
from tradax.cli import main
from tradax.errors import TradaxError
from tradax.evaluation.comparison import Walk, compare
from tradax.evaluation.overfitting import Overfitting
from tradax.evaluation.superiority import Superiority
from tradax.preparation import Request

NOISE = "synthetic:noise,bars=700,seed=5"
PPO = {"num_envs": 8, "n_steps": 32, "minibatches": 2, "hidden_sizes": [8]}
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on one market, and one of two other symbols over more bars."""
    base = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRADAX_TRIALS", str(base / "index.jsonl"))
        for name, data, seed, changed in (
            ("a", NOISE, 0, {}),
            (EVIL, NOISE, 1, {"learning_rate": 2e-4}),
            ("two", "synthetic:gbm,bars=720,assets=2,seed=3", 0, {}),
        ):
            tradax.train(
                data=data,
                seed=seed,
                out=base / name,
                total_timesteps=1_024,
                evaluations=2,
                skip_posterior=True,
                settings={"ppo": PPO | changed},
            )
        yield base


def a_test(name, price, weight, first=0, stamps=None):
    backtest = simulated(price, weight)
    given = backtest.policy.timestamps + np.timedelta64(first, "D") if stamps is None else stamps

    def moved(one):
        return dataclasses.replace(one, timestamps=given)

    backtest = dataclasses.replace(
        backtest,
        policy=moved(backtest.policy),
        baselines={k: moved(v) for k, v in backtest.baselines.items()},
    )
    return Walk(name, backtest, DAYS)


def test_two_curves_are_scaled_to_one_at_the_first_common_bar():
    # Days 0 to 3 and 1 to 4: common are 1, 2, 3. Net worth without costs, by hand.
    early = a_test("early", np.array([100.0, 110.0, 121.0, 60.5]), np.ones(3))
    late = a_test("late", np.array([10.0, 10.0, 20.0, 20.0]), np.array([0.0, 0.0, 0.0]), first=1)
    found = compare([early, late])
    assert [str(stamp) for stamp in found.timestamps] == ["2020-01-02", "2020-01-03", "2020-01-04"]
    one, other = found.policies
    np.testing.assert_allclose(one.net_worth, [1.0, 1.1, 0.55], rtol=1e-12)
    np.testing.assert_allclose(other.net_worth, [1.0, 1.0, 1.0])
    assert one.metrics.total_return == pytest.approx(-0.45)
    assert one.metrics.max_drawdown == pytest.approx(0.5)
    assert one.metrics.costs == 0.0  # it bought before the first common bar
    assert [line.name for line in found.references] == [
        *("Buy and hold, SIM (early)", "Buy and hold, SIM (late)", "Cash")
    ]
    for none in (found.superiority, found.overfitting, found.differences):
        assert none == "2 common bars are too few; 60 are needed"


def test_costs_and_turnover_between_common_bars_are_summed():
    rng = np.random.default_rng(0)
    price = walk(rng.normal(0, 0.01, 8))
    all_bars = a_test("all", price, rng.integers(0, 2, 8).astype(float))
    policy = all_bars.backtest.policy
    every_second = a_test("half", price[::2], np.ones(4), stamps=policy.timestamps[::2])
    with pytest.raises(TradaxError, match="all has bars of 1 day and half of 2 days"):
        compare([all_bars, every_second])
    holes = np.delete(policy.timestamps, 4)
    line = compare([all_bars, a_test("hole", np.delete(price, 4), np.ones(7), stamps=holes)])
    cost = line.policies[0].metrics.costs
    assert cost == pytest.approx(policy.cost.sum() / policy.net_worth[0], rel=1e-12)
    assert len(line.timestamps) == 8


def test_buy_and_hold_stands_there_once_where_the_market_is_the_same():
    price = walk(np.random.default_rng(1).normal(0, 0.01, 100))
    found = compare([a_test("a", price, np.ones(100)), a_test("b", price, np.zeros(100))])
    assert [line.name for line in found.references] == ["Buy and hold", "Cash"]


def test_a_planted_edge_is_shown_and_noise_is_not():
    rng = np.random.default_rng(0)
    returns = rng.normal(0.0, 0.01, 1000)
    price = walk(returns)
    sees = np.where(rng.random(1000) < 0.65, returns > 0, returns <= 0).astype(float)
    blind = [(np.cumsum(rng.random(1000) < 0.1) % 2).astype(float) for _ in range(3)]
    found = compare([a_test(f"n{i}", price, weight) for i, weight in enumerate(blind)])
    assert isinstance(found.superiority, Superiority)
    assert found.superiority.consistent > 0.05
    assert isinstance(found.differences, list)
    assert all(low < 0.0 < high for *_, (low, high) in found.differences)
    found = compare([a_test("sees", price, sees), a_test("n", price, blind[0])])
    assert isinstance(found.superiority, Superiority)
    assert found.superiority.consistent < 0.01
    assert isinstance(found.overfitting, Overfitting)
    assert found.overfitting.probability < 0.05
    assert isinstance(found.differences, list)
    assert found.differences[0].interval[0] > 0.0


def test_where_nothing_can_be_said_the_reason_is():
    price = walk(np.random.default_rng(1).normal(0, 0.01, 100))
    one = a_test("a", price, np.ones(100))
    alone = compare([one])
    assert alone.overfitting == "there is one run, so nothing was chosen"
    assert alone.superiority == "no run's returns differ from those of buy-and-hold"
    assert compare([one, one._replace(name="b")]).overfitting == "all runs did the same"
    many = [a_test(str(i), price, np.full(100, i / 10)) for i in range(7)]
    assert "up to 6" in str(compare(many).differences)


def test_runs_without_common_bars_are_refused_with_both_names():
    price = walk(np.zeros(10))
    early, late = a_test("x", price, np.ones(10)), a_test("y", price, np.ones(10), first=50)
    with pytest.raises(TradaxError, match=r"no two bars in common: x was tested .* and y was"):
        compare([late, early])
    ruined = curve("policy", price, np.ones(10))
    ruined.net_worth[3:] = 0.0
    lost = early._replace(backtest=dataclasses.replace(early.backtest, policy=ruined))
    with pytest.raises(TradaxError, match="x had lost everything"):
        compare([lost, a_test("y", price, np.ones(10), first=5)])


def test_the_page_tells_runs_settings_and_looks_and_adds_no_trial(runs, tmp_path, capsys):
    before = (runs / "index.jsonl").read_bytes()
    out = tmp_path / "compare.html"
    given = [str(runs / name) for name in ("a", EVIL, "two")]
    assert main(["compare", *given, str(runs / "a"), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"comparison: {out}\n"
    page = out.read_text().split("plotly.js v")[0]
    assert (runs / "index.jsonl").read_bytes() == before
    assert "Comparison of 4 runs" in page
    assert "<img" not in page
    for said in (
        "two GBM1",
        "two GBM2",
        "ppo.learning_rate",
        "2 of 2 trials on the same data were tested",
        "Choosing among these runs by this page is a selection",
        "The runs were tested on different spans",
        "The runs trade different markets",
        "Does the best beat buy-and-hold?",
        "Would choosing the best have worked?",
        "P(Sharpe &gt; 0)",
    ):
        assert said in page, said
    assert "ppo.hidden_sizes" not in page
    # A page of this command is overwritten, also with what it says left out.
    assert main(["compare", given[0], "--skip-posterior", "--out", str(out)]) == 0
    page = out.read_text().split("plotly.js v")[0]
    assert "P(Sharpe &gt; 0)" not in page
    assert "Comparison of a" in page
    summary = json.loads((runs / "a" / "summary.json").read_text())
    total = summary["strategies"]["policy"]["total_return"]
    assert f"<td>{total:,.1%}</td>" in page
    deflated = summary["verdict"]["figures"]["deflated_sharpe"]
    assert deflated is None or "<td>n/a</td>" in page


def test_one_symbol_of_a_run_can_be_named(runs, tmp_path):
    out = comparing.compare([runs / "two" / "GBM2"], tmp_path / "x.html")
    page = out.read_text().split("plotly.js v")[0]
    assert "Comparison of GBM2" in page
    assert "GBM1" not in page


def test_names_are_as_short_as_tells_them_apart(tmp_path):
    paths = [tmp_path / "x" / "best" / "A", tmp_path / "y" / "best" / "A", tmp_path / "y" / "B"]
    names = comparing._named([*paths, paths[0]])
    assert list(names.values()) == ["x/best/A", "y/best/A", "B"]
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "sweep.yaml").touch()
    assert list(comparing._named([tmp_path / "y" / "best" / "A"]).values()) == ["y/best/A"]


def test_every_run_that_cannot_be_compared_is_named(runs, tmp_path, capsys):
    pole = tmp_path / "pole"
    pole.mkdir()
    request = Request(algorithm="ppo", env="CartPole-v1", data=None, total_timesteps=1)
    run_directory.write_config(pole, vars(request))
    begun = tmp_path / "begun"
    begun.mkdir()
    run_directory.write_config(
        begun, vars(dataclasses.replace(request, env="trading", data="AAPL"))
    )
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "sweep.yaml").touch()
    given = [pole, begun, sweep, tmp_path / "nothing", runs / "two" / "checkpoints"]
    out = tmp_path / "x.html"
    assert main(["compare", *map(str, given), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    for said in (
        "pole: CartPole-v1 does not trade given prices",
        "begun: was not tested yet; finish it: tradax train --resume",
        "sweep: is a sweep; give its best/SYMBOL",
        "not a run directory",
        "has no symbol checkpoints",
    ):
        assert said in told
    assert not out.exists()


def test_another_file_is_not_overwritten(runs, tmp_path):
    own = tmp_path / "own.html"
    own.write_text("mine")
    for out in (own, tmp_path):
        with pytest.raises(TradaxError, match="is no page of tradax compare; give another --out"):
            comparing.compare([runs / "a"], out)
    assert own.read_text() == "mine"
    with pytest.raises(TradaxError, match="give one run directory or more"):
        comparing.compare([], tmp_path / "x.html")


def test_data_that_changed_since_are_refused(runs, tmp_path, monkeypatch):
    manifest = json.loads((runs / "a" / "manifest.json").read_text())
    manifest["data"]["sha256"] = "0" * 64
    monkeypatch.setattr(run_directory, "read_manifest", lambda folder: manifest)
    with pytest.raises(TradaxError, match=r"a: its data .* changed since it was trained"):
        comparing.compare([runs / "a"], tmp_path / "x.html")


def test_without_an_index_trials_are_said_not_to_be_known(runs, tmp_path, monkeypatch):
    monkeypatch.setenv(ledger.VARIABLE, "off")
    page = comparing.compare([runs / "a"], tmp_path / "x.html").read_text()
    assert "the trials on these data are not known" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH to open the page with")
def test_the_page_is_drawn_in_a_browser_without_a_request(runs, tmp_path):
    out = comparing.compare([runs / "a", runs / "two"], tmp_path / "x.html")
    with Browser(tmp_path / "profile") as browser:
        phone = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        browser.call("Emulation.setDeviceMetricsOverride", **phone)
        browser.open(out.as_uri())
        browser.drawn_after()
        assert browser.run(
            "[...document.querySelectorAll('.chart')]"
            ".map(c => [c.id, c.querySelectorAll('.main-svg').length > 0])"
        ) == [["equity", True], ["drawdown", True]]
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.complaints == []
    assert browser.requests == [out.as_uri()]
