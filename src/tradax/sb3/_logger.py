"""What a model tells while it learns: a table on the terminal, TensorBoard, and to callbacks."""

import numbers
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

# Names that Stable-Baselines3 gives to what we measure too.
_NAMES = {"policy_loss": "policy_gradient_loss", "kl": "approx_kl", "temperature": "ent_coef"}


class Logger:
    """Values recorded by name, written together by `dump`; as callbacks know it."""

    def __init__(self, verbose: int, tensorboard_log: str | None, name: str, *, go_on: bool):
        self.name_to_value: dict[str, Any] = defaultdict(float)
        self.name_to_count: dict[str, int] = defaultdict(int)
        self.verbose = verbose
        self.dir: str | None = None
        self._writer = None
        if tensorboard_log is not None:
            from tensorboardX import SummaryWriter

            root = Path(tensorboard_log)
            taken = [
                int(number)
                for path in root.glob(f"{name}_*")
                if (number := path.name.removeprefix(f"{name}_")).isdigit()
            ]
            latest = max(taken, default=0)
            self.dir = str(root / f"{name}_{max(latest, 1) if go_on else latest + 1}")
            self._writer = SummaryWriter(self.dir)

    def record(self, key: str, value: Any, exclude: Any = None) -> None:
        """Set a value of the next `dump`."""
        self.name_to_value[key] = value

    def record_mean(self, key: str, value: float | None, exclude: Any = None) -> None:
        """The mean of what is recorded until the next `dump`."""
        if value is None:
            return
        count = self.name_to_count[key]
        self.name_to_value[key] = (self.name_to_value[key] * count + value) / (count + 1)
        self.name_to_count[key] = count + 1

    def record_update(
        self, metrics: dict[str, Any], episode: tuple[float, float] | None, progress: dict[str, int]
    ) -> None:
        """Args: episode: mean return and length of those that ended, if any did."""
        for name, value in metrics.items():
            self.record(f"train/{_NAMES.get(name, name)}", value)
        if episode is not None:
            self.record("rollout/ep_rew_mean", episode[0])
            self.record("rollout/ep_len_mean", episode[1])
        for name, value in progress.items():
            self.record(f"time/{name}", value)

    def dump(self, step: int = 0) -> None:
        """Write what was recorded, and forget it."""
        if self.verbose and self.name_to_value:
            print(table(self.name_to_value), flush=True)
        if self._writer is not None:
            for key, value in self.name_to_value.items():
                if isinstance(value, numbers.Real | np.bool_):
                    self._writer.add_scalar(key, value, step)
            self._writer.flush()
        self.name_to_value.clear()
        self.name_to_count.clear()

    def log(self, *args: Any, level: int = 20) -> None:
        if self.verbose:
            print(*args)

    info = debug = warn = error = log

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def table(values: dict[str, Any]) -> str:
    """Names by their group, and values, in a frame."""
    rows, group = [], ""
    for key in sorted(values):
        head, _, name = key.rpartition("/")
        if head != group:
            rows.append((f"{head}/", ""))
        group, value = head, values[key]
        rows.append((f"   {name}", f"{value:.3g}" if isinstance(value, float) else str(value)))
    left, right = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"| {name:<{left}} | {value:<{right}} |" for name, value in rows]
    rule = "-" * len(lines[0])
    return "\n".join([rule, *lines, rule])
