"""Memory and speed are logged beside the metrics."""

import json
import sys
from types import SimpleNamespace

import jax
import pytest

from tradax import usage

ROW = {"update": 1, "timesteps": 64, "seconds": 0.5, "steps_per_second": 128.0, "return": 1.0}
FIELDS = ["steps_per_second", "time_in_chunks", "device_memory_bytes", "device_memory_peak_bytes",
          "device_memory_limit_bytes", "host_memory_peak_bytes", "gpu_utilisation"]  # fmt: skip


class Board:
    def __init__(self):
        self.shown = []

    def show(self, *given):
        self.shown.append(given)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def a_gpu(stats, number=0):
    return SimpleNamespace(platform="gpu", local_hardware_id=number, memory_stats=lambda: stats)


def test_every_row_of_the_first_member_has_one_of_usage(tmp_path, monkeypatch):
    clock = iter([100.0, 102.0, 104.0, 104.1])
    monkeypatch.setattr(usage.time, "monotonic", lambda: next(clock))
    path, board = tmp_path / "performance.jsonl", Board()
    hook = usage.Usage(path, board)
    hook.on_row(ROW, 0)
    hook.on_row(ROW, 1)
    hook.on_row(ROW | {"update": 2, "timesteps": 128, "seconds": 2.0}, 0)
    hook.on_row(ROW | {"update": 3, "timesteps": 192, "seconds": 2.0}, 0)  # of the same chunk
    first, second, third = rows(path)
    assert third["time_in_chunks"] == second["time_in_chunks"]
    assert list(first) == ["update", "timesteps", *FIELDS]
    assert (first["time_in_chunks"], second["time_in_chunks"]) == (0.25, 0.75)
    assert first["device_memory_bytes"] is None  # a CPU
    assert 10**7 < first["host_memory_peak_bytes"] < 10**12
    assert board.shown[1] == ("performance", {name: second[name] for name in FIELDS}, 128)


def test_a_resumed_run_cuts_off_what_it_does_again(tmp_path):
    path = tmp_path / "performance.jsonl"
    path.write_text("".join(json.dumps({"update": n}) + "\n" for n in (1, 2, 3)))
    usage.Usage(path, Board(), keep_until_update=2)
    assert [row["update"] for row in rows(path)] == [1, 2]


def test_memory_is_that_of_the_device_that_holds_the_most(monkeypatch):
    held = [
        {"bytes_in_use": 3, "peak_bytes_in_use": 9, "bytes_limit": 10},
        {"bytes_in_use": 4, "peak_bytes_in_use": 5, "bytes_limit": 10},
    ]
    monkeypatch.setattr(jax, "local_devices", lambda: [a_gpu(stats) for stats in held])
    assert list(usage.memory().values())[:3] == [4, 9, 10]


@pytest.mark.parametrize(
    ("visible", "asked"), [("", "index 1"), ("5,3", "index 3"), ("GPU-a,GPU-b", "uuid GPU-b")]
)
def test_utilisation_is_asked_of_the_gpu_that_jax_uses(monkeypatch, visible, asked):
    nvml = SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda i: f"index {i}",
        nvmlDeviceGetHandleByUUID=lambda name: f"uuid {name}",
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu={asked: 37}[handle]),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert usage.gpu_utilisation() is None  # on a CPU
    monkeypatch.setattr(jax, "local_devices", lambda: [a_gpu({}, 1)])
    assert usage.gpu_utilisation() == 0.37
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert usage.gpu_utilisation() is None
