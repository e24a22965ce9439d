"""Work shared between devices and processes; each in programs of their own."""

import json
import signal
import time

import numpy as np
import pytest

import devices
from jobs import job, on_devices
from tradax import parallel
from tradax.cli import main
from tradax.errors import ConfigError
from tradax.model_file import read_policy_file
from tradax.policies import flatten_policy

TRAIN = (
    "train --env CartPole-v1 --algorithm genetic --genetic.population-size 6 --genetic.episodes 1"
)
SMALL = f"{TRAIN} --genetic.hidden-sizes 8 --genetic.episode-limit 50 --evaluations 1"


@pytest.fixture(scope="module")
def on_four():
    """What went wrong on several devices: a program's start costs more than most of its checks."""
    return json.loads(on_devices("devices.py", 4).splitlines()[-1])


@pytest.mark.parametrize("check", devices.CHECKS)
def test_the_number_of_devices_changes_no_result(on_four, check):
    assert not on_four[check], on_four[check]


def test_two_processes_find_what_one_finds(tmp_path):
    arguments = f"{SMALL} --timesteps 3000".split()
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    processes = job([*arguments, "--out", "two"], tmp_path)
    said = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "mean return" in said[0][0]
    assert "mean return" not in said[1][0]  # the first one speaks, and writes
    files = [read_policy_file(tmp_path / run / "best-individual.zip") for run in ("one", "two")]
    assert files[0].metadata == files[1].metadata  # the fitness
    flat = [flatten_policy(file.policy) for file in files]
    np.testing.assert_allclose(*flat, rtol=1e-4, atol=1e-5)
    assert (tmp_path / "two" / "summary.json").exists()


def test_where_a_process_is_lost_the_other_ends_with_a_clear_error(tmp_path):
    first, second = job(f"{SMALL} --timesteps 500000000 --out run".split(), tmp_path)
    try:
        while "steps" not in first.stderr.readline():
            assert first.poll() is None
        second.send_signal(signal.SIGKILL)
        began = time.monotonic()
        _, said = first.communicate(timeout=60)
        assert time.monotonic() - began < 60
        assert first.returncode == 2, said
        assert "error: another process of the job has gone" in said
        assert (tmp_path / "run" / "best-individual.zip").exists()
    finally:
        first.kill()
        second.kill()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--distributed"], "needs --coordinator, --process-id, --processes"),
        (["--process-id", "1"], "belong to --distributed"),
        (
            ["--distributed", "--coordinator", "a:1", "--process-id", "2", "--processes", "2"],
            "process-id is 2; it must be 0 to 1",
        ),
        (
            ["--distributed", "--coordinator", "here", "--process-id", "0", "--processes", "2"],
            "it must be HOST:PORT",
        ),
        (["--devices", "0"], "0 devices were asked for"),
        (["--devices", "3"], "3 devices were asked for, and there are 1"),
    ],
)
def test_bad_jobs_are_refused(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tradax.device.use", lambda *a, **k: None)  # one device, whatever is asked
    out = tmp_path / "run"
    assert main([*SMALL.split(), *arguments, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_algorithms_that_do_not_split_their_work_say_so(tmp_path, capsys):
    arguments = ["train", "--env", "Pendulum-v1", "--algorithm", "sac", "--devices", "1", "--out"]
    assert main([*arguments, str(tmp_path / "run")]) == 2
    assert "sac does not split its work over devices" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="asked for, and there are"):
        parallel.device_mesh(1_000)
