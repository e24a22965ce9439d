"""What scripts read of a model beside its calls: the arguments it was made with."""

from typing import Any

from tradax.errors import ConfigError
from tradax.sb3._arguments import Arguments

_NOT_KEPT = "a model here keeps its replay on the device, and it is not written"
_UNSUPPORTED = {
    "set_logger": "a model here makes its logger in learn; give tensorboard_log and verbose",
    "save_replay_buffer": _NOT_KEPT,
    "load_replay_buffer": _NOT_KEPT,
    "replay_buffer": _NOT_KEPT,
    "rollout_buffer": "a model here keeps no rollout between updates",
}
_OWN = frozenset({"verbose", "seed", "tensorboard_log", "device"})


class Attributes:
    """`model.learning_rate`, `model.n_steps`, ...: the constructor's arguments, to read."""

    arguments: Arguments

    def __getattr__(self, name: str) -> Any:
        if name in _UNSUPPORTED:
            raise ConfigError(f"{name} is not supported: {_UNSUPPORTED[name]}")
        arguments = vars(self).get("arguments", {})
        if name not in arguments:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return arguments[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _OWN and name in vars(self).get("arguments", {}):
            raise ConfigError(
                f"{name} is settled when a model is made, and setting it would change nothing; "
                f"save the model and open it by {type(self).__name__}.load(path, env, "
                f"{name}={value!r})"
            )
        super().__setattr__(name, value)
