"""Validation returns of trials are kept, found again, and judged together."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

import tradax
from test_ledger import FAST, TRIAL
from tradax import held_out, kept_returns, ledger
from tradax.evaluation.overfitting import overfitting
from tradax.kept_returns import Series, read_returns, together, write_returns
from tradax.ledger import Entry

DAYS = np.datetime64("2020-01-01") + np.arange(100)


def noise(seed: int, stamps: np.ndarray = DAYS) -> Series:
    values = np.random.default_rng(seed).normal(0.0, 0.01, len(stamps))
    return Series(stamps.astype("datetime64[us]"), values)


def entry(folder: Path, seed: int) -> Entry:
    return Entry("", str(folder), dataclasses.replace(TRIAL, seed=seed))


def test_what_was_written_is_read_to_float32(tmp_path):
    kept = {"a": noise(0), "b": noise(1, DAYS[10:]), "c": Series(DAYS, np.full(100, np.nan))}
    write_returns(tmp_path, kept)
    found = read_returns(tmp_path, ["a", "b", "c", "d"])
    assert list(found) == ["a", "b"]
    for name, series in found.items():
        np.testing.assert_array_equal(series.timestamps, kept[name].timestamps)
        np.testing.assert_allclose(series.returns, kept[name].returns, atol=1e-8)


def test_trials_of_several_folders_meet_on_the_bars_they_share(tmp_path):
    folders = [tmp_path / name for name in ("sweep", "run", "other", "gone")]
    entries = [entry(folders[0], 1), entry(folders[0], 2), entry(folders[1], 3)]
    entries += [entry(folders[2], 4), entry(folders[3], 5)]
    ids = [e.trial.id for e in entries]
    for folder in folders[:3]:
        folder.mkdir()
    write_returns(folders[0], {ids[0]: noise(1), ids[1]: noise(2)})
    write_returns(folders[1], {ids[2]: noise(3, DAYS[20:])})
    write_returns(folders[2], {ids[3]: noise(4, DAYS + 90)})  # hardly any bar in common
    returns = together(entries)
    assert returns.shape == (80, 3)
    np.testing.assert_allclose(returns[:, 0], noise(1).returns[20:], atol=1e-8)
    np.testing.assert_allclose(returns[:, 2], noise(3, DAYS[20:]).returns, atol=1e-8)
    assert together([]).shape == (0, 0)


@pytest.mark.parametrize("content", [b"", b"PAR1 not really PAR1", b"\x00" * 400])
def test_a_damaged_file_counts_as_not_kept(tmp_path, content):
    (tmp_path / kept_returns.FILE).write_bytes(content)
    assert read_returns(tmp_path, ["a"]) == {}
    write_returns(tmp_path, {"a": noise(0)})
    whole = (tmp_path / kept_returns.FILE).read_bytes()
    (tmp_path / kept_returns.FILE).write_bytes(whole[: len(whole) // 2])
    assert read_returns(tmp_path, ["a"]) == {}


def test_a_report_tells_the_probability_of_overfitting_from_four_trials_on(tmp_path, monkeypatch):
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "trials.jsonl"))
    given = FAST | {"total_timesteps": 512, "evaluations": 1, "log_rows": 1}
    folder = tmp_path / "run-0"
    result = tradax.train(**given, env="discrete_trading", out=folder)
    figures = result.summary["verdict"]["figures"]
    assert figures["overfitting_trials"] == 1.0
    assert figures["overfitting_probability"] is None
    assert "1 of the 1 known trials have kept" in (folder / "report.html").read_text()
    (trial,) = ledger.of_folder(folder)
    (own,) = read_returns(folder, [trial.id]).values()
    # They are those of the validation span, which ends where the test begins.
    data = result.summary["data"]
    assert str(own.timestamps[-1])[:10] == data["validation"][1][:10] < data["test"][0][:10]
    # The score by which it was chosen is the sum of their logarithms.
    score = max(row.get("validation_score", -np.inf) for row in result.metrics["NOISE"])
    assert np.log1p(own.returns).sum() == pytest.approx(score, abs=1e-4)
    for seed in (1, 2, 3):
        other = tmp_path / f"run-{seed}"
        other.mkdir()
        tried = dataclasses.replace(trial, seed=seed, tested=False)
        ledger.add_trials(other, [tried])
        write_returns(other, {tried.id: noise(seed, own.timestamps)})
    figures = held_out.retest(folder, skip_posterior=True)["verdict"]["figures"]
    returns = together(ledger.record(trial, folder).entries)
    assert returns.shape == (len(own.returns), 4)
    assert figures["overfitting_probability"] == overfitting(returns).probability
    assert figures["overfitting_bars"] == len(returns)
    assert "4 of the 4 known trials have kept" in (folder / "report.html").read_text()
    shutil.rmtree(tmp_path / "run-3")
    record = ledger.record(trial, folder)
    assert together(record.entries).shape[1] == record.trials - 1 == 3


def test_a_sweep_keeps_the_returns_of_all_members(tmp_path, monkeypatch):
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "trials.jsonl"))
    result = tradax.sweep(
        "ppo",
        "discrete_trading",
        FAST["data"],
        seeds=3,
        grid={"ppo.gamma": [0.9, 0.99]},
        total_timesteps=512,
        evaluations=1,
        log_rows=1,
        wave_members=4,
        skip_posterior=True,
        settings=FAST["settings"],
        out=tmp_path / "sweep",
    )
    trials = ledger.of_folder(result.run_dir)
    kept = read_returns(result.run_dir, [trial.id for trial in trials])
    assert len(kept) == 6
    (tested,) = result.tested.values()
    figures = tested["verdict"]["figures"]
    assert (figures["overfitting_trials"], figures["test_span_used_times"]) == (6.0, 1.0)
    assert 0.0 <= figures["overfitting_probability"] <= 1.0
    (best,) = (result.run_dir / "best").iterdir()
    (trial,) = ledger.of_folder(best)
    own = read_returns(best, [trial.id])[trial.id]
    np.testing.assert_allclose(own.returns, kept[trial.id].returns, atol=1e-6)
