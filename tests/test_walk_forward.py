import itertools
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skfolio.model_selection import WalkForward as Reference

import tradax
from browser import CHROMIUM, Browser, violations
from tradax import held_out, preparation
from tradax.data import features
from tradax.data.pipeline import Pipeline
from tradax.data.splits import MINIMUM, Span, Splits, WalkForward, chronological, walk_forward
from tradax.data.synthetic import geometric_brownian_motion
from tradax.envs import trading
from tradax.envs._baselines import Rule, spec_of
from tradax.errors import ConfigError, DataError
from tradax.evaluation.backtest import backtest
from tradax.evaluation.scoring import whole_return
from tradax.evaluation.succession import Succession
from tradax.exporting import export

FAST = {
    "total_timesteps": 1_024,
    "evaluations": 2,
    "skip_posterior": True,
    "train_fraction": 0.4,
    "validation_fraction": 0.1,
    "folds": 3,
    "settings": {
        "ppo": {"num_envs": 8, "n_steps": 32, "minibatches": 2, "hidden_sizes": [16]},
        "features": {"indicators": False},
        "trading": {"episode_length": 50},
    },
}


def prices(symbols=1, n=400):
    each = [geometric_brownian_motion(n, drift=0.1, volatility=0.3, seed=k) for k in range(symbols)]
    series = {
        name: np.concatenate([getattr(one, name) for one in each])
        for name in ("open", "high", "low", "close", "volume")
    }
    return replace(each[0], symbols=("walk", "other")[:symbols], **series)


def test_folds_by_hand():
    # 100 rows after 4 of warm-up: 50 to train on, 20 to validate on, 30 to test on.
    anchored = walk_forward(104, 4, WalkForward(3, purge=2, embargo=3), train=0.5, validation=0.2)
    assert anchored == (
        Splits(Span(4, 48), Span(51, 70), Span(74, 83)),
        Splits(Span(4, 58), Span(61, 80), Span(84, 93)),
        Splits(Span(4, 68), Span(71, 90), Span(94, 103)),
    )
    rolling = walk_forward(
        104, 4, WalkForward(3, rolling=True, purge=2, embargo=3), train=0.5, validation=0.2
    )
    assert [fold.train for fold in rolling] == [Span(4, 48), Span(14, 58), Span(24, 68)]
    assert [fold[1:] for fold in rolling] == [fold[1:] for fold in anchored]


@given(
    st.integers(300, 2000), st.integers(2, 6), st.booleans(), st.integers(0, 9), st.integers(0, 9)
)
def test_no_fold_sees_its_test_or_what_is_left_out(n, folds, rolling, purge, embargo):
    how = WalkForward(folds, rolling, purge, embargo)
    found = walk_forward(n, 7, how, train=0.5, validation=0.2)
    whole = chronological(n, 7, train=0.5, validation=0.2)
    tested = [row for fold in found for row in range(fold.test.first, fold.test.last + 1)]
    assert tested == list(range(whole.test.first, whole.test.last + 1))
    for fold in found:
        assert fold.train.first >= 7
        assert fold.train.rows >= MINIMUM["train"]
        assert fold.validation.first - fold.train.last == purge + 1
        assert fold.test.first - fold.validation.last == embargo + 1
        assert fold.validation.rows == whole.validation.rows
        assert not rolling or fold.train.rows == found[0].train.rows


@pytest.mark.parametrize("rolling", [False, True])
def test_folds_are_those_of_skfolio(rolling):
    found = walk_forward(
        500, 0, WalkForward(5, rolling, purge=0, embargo=4), train=0.5, validation=0.2
    )
    known = found[0].validation.last + 1  # rows that the first fold learns from or chooses on
    reference = Reference(
        test_size=30, train_size=known, purged_size=4, expand_train=not rolling
    ).split(np.zeros((500, 1)))
    for fold, (before, test) in zip(found, reference, strict=True):
        np.testing.assert_array_equal(test, np.arange(fold.test.first, fold.test.last + 1))
        np.testing.assert_array_equal(before, np.arange(fold.train.first, fold.validation.last + 1))


def test_a_normaliser_is_fitted_on_its_folds_training_rows_only():
    bars = prices()
    how = WalkForward(3)
    found = Pipeline.walk_forward(bars, features.Config(), how, train=0.4, validation=0.1)
    end = found[0].splits.train.last + 1
    changed = replace(bars, close=np.where(np.arange(400) < end, bars.close, bars.close * 1.7))
    changed = replace(changed, high=np.maximum(bars.high, changed.close))
    later = Pipeline.walk_forward(changed, features.Config(), how, train=0.4, validation=0.1)
    first, again = found[0].normalizers[0], later[0].normalizers[0]
    assert first is not None
    assert jax.tree.all(jax.tree.map(np.array_equal, vars(first), vars(again)))
    assert found[0].splits == later[0].splits


class Always(Rule):
    """The same order at every bar."""

    direction: jax.Array

    def choose(self, row, account):
        return jnp.stack([jnp.broadcast_to(self.direction, row.shape), jnp.ones(row.shape)], -1)


def test_a_policy_takes_over_what_the_one_before_it_holds():
    bars = prices(n=200)
    markets = Pipeline.fit(bars, features.Config(indicators=False)).transform(bars)
    free = trading.Config(commission_bps=0, half_spread_bps=0)
    env, params = trading.make(free, markets, Span(30, 99))
    buys, sells = (
        Always(spec=spec_of(env, params), direction=jnp.float32(sign)) for sign in (1, -1)
    )
    one, both = (
        backtest(policy, trading, env, params, markets, Span(100, 120)).policy
        for policy in (buys, Succession.of([buys, sells], [0, 8]))
    )
    np.testing.assert_array_equal(both.shares[:8], one.shares[:8])
    assert one.shares[7] > 0.0
    np.testing.assert_array_equal(both.shares[8:], 0.0)
    # What was handed over was sold at the first open that the second policy could have.
    assert both.net_worth[-1] == pytest.approx(one.shares[7] * markets[0].open[109], rel=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tradax.train(data=prices(), out=tmp_path_factory.mktemp("folds") / "run", **FAST)


def test_a_walk_forward_leaves_the_last_folds_run_and_the_others_beside_it(run):
    assert set(run.policies) == {"walk", "walk, fold 1", "walk, fold 2"}
    assert sorted(path.name for path in (run.run_dir / "folds").iterdir()) == ["1", "2"]
    obs = np.ones((1, run.policies["walk"].spec.size), np.float32)
    for name, folder in (("walk", "."), ("walk, fold 1", "folds/1"), ("walk, fold 2", "folds/2")):
        loaded = tradax.load_policy(run.run_dir / folder)
        np.testing.assert_array_equal(loaded.act(obs), run.policies[name].act(obs))
    folds = run.summary["folds"]
    assert len(folds) == 3
    for before, after in itertools.pairwise(folds):
        assert before["test"][1] < after["test"][0]
    for name in ("policy", "buy_and_hold"):
        chained = np.prod([1.0 + fold[name]["total_return"] for fold in folds]) - 1.0
        assert chained == pytest.approx(run.summary["strategies"][name]["total_return"], rel=1e-6)
    again = held_out.retest(run.run_dir, skip_posterior=True, write=False)
    assert again["strategies"] == run.summary["strategies"]
    assert again["folds"] == folds
    page = (run.run_dir / "report.html").read_text()
    assert "Walk-forward, fold by fold</h2>" in page


def test_a_fold_learns_nothing_from_what_comes_after_it(run, tmp_path):
    _, task = preparation.reopen(run.run_dir)
    begin = task.folds[1].test.first  # all that the second fold was trained and chosen on is before
    bars = prices()
    late = np.arange(400) >= begin
    moved = {
        name: np.where(late, getattr(bars, name) * 1.5, getattr(bars, name))
        for name in ("open", "high", "low", "close")
    }
    other = tradax.train(data=replace(bars, **moved), out=tmp_path / "other", **FAST)
    for name in ("walk, fold 1", "walk, fold 2"):
        equal = jax.tree.map(np.array_equal, run.policies[name], other.policies[name])
        assert jax.tree.all(equal), name
    losses = [result.metrics["walk"][-1]["value_loss"] for result in (run, other)]
    assert losses[0] != losses[1]  # the third fold has seen some of it


@pytest.mark.parametrize(
    ("changes", "members", "folders"),
    [
        (
            {},
            6,
            ["walk/folds/1", "other/folds/1", "walk/folds/2", "other/folds/2", "walk", "other"],
        ),
        ({"shared_policy": True}, 3, ["folds/1", "folds/2", "."]),
        ({"env": "portfolio"}, 3, ["folds/1", "folds/2", "."]),
    ],
)
def test_folds_of_several_symbols(changes, members, folders):
    given = {"algorithm": "ppo", "env": "trading", "data": "frame", "total_timesteps": 1}
    settings = {"features": {"indicators": False}, "ppo": FAST["settings"]["ppo"]}
    request = preparation.Request(settings=settings, train_fraction=0.4, folds=3, **given | changes)
    bars = prices(symbols=2)
    task = preparation.prepare(request, frame=bars)
    assert task.members == members
    assert [str(folder) for folder in task.folders] == folders
    assert task.tested.last == 399
    names = preparation.policy_names(request, task)
    assert len(set(names)) == members
    # Each is validated on its own fold's rows; a policy for all on the mean over the symbols.
    learner = jax.vmap(task.algorithm.init)(jax.random.split(jax.random.key(0), members))
    policies = jax.vmap(task.algorithm.policy)(learner)
    scores = task.evaluate(policies)
    assert scores.shape == (members,)
    if not changes:
        one = jax.tree.map(lambda x: x[2], policies)  # the first symbol's in the second fold
        span = task.folds[1].validation
        params = trading.over_span(task.single_sources[0].params, span)
        source = eqx.tree_at(lambda s: s.params, task.single_sources[0], params)
        alone = jax.jit(whole_return, static_argnums=1)(source, span.rows, one)
        assert scores[2] == pytest.approx(float(alone), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": 1}, "folds is 1; it must be at least 2"),
        ({"purge_bars": -1}, "purge_bars is -1; it must be at least 0"),
        ({"folds": None, "rolling": True}, "rolling belong to folds"),
        ({"env": "CartPole-v1", "data": None}, "CartPole-v1 has no bars to walk forward on"),
    ],
)
def test_options_that_make_no_folds_are_refused(changes, message, tmp_path):
    given = {"data": prices(), "out": tmp_path / "run"} | FAST | changes
    given["settings"] = {"ppo": FAST["settings"]["ppo"]}
    with pytest.raises(ConfigError, match=message):
        tradax.train(**given)
    assert not (tmp_path / "run").exists()


def test_too_many_folds_are_an_error_that_says_what_is_left(tmp_path):
    with pytest.raises(DataError, match="40 folds leave 5 rows to test, which needs 10"):
        tradax.train(data=prices(), out=tmp_path / "run", **FAST | {"folds": 40})


def test_the_last_folds_policy_is_what_is_exported(run):
    (written,) = export(run.run_dir, "sb3")
    assert written == run.run_dir / "policy-sb3.zip"
    obs = np.ones((1, run.policies["walk"].spec.size), np.float32)
    np.testing.assert_array_equal(
        tradax.load_policy(written).act(obs), run.policies["walk"].act(obs)
    )


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH to open the page with")
@pytest.mark.parametrize("width", [375, 1440])
def test_its_page_is_accessible_and_draws_every_chart(run, tmp_path, width):
    with Browser(tmp_path / "profile") as browser:
        browser.size(width)
        browser.open((run.run_dir / "report.html").as_uri())
        assert browser.drawn_after() > 0
        assert browser.run("document.getElementById('folds-returns').innerHTML.length") > 0
        assert violations(browser) == []
    assert browser.complaints == []
    assert browser.requests == [(run.run_dir / "report.html").as_uri()]
