"""The page holds everything, asks for nothing, and shows what it was given."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from browser import CHROMIUM, Browser, violations, wait_for
from test_verdict import simulated, walk, with_edge
from tradax.evaluation.posterior import Posterior
from tradax.evaluation.verdict import assess
from tradax.reporting.charts import MOST_POINTS, learning_charts, market_charts, thinned
from tradax.reporting.frame import number, points_table
from tradax.reporting.luck import luck_part
from tradax.reporting.page import Report, render, summary, write_report
from tradax.reporting.plotly_js import lines_and_bars
from tradax.reporting.posterior import posterior_part
from tradax.reporting.series import csv_files
from tradax.reporting.trades import trades_part

UNFOLD = "for (const folded of document.querySelectorAll('details')) folded.open = true"
EVIL = "</script><script>alert('&')</script><img src=x onerror=alert(1)>"


needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH to open the page with"
)


def report(**changes) -> Report:
    backtest = with_edge(756, skill=0.58)
    posterior = Posterior(
        sharpe_mean=0.91,
        sharpe_interval=(-0.1, 1.9),
        p_positive=0.934,
        excess_mean=0.02,
        excess_interval=(-0.05, 0.09),
        p_beats_benchmark=0.68,
        r_hat=1.002,
        draws=2000,
        converged=True,
    )
    rng = np.random.default_rng(0)
    learning = [
        {
            "update": i,
            "timesteps": 4096 * i,
            "episodes": 0 if i == 1 else 12,
            "return": None if i == 1 else 0.1 * np.log(i) + 0.02 * rng.normal(),
            "length": 252.0,
            "policy_loss": -0.01 * rng.random(),
            "value_loss": 1.0 / i,
            "entropy": 2.8 - 0.01 * i,
            "kl": 0.01 * rng.random(),
            "clip_fraction": 0.1,
            "explained_variance": 1 - 1 / i,
            "gradient_norm": 0.4,
            "seconds": 0.1 * i,
            "steps_per_second": 41_000.0,
        }
        | ({"validation_score": 0.05 * np.log(i)} if i % 5 == 0 else {})
        for i in range(1, 101)
    ]
    verdict = assess(backtest, periods_per_year=252.0, posterior=posterior, survivors=True)
    given = {
        "title": "SIM: ppo on trading",
        "symbol": "SIM",
        "backtest": backtest,
        "verdict": verdict,
        "parts": [luck_part(verdict), posterior_part(posterior, skipped=False)],
        "learning": learning,
        "settings": {
            "ppo": {"learning_rate": 3e-4, "hidden_sizes": [64, 64], "target_kl": None},
            "trading": {"initial_cash": 100_000.0, "allow_short": False, "fill": "next_open"},
        },
        "data": {
            "source": "sample:walk",
            "sha256": "9f" * 32,
            "rows": 2520,
            "train": ["2010-01-04T00:00:00", "2016-12-30T00:00:00"],
            "test": ["2020-01-01", "2022-01-26"],
            "features": ["return_1", "return_5", "rsi_14"],
        },
        "run": {
            "command": "tradax train --data sample:walk --seed 0",
            "versions": {"tradax": "0.1.0", "jax": "0.10.2"},
            "seed": 0,
            "steps_per_second": 41_234.5,
        },
    }
    return Report(**given | changes)


def test_page_says_everything_in_order():
    page = render(report())
    for earlier, later in itertools.pairwise(
        [
            "Verdict</h2>",
            'class="badge',
            "How the grade is decided",
            "What this does not show",
            'id="equity"',
            'id="drawdown"',
            'id="position"',
            "Figures</h2>",
            "Is it luck?</h2>",
            "Minimum track record",
            'id="intervals"',
            "Posterior of the Sharpe ratio</h2>",
            "Probability that the excess is above 0",
            'id="learning"',
            'id="updates"',
            "Options of ppo",
            "9f" * 32,
            "2010-01-04 to 2016-12-30",
            "tradax train --data sample:walk --seed 0",
            "plotly.js v",
        ]
    ):
        assert page.index(earlier) < page.index(later), (earlier, later)
    assert page.count("plotly.js v") >= 1
    assert len(page.encode()) < 7_000_000


def test_strings_from_outside_are_escaped():
    backtest = dataclasses.replace(report().backtest, symbol=EVIL)
    page = render(
        report(
            title=EVIL,
            symbol=EVIL,
            backtest=backtest,
            verdict=assess(backtest, periods_per_year=252.0, replications=50),
            learning=[{"timesteps": 1, EVIL: 1.0}, {"timesteps": 2, EVIL: 2.0}],
            settings={EVIL: {EVIL: EVIL}},
            data={EVIL: [EVIL]},
            run={"command": EVIL, "versions": {EVIL: EVIL}, EVIL: EVIL},
        )
    )
    assert "<script>alert" not in page
    assert "<img" not in page.split("plotly.js v")[0]
    assert page.count("&lt;script&gt;alert") > 8


def test_look_ahead_is_shown_first():
    backtest = dataclasses.replace(report().backtest, look_ahead=True)
    verdict = assess(backtest, periods_per_year=252.0, replications=50)
    page = render(report(backtest=backtest, verdict=verdict))
    assert page.index('class="look-ahead"') < page.index('class="badge none"')
    assert 'class="look-ahead"' not in render(report())


def test_skipped_posterior_and_missing_learning_are_said():
    page = render(report(parts=[posterior_part(None, skipped=True)], learning=[]))
    assert "It was skipped on request." in page
    assert "No learning curve was logged." in page
    note = "The sampler did not converge, so no statement is made."
    assert note in render(report(parts=[posterior_part(Posterior(note=note), skipped=False)]))


def test_summary_is_strict_json_with_the_same_figures():
    given = report()
    figures = json.loads(json.dumps(summary(given), allow_nan=False))
    assert figures["strategies"]["policy"]["sharpe"] == given.backtest.policy.metrics.sharpe
    assert set(figures["strategies"]) == {"policy", "gross", "buy_and_hold", "cash", "random"}
    assert figures["strategies"]["cash"]["sharpe"] is None
    assert figures["test"] == {"first": "2020-01-01", "last": "2022-01-26", "bars": 756}
    assert figures["verdict"]["grade"] == given.verdict.grade
    assert figures["posterior"]["p_positive"] == 0.934
    assert figures["look_ahead"] is False
    odd = summary(report(run={"speed": float("nan"), "n": np.int64(3), "path": Path("x")}))
    assert odd["run"] == {"speed": None, "n": 3, "path": "x"}


def test_symbols_that_are_numbers_are_no_dates():
    page = render(report(data={"symbols": ["7203", "9984"], "test": ["2020-01-01", "2022-01-26"]}))
    assert "7203, 9984" in page
    assert "2020-01-01 to 2022-01-26" in page


def test_numbers_of_simulated_markets_keep_six_digits_and_large_ones_all():
    shown = [number(x) for x in (2_562_500.0, 12_345.6, 0.123456789, 3)]
    assert shown == ["2,562,500", "12,346", "0.123457", "3"]


def test_a_policy_that_never_trades_has_a_page():
    price = report().backtest.policy.price
    backtest = simulated(price, np.zeros(len(price) - 1))
    page = render(report(backtest=backtest, verdict=assess(backtest, periods_per_year=252.0)))
    assert "never traded" in page
    assert "n/a" in page


def test_few_points_are_all_drawn_and_many_keep_their_extremes():
    few = report().backtest
    assert len(market_charts(few)[0].data[0]["x"]) == 757
    rng = np.random.default_rng(0)
    many = simulated(walk(rng.normal(0, 0.001, 20_000)), np.ones(20_000))
    rows = thinned(many)
    assert len(rows) <= MOST_POINTS
    assert {0, 20_000, many.policy.net_worth.argmin(), many.policy.net_worth.argmax()} <= set(rows)


def test_learning_charts_draw_what_any_algorithm_logs():
    rows = [{"timesteps": i, "q_loss": float(i), "return": None} for i in range(3)]
    (chart,) = learning_charts(rows)
    assert chart.data[0]["y"] == [0.0, 1.0, 2.0]
    assert "Q loss: 0 at first, 2 at last" in chart.summary
    assert "<td>2</td>" in points_table(chart, "Timesteps")


def test_points_of_a_chart_are_told_where_all_its_lines_have_some():
    rows = [
        {"timesteps": i, "return": i / 10} | ({"validation_score": -i} if i % 7 == 0 else {})
        for i in range(1, 100)
    ]
    (chart,) = learning_charts(rows)
    told = points_table(chart, "Timesteps")
    assert "the points in numbers" in told
    assert '<tr><th scope="row">98</th><td>9.8</td><td>-98</td></tr>' in told
    assert '<th scope="row">97</th>' not in told
    few = learning_charts([row for row in rows if row["timesteps"] < 8])[0]
    assert '<tr><th scope="row">6</th><td>0.6</td><td>–</td></tr>' in points_table(few, "Timesteps")


def test_plotly_knows_every_option_of_the_charts():
    from plotly.graph_objects import Figure

    given = report()
    of_parts = [chart for part in given.parts for chart in part.charts]
    for chart in market_charts(given.backtest) + learning_charts(given.learning) + of_parts:
        Figure(data=chart.data, layout=chart.layout)  # raises for options that do not exist


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("n", [1, 12])
def test_weights_of_a_portfolio_are_stacked_to_what_is_invested(n, short):
    from plotly.graph_objects import Figure

    one = report().backtest
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(n + 1), len(one.policy.shares))[:, :n]
    if short:
        weights *= rng.choice([-1.0, 1.0], weights.shape)
    policy = dataclasses.replace(one.policy, weights=weights)
    assets = (EVIL, *(f"S{i}" for i in range(1, n)))
    backtest = dataclasses.replace(one, policy=policy, assets=assets)
    chart = market_charts(backtest)[2]
    Figure(data=chart.data, layout=chart.layout)
    assert EVIL not in json.dumps(chart.data)
    assert len({trace["name"] for trace in chart.data}) <= 9
    stacked = [t for t in chart.data if "stackgroup" in t and t["name"] != "Cash"]
    total = np.sum([t["y"] for t in stacked], axis=0)
    np.testing.assert_allclose(total[1:], weights.sum(1), atol=1e-6)
    assert ("Net" in chart.data[-1]["name"]) == short
    verdict = assess(backtest, periods_per_year=252.0, replications=50)
    assert ("one set of assets" in " ".join(verdict.caveats)) == (n > 1)
    assert ("equal parts of all assets" in " ".join(verdict.sentences)) == (n > 1)
    page = render(report(backtest=backtest, verdict=verdict))
    assert "<h3>Weights</h3>" in page
    assert "<script>alert" not in page


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@needs_browser
def test_page_draws_every_chart_in_a_browser_without_a_request(browser, tmp_path):
    write_report(tmp_path / "report.html", report())
    asked = len(browser.requests)
    browser.size(375)
    browser.open((tmp_path / "report.html").as_uri())
    browser.drawn_after()
    drawn = browser.run(
        "[...document.querySelectorAll('.chart')]"
        ".map(c => [c.id, c.querySelectorAll('.main-svg').length > 0])"
    )
    assert drawn == [
        [name, True]
        for name in ("equity", "drawdown", "position", "intervals", "learning", "updates")
    ]
    assert browser.run(
        "document.querySelector('button[data-log]').click();"
        "[charts[0].layout.yaxis.type, document.documentElement.scrollWidth <= innerWidth]"
    ) == ["log", True]
    # A kind of chart that plotly does not know is drawn as a line, without complaint.
    bars = "Plotly.newPlot(charts[0], [{type: 'bar', y: [1, 2]}]).then(c => c.innerHTML)"
    assert 'class="trace bars"' in browser.run(bars)
    assert browser.complaints == []
    assert browser.requests[asked:] == [(tmp_path / "report.html").as_uri()]


IDLE_NEVER = "window.requestIdleCallback = () => 0; window.setTimeout = () => 0"
DRAWN = "[...document.querySelectorAll('.chart')].filter(c => c.querySelector('.main-svg')).length"


@needs_browser
@pytest.mark.parametrize("by", ["scrolling", "print", "button"])
def test_charts_off_screen_are_drawn_when_they_are_wanted(browser, tmp_path, by):
    given = report(parts=[trades_part(report().backtest), *report().parts])
    write_report(tmp_path / "report.html", given)
    never = browser.call("Page.addScriptToEvaluateOnNewDocument", source=IDLE_NEVER)
    browser.size(1440, height=300)
    browser.open((tmp_path / "report.html").as_uri())
    browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=never["identifier"])
    at_first = browser.run("charts.map(c => [c.offsetTop, c.offsetHeight])")
    assert browser.run(DRAWN) == 0
    if by == "scrolling":
        browser.run("document.getElementById('updates').scrollIntoView()")
        wait_for(lambda: browser.run("!!document.querySelector('#updates .main-svg')"))
        assert 0 < browser.run(DRAWN) < len(at_first)
    elif by == "print":
        browser.run("window.dispatchEvent(new Event('beforeprint'))")
        assert browser.run(DRAWN) == len(at_first)
        browser.run("window.dispatchEvent(new Event('afterprint'))")
    else:
        browser.run("document.querySelector('button[data-log]').click()")
        assert browser.run("charts[0].layout.yaxis.type") == "log"
    assert browser.run("charts.map(c => [c.offsetTop, c.offsetHeight])") == at_first
    assert browser.complaints == []


def test_of_plotly_only_lines_and_bars_are_set_up():
    others = ",".join(f"k{i}()" for i in range(30))
    library = (
        """name:"bar",animatable:!0}});var b$=W((x,y)=>{});R.register([b$(),%s]);y.exports=R"""
    )
    expected = (library % others).replace(f",{others}", "")
    assert lines_and_bars(library % others) == expected
    for unexpected in ("no plotly", (library % others).replace("bar", "box"), library % "k()"):
        assert lines_and_bars(unexpected) == unexpected


@needs_browser
@pytest.mark.parametrize("width", [375, 1440])
def test_axe_finds_nothing(browser, tmp_path, width):
    backtest = with_edge(60)
    evil = dataclasses.replace(backtest, symbol=EVIL)
    given = report(backtest=evil, parts=[*report().parts, trades_part(evil)], title="SIM " * 40)
    write_report(tmp_path / "report.html", given)
    browser.size(width)
    browser.open((tmp_path / "report.html").as_uri())
    browser.drawn_after()
    browser.run(UNFOLD)
    assert violations(browser) == []
    assert browser.complaints == []


@needs_browser
def test_buttons_save_what_the_folder_holds(browser, tmp_path):
    backtest = dataclasses.replace(report().backtest, symbol=EVIL)
    write_report(tmp_path / "report.html", report(parts=[trades_part(backtest)], backtest=backtest))
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.open((tmp_path / "report.html").as_uri())
    asked = len(browser.requests)
    assert browser.run("[...document.querySelectorAll('[data-download]')].map(b => b.type)") == (
        ["button"] * 3
    )
    for name, text in csv_files(backtest).items():
        browser.run(f"document.querySelector('[data-download=\"{name}\"]').focus()")
        for kind in ("keyDown", "keyUp"):  # as who has no mouse does
            enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
            browser.call("Input.dispatchKeyEvent", type=kind, **enter)
        wait_for((tmp_path / name).exists)
        assert (tmp_path / name).read_text() == text
    assert all(url.startswith("blob:") for url in browser.requests[asked:])
    assert browser.complaints == []


@needs_browser
def test_every_control_is_reached_by_keyboard_and_shows_it(browser, tmp_path):
    parts = [trades_part(report().backtest)]
    write_report(tmp_path / "report.html", report(parts=parts))
    browser.open((tmp_path / "report.html").as_uri())
    browser.run(UNFOLD)
    controls = browser.run(
        "document.querySelectorAll('a[href], button, summary, [tabindex=\"0\"]').length"
    )
    reached = []
    for _ in range(controls):
        for kind in ("keyDown", "keyUp"):
            browser.call(
                "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
            )
        reached.append(
            browser.run(
                "(e => [e.outerHTML.slice(0, 80), getComputedStyle(e).outlineStyle,"
                " getComputedStyle(e).outlineWidth])(document.activeElement)"
            )
        )
    assert len({html for html, _, _ in reached}) == controls
    assert {tuple(outline) for _, *outline in reached} == {("solid", "3px")}
    targets = browser.run(
        "[...document.querySelectorAll('nav a')].map(a => !!document.querySelector(a.hash))"
    )
    assert len(targets) == 8
    assert all(targets)


@needs_browser
@pytest.mark.parametrize("bars", [5040, 100_000])
def test_long_tests_make_pages_below_7_mb_that_draw_every_chart(browser, tmp_path, bars):
    returns = np.random.default_rng(0).normal(0.0002, 0.01 if bars < 9000 else 1e-4, bars)
    backtest = simulated(walk(returns), (returns > 0).astype(float))
    given = report(backtest=backtest, parts=[trades_part(backtest)])
    write_report(tmp_path / "report.html", given)
    assert (tmp_path / "report.html").stat().st_size < 7_000_000
    browser.open((tmp_path / "report.html").as_uri())
    assert browser.drawn_after() > 0
