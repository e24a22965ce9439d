import re
import stat
from pathlib import Path

import pytest

from tradax import cli, doctor


def test_the_report_names_no_user_no_host_and_no_home(monkeypatch):
    monkeypatch.setenv("USER", "roberta")
    monkeypatch.setenv("HOME", "/home/roberta")
    monkeypatch.setattr(doctor.platform, "node", lambda: "trading-desk-7")
    text = "/home/roberta/.cache, /data/roberta/x, XLA_FLAGS=--dump=/mnt/trading-desk-7/y"
    assert doctor.without_names(text) == "~/.cache, /data/USER/x, XLA_FLAGS=--dump=/mnt/HOST/y"


def test_it_tells_versions_devices_memory_and_cache(capsys, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "secret.example:1")
    assert cli.main(["doctor", "--skip-test"]) == 0
    said = capsys.readouterr().out
    for pattern in (
        r"tradax: +\d", r"python: +3\.", r"jax \d", r"device: +cpu 0", r"memory: +[\d.]+ GiB free",
        r"cache: +\S+, mode 0700", r"JAX_PLATFORMS=cpu",
    ):  # fmt: skip
        assert re.search(pattern, said), pattern
    assert "secret" not in said
    assert str(Path.home()) not in said


def test_a_failed_self_test_is_told_and_sets_the_exit_code(capsys, monkeypatch):
    def broken():
        raise OSError(f"{Path.home()}/x is gone")

    monkeypatch.setattr(doctor, "SELF_TESTS", {"fine": lambda: "good", "broken": broken})
    assert cli.main(["doctor"]) == 2
    said = capsys.readouterr().out
    assert re.search(r"fine: +good", said)
    assert re.search(r"broken: +FAILED: OSError: ~/x is gone", said)
    assert "1 of 2 failed" in said


def test_a_cache_that_others_can_write_to_is_named(tmp_path):
    tmp_path.chmod(stat.S_IRWXU | stat.S_IRWXG)
    assert "mode 0770, which should be 0700" in next(doctor._cache(tmp_path))
    assert "none" in next(doctor._cache(None))


@pytest.mark.parametrize("name", doctor.SELF_TESTS)
def test_the_self_test_passes_here(name):
    assert doctor.SELF_TESTS[name]()
