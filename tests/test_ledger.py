"""Trials are counted once each, by whoever writes them, and stay counted when runs are deleted."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tradax
from tradax import held_out, ledger
from tradax.cli import main
from tradax.data import samples
from tradax.errors import TradaxError
from tradax.ledger import Trial

TRIAL = Trial(
    algorithm="ppo",
    env="trading",
    symbol="SPY",
    seed=0,
    timesteps=1000,
    settings="abc",
    data_sha256="d" * 64,
    test_sha256="e" * 64,
    validation_score=0.1,
    sharpe=0.8,
    sharpe_per_bar=0.05,
    bars=500,
    tested=True,
)
FAST = {
    "data": "synthetic:noise,bars=700,seed=5",
    "total_timesteps": 1_024,
    "evaluations": 2,
    "skip_posterior": True,
    "settings": {"ppo": {"num_envs": 8, "n_steps": 32, "minibatches": 2, "hidden_sizes": [8]}},
}


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "user" / "trials.jsonl"
    monkeypatch.setenv("TRADAX_TRIALS", str(path))
    return path


def run(base: Path, name: str) -> Path:
    folder = base / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def seeds(count: int, **changes) -> list[Trial]:
    """Trials that differ in seed and outcome."""
    sharpes = np.random.default_rng(0).normal(0, 0.05, count)
    return [
        dataclasses.replace(TRIAL, seed=seed, sharpe_per_bar=float(sharpe), **changes)
        for seed, sharpe in enumerate(sharpes, 1)
    ]


def test_the_index_is_where_the_variable_or_the_platform_says(monkeypatch, tmp_path):
    monkeypatch.delenv("TRADAX_TRIALS")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert ledger.index_path() == tmp_path / ".local/share/tradax/trials.jsonl"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert ledger.index_path() == tmp_path / "data/tradax/trials.jsonl"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert ledger.index_path() == tmp_path / ".local/share/tradax/trials.jsonl"
    monkeypatch.setenv("TRADAX_TRIALS", "~/elsewhere.jsonl")
    assert ledger.index_path() == tmp_path / "elsewhere.jsonl"
    monkeypatch.setenv("TRADAX_TRIALS", "off")
    assert ledger.index_path() is None


def test_a_line_says_what_was_tried_where_and_when_and_holds_no_data(index, tmp_path):
    folder = run(tmp_path, "a")
    ledger.add_trials(folder, [TRIAL])
    line = json.loads(index.read_text())
    assert line.pop("time").endswith("Z")
    assert line.pop("folder") == str(folder)
    assert line == {"format": 1, "id": TRIAL.id, **dataclasses.asdict(TRIAL)}
    assert json.loads((folder / "trials.jsonl").read_text()) == line
    assert index.parent.stat().st_mode & 0o777 == 0o700


def test_a_figure_that_is_no_number_is_none(index, tmp_path):
    ledger.add_trials(run(tmp_path, "a"), [dataclasses.replace(TRIAL, validation_score=-np.inf)])
    (entry,) = ledger.entries()
    assert entry.trial == dataclasses.replace(TRIAL, validation_score=None)


def test_a_run_that_is_resumed_or_tested_again_is_one_trial(index, tmp_path):
    folder = run(tmp_path, "a")
    untested = dataclasses.replace(
        TRIAL, tested=False, sharpe=None, sharpe_per_bar=None, test_sha256=None, bars=None
    )
    ledger.add_trials(folder, [untested])
    for _ in range(3):
        ledger.add_trials(folder, [TRIAL])
        ledger.add_trials(None, [TRIAL], run=folder)
    again = dataclasses.replace(TRIAL, sharpe_per_bar=0.0501)  # another device rounds otherwise
    ledger.add_trials(folder, [again])
    assert len(index.read_text().splitlines()) == 3
    (entry,) = ledger.entries()
    assert entry.trial == again
    record = ledger.record(TRIAL, folder)
    assert (record.trials, record.tested, record.sharpes) == (1, 1, (0.05,))
    longer = dataclasses.replace(TRIAL, timesteps=2000)  # goes on, and may be chosen instead
    assert ledger.record(longer, folder).trials == 2


def test_the_same_training_elsewhere_counts_again_only_if_it_came_out_otherwise(index, tmp_path):
    ledger.add_trials(run(tmp_path, "a"), [TRIAL])
    ledger.add_trials(run(tmp_path, "b"), [TRIAL])
    assert ledger.record(TRIAL, tmp_path / "runs/b").trials == 1
    other = dataclasses.replace(TRIAL, sharpe_per_bar=0.02)
    ledger.add_trials(run(tmp_path, "c"), [other])
    assert ledger.record(TRIAL, tmp_path / "runs/b").trials == 2


def test_trials_are_those_on_the_same_data_and_symbol_or_the_same_test_span(index, tmp_path):
    folder = run(tmp_path, "a")
    of_symbol = dataclasses.replace(TRIAL, symbol="QQQ", test_sha256="f" * 64)
    of_data = dataclasses.replace(TRIAL, data_sha256="0" * 64, test_sha256="1" * 64)
    with_signals = dataclasses.replace(TRIAL, data_sha256="0" * 64, seed=7)  # the same span
    ledger.add_trials(folder, [TRIAL, of_symbol, of_data, with_signals])
    record = ledger.record(TRIAL, folder)
    assert record.trials == 2
    assert len(ledger.entries()) == 4
    assert [entry.trial for entry in ledger.entries("0000")] == [of_data, with_signals]
    assert [entry.trial for entry in ledger.entries(symbol="QQQ")] == [of_symbol]
    no_data = dataclasses.replace(TRIAL, data_sha256=None)
    ledger.add_trials(folder, [no_data])
    assert len(ledger.entries()) == 4  # of simulated markets, say; their folder has it
    assert len((folder / "trials.jsonl").read_text().splitlines()) == 5


def test_members_that_were_not_tested_are_trials_but_no_use_of_the_test_span(index, tmp_path):
    members = seeds(9, tested=False)
    ledger.add_trials(run(tmp_path, "sweep"), [*members, TRIAL])
    record = ledger.record(TRIAL, tmp_path / "runs/sweep")
    assert (record.trials, record.tested, record.sharpes) == (10, 1, (0.05,))


def test_deleting_run_folders_hides_no_trial(index, tmp_path):
    for trial in seeds(50):
        ledger.add_trials(run(tmp_path, str(trial.seed)), [trial])
    before = ledger.record(TRIAL, run(tmp_path, "own"))
    assert (before.trials, before.missing) == (51, 0)
    for seed in range(1, 31):
        shutil.rmtree(tmp_path / "runs" / str(seed))
    ledger.add_trials(run(tmp_path, "1"), [dataclasses.replace(TRIAL, seed=99)])  # the name again
    after = ledger.record(TRIAL, tmp_path / "runs/own")
    assert (after.trials, after.missing) == (52, 30)
    assert after.sharpes[:50] == before.sharpes[:50]


_WRITER = """
import sys
from tradax.ledger import Trial, add_trials
from pathlib import Path
folder = Path(sys.argv[1])
folder.mkdir()
for seed in range(30):
    add_trials(folder, [Trial(algorithm="a" * 3000, env="e", symbol="S", seed=seed, timesteps=1,
                              settings=sys.argv[1], data_sha256="d", validation_score=seed)])
"""


def test_processes_that_write_at_once_lose_no_line(index, tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path / name)]) for name in "abc"
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(ledger.entries()) == 90


def test_lines_that_cannot_be_read_are_said_and_the_others_count(index, tmp_path):
    ledger.add_trials(run(tmp_path, "a"), [TRIAL])
    whole = index.read_text()
    newer = json.dumps({**json.loads(whole), "format": 2})
    wrong = json.dumps({**json.loads(whole), "seed": "zero"})
    index.write_text(f"{whole}\x00\n[]\n{newer}\n{wrong}\n\n{whole[:50]}")  # the last one is cut
    with pytest.warns(UserWarning, match="5 of 6 lines cannot be read"):
        ledger.add_trials(run(tmp_path, "b"), [dataclasses.replace(TRIAL, seed=1)])
    with pytest.warns(UserWarning, match="5 of 7 lines"):
        assert len(ledger.entries()) == 2


def test_an_index_that_cannot_be_written_or_read_fails_no_run(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRADAX_TRIALS", str(tmp_path / "file" / "trials.jsonl"))
    folder = run(tmp_path, "a")
    with pytest.warns(UserWarning, match="not in the index of trials"):
        ledger.add_trials(folder, [TRIAL])
    assert json.loads((folder / "trials.jsonl").read_text())["seed"] == 0
    monkeypatch.setenv("TRADAX_TRIALS", str(tmp_path))
    with pytest.warns(UserWarning, match="not read"):
        assert ledger.record(TRIAL, folder) is None
    with pytest.raises(TradaxError, match="no such file"):
        ledger.entries()
    monkeypatch.setenv("TRADAX_TRIALS", "off")
    ledger.add_trials(folder, [TRIAL])
    assert ledger.record(TRIAL, folder) is None
    assert ledger.entries() == []


def test_the_command_prints_the_trials_of_all_data_of_some_and_of_a_run(index, tmp_path, capsys):
    sha = samples.load("sp500").sha256
    ledger.add_trials(run(tmp_path, "a"), seeds(2, data_sha256=sha))
    ledger.add_trials(run(tmp_path, "b"), [TRIAL, dataclasses.replace(TRIAL, tested=False, seed=9)])
    shutil.rmtree(tmp_path / "runs" / "a")
    assert main(["trials"]) == 0
    told = capsys.readouterr().out
    assert "4 trials, 3 of them tested; the folders of 2 are gone" in told
    assert f"{tmp_path}/runs/a (gone)" in told
    assert "untested" in told
    assert main(["trials", "--data", "sp500"]) == 0
    assert "2 trials, 2 of them tested" in capsys.readouterr().out
    assert main(["trials", "--run", str(tmp_path / "runs" / "b"), "--symbol", "SPY"]) == 0
    assert "2 trials, 1 of them tested" in capsys.readouterr().out
    assert main(["trials", "--symbol", "QQQ"]) == 0
    assert "no trials" in capsys.readouterr().out
    assert main(["trials", "--run", str(tmp_path)]) == 2
    assert main(["trials", "--run", "a", "--data", "sp500"]) == 2


def test_a_user_who_tests_the_same_data_50_times_sees_the_deflated_sharpe_ratio_fall(
    index, tmp_path
):
    result = tradax.train(env="discrete_trading", out=tmp_path / "run", **FAST)
    first = result.summary["verdict"]["figures"]
    assert first["trials"] == first["test_span_used_times"] == 1
    assert first["trials_missing"] == 0
    assert first["deflated_sharpe"] == first["probabilistic_sharpe"]
    (own,) = ledger.entries()
    assert own.trial.data_sha256 == result.summary["data"]["sha256"]
    strategy = result.summary["strategies"]["policy"]
    assert own.trial.sharpe == strategy["sharpe"]
    assert own.trial.sharpe_per_bar * np.sqrt(252) == pytest.approx(strategy["sharpe"])

    given = {"data_sha256": own.trial.data_sha256, "symbol": own.trial.symbol}
    for trial in seeds(49, **given):
        ledger.add_trials(run(tmp_path, str(trial.seed)), [trial])
    shutil.rmtree(tmp_path / "runs")
    again = held_out.retest(result.run_dir, skip_posterior=True)["verdict"]
    figures = again["figures"]
    assert figures["probabilistic_sharpe"] == first["probabilistic_sharpe"]
    assert figures["deflated_sharpe"] < first["deflated_sharpe"] - 0.1
    assert figures["trials"] == figures["test_span_used_times"] == 50
    assert figures["trials_missing"] == 49
    assert "50 trainings on these data" in (result.run_dir / "report.html").read_text()
    assert len(index.read_text().splitlines()) == 50
    assert len((result.run_dir / "trials.jsonl").read_text().splitlines()) == 1
