"""Controls train as the run did, on prices without patterns, and are nobody's trials."""

import json
from dataclasses import replace

import numpy as np
import pytest

import tradax
from test_experiment import FAST
from tradax import cli, controls, held_out, preparation
from tradax.data.surrogates import shuffled
from tradax.errors import ConfigError, ModelFileError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two symbols, one copy of each kind."""
    folder = tmp_path_factory.mktemp("controls") / "run"
    return tradax.train(data=["AAPL", "MSFT"], out=folder, controls=1, **FAST)


def test_a_run_with_controls_keeps_and_shows_a_copy_of_each_kind_for_every_symbol(run):
    kept = json.loads((run.run_dir / "controls.json").read_text())
    assert set(kept["symbols"]) == {"AAPL", "MSFT"}
    for symbol, kinds in kept["symbols"].items():
        assert {kind: len(copies) for kind, copies in kinds.items()} == {"shuffled": 1, "noise": 1}
        said = run.summary["symbols"][symbol]["robustness"]["controls"]
        assert said["copies"] == kinds
        assert "1 shuffled" in said["statement"]
        assert "1 noise copies" in said["statement"]
        strategies = run.summary["symbols"][symbol]["strategies"]
        excess = strategies["policy"]["total_return"] - strategies["buy_and_hold"]["total_return"]
        assert said["real"]["excess"] == pytest.approx(excess)
        page = (run.run_dir / symbol / "report.html").read_text()
        assert said["statement"] in page
    # They are no trials: two symbols, two lines.
    assert len((run.run_dir / "trials.jsonl").read_text().splitlines()) == 2


def test_a_copy_is_the_run_that_its_prices_would_have_alone(run):
    request, task = preparation.reopen(run.run_dir)
    assert task.bars is not None
    assert task.pipeline is not None
    bars = shuffled(task.bars, task.pipeline.splits, np.random.default_rng((0, 0, 0)))
    own = tradax.train(data=bars, out=run.run_dir.parent / "own", **FAST)
    for symbol, summary in own.summary["symbols"].items():
        copies = controls.load(request, run.run_dir, symbol)
        assert copies is not None
        (copy,) = copies["shuffled"]
        made = summary["strategies"]["policy"]
        assert copy.total_return == pytest.approx(made["total_return"], abs=2e-3)
        # Shuffled, the span still ends where it did.
        hold = run.summary["symbols"][symbol]["strategies"]["buy_and_hold"]["total_return"]
        assert copy.total_return - copy.excess == pytest.approx(hold, abs=0.05 * (1 + hold))


def test_controls_of_a_finished_run_are_added_and_nothing_else_changes(run, capsys):
    folder = run.run_dir
    (folder / "controls.json").unlink()
    without = held_out.retest(folder, skip_posterior=True, write=False)
    for summary in without["symbols"].values():
        assert summary["robustness"]["controls"] is None
    assert cli.main(["robustness", str(folder), "--controls", "1"]) == 0
    assert "report.html" in capsys.readouterr().out
    assert json.loads((folder / "summary.json").read_text()) == run.summary


def test_a_copy_has_as_many_policies_as_the_run():
    def policies(env="trading", **options):
        request = preparation.Request(
            algorithm="ppo", env=env, data=["AAPL", "MSFT"], total_timesteps=1, **options
        )
        found = controls._copies(request, preparation.prepare(request), 1)
        assert [copy.kind for copy in found] == ["shuffled", "noise"]
        return found[0].policies

    assert policies(shared_policy=True) == policies("portfolio") == 1
    assert policies(folds=3) == 6


def test_what_can_have_no_controls_says_why(run, tmp_path):
    for env, word in (("execution", "simulates its prices"), ("CartPole-v1", "is no market")):
        with pytest.raises(ConfigError, match=word):
            tradax.train(env=env, out=tmp_path / "x", total_timesteps=100, controls=1)
    with pytest.raises(ConfigError, match="1 or more"):
        tradax.train(out=tmp_path / "x", total_timesteps=100, controls=-1)
    with pytest.raises(ConfigError, match="at least 1"):
        controls.add(run.run_dir, 0)
    request = preparation.Request(
        algorithm="ppo", env="trading", data="sp500", total_timesteps=1, offline="log.parquet"
    )
    with pytest.raises(ConfigError, match="log"):
        controls.check(request, 1)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "content",
    [
        *("[]", "{", '{"format": 2}', '{"format": 1}', '{"format": 1, "timesteps": 1}'),
        '{"format": 1, "timesteps": 1, "symbols": {"A": {"shuffled": [3], "noise": []}}}',
        '{"format": 1, "timesteps": 1, "symbols": {"A": {"shuffled": {}, "noise": 1}}}',
    ],
)
def test_a_damaged_file_of_controls_is_one_clear_error(tmp_path, content):
    request = preparation.Request(algorithm="ppo", env="trading", data=None, total_timesteps=1)
    assert controls.load(request, tmp_path, "A") is None
    (tmp_path / "controls.json").write_text(content)
    with pytest.raises(ModelFileError, match=r"controls\.json"):
        controls.load(request, tmp_path, "A")


def test_controls_of_a_shorter_training_are_not_shown(run):
    request, _ = preparation.reopen(run.run_dir)
    assert controls.load(request, run.run_dir, "AAPL") is not None
    longer = replace(request, total_timesteps=4_096)
    assert controls.load(longer, run.run_dir, "AAPL") is None
