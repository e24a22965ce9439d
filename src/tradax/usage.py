"""How a run uses its machine: memory, and how much of the time its device computes."""

import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax

from tradax.hooks import MetricsFile, TensorBoard
from tradax.rows import Row


class Usage(MetricsFile):
    """Appends a row to `performance.jsonl` with every row of metrics, and shows it in TensorBoard.

    Beside the metrics, for these figures differ between equal runs.

    Args:
        board: where it is shown, beside the first member's metrics.
    """

    def __init__(self, path: Path, board: TensorBoard, *, keep_until_update: int = 0):
        super().__init__([path], keep_until_update=keep_until_update)
        self._board = board
        self._last, self._computed, self._share = time.monotonic(), 0.0, 0.0

    def on_row(self, row: Row, member: int) -> None:
        if member:
            return
        now, computed = time.monotonic(), row["seconds"]
        if computed > self._computed:  # else it is of the same chunk of updates
            share = (computed - self._computed) / max(now - self._last, 1e-9)
            self._last, self._computed, self._share = now, computed, min(share, 1.0)
        figures = {
            "steps_per_second": row["steps_per_second"],
            "time_in_chunks": self._share,
            **memory(),
            "gpu_utilisation": gpu_utilisation(),
        }
        super().on_row({"update": row["update"], "timesteps": row["timesteps"]} | figures, 0)
        self._board.show("performance", figures, row["timesteps"])


def memory() -> dict[str, int | None]:
    """Bytes; None where nothing tells. Of several devices, the one that holds the most."""
    found = [stats for d in jax.local_devices() if (stats := d.memory_stats())]

    def most(name: str) -> int | None:
        return max((stats[name] for stats in found if name in stats), default=None)

    return {
        "device_memory_bytes": most("bytes_in_use"),
        "device_memory_peak_bytes": most("peak_bytes_in_use"),
        "device_memory_limit_bytes": most("bytes_limit"),
        "host_memory_peak_bytes": _host_peak(),
    }


def _host_peak() -> int | None:
    """The most that this process has held in the host's memory."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def gpu_utilisation() -> float | None:
    """Share of the last moment in which the first GPU ran a kernel, by NVIDIA's own account.

    None without an NVIDIA GPU, or without the package nvidia-ml-py.
    """
    device = jax.local_devices()[0]
    if device.platform != "gpu":
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    place = device.local_hardware_id or 0
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    name = visible[place] if place < len(visible) else str(place)
    try:
        nvml.nvmlInit()
        if name.isdecimal():
            handle = nvml.nvmlDeviceGetHandleByIndex(int(name))
        else:
            handle = nvml.nvmlDeviceGetHandleByUUID(name)
        return nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except nvml.NVMLError:
        return None
