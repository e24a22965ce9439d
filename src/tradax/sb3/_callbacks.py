"""Callbacks as Stable-Baselines3 has them, known by their methods; it need not be installed."""

from collections.abc import Callable
from typing import Any, Protocol

from tradax.errors import ConfigError


class Callback(Protocol):
    """What a model calls while it learns."""

    def init_callback(self, model: Any) -> None: ...
    def on_training_start(self, locals_: dict, globals_: dict) -> None: ...
    def on_rollout_start(self) -> None: ...
    def update_locals(self, locals_: dict) -> None: ...
    def on_step(self) -> bool: ...
    def on_rollout_end(self) -> None: ...
    def on_training_end(self) -> None: ...


def as_callback(given: Any) -> Callback | None:
    """A callback from one, several, or a function of (locals, globals).

    Raises:
        ConfigError: it is none of these.
    """
    if given is None:
        return None
    if isinstance(given, list):
        return Several([one for one in map(as_callback, given) if one is not None])
    if hasattr(given, "on_step"):
        return given
    if callable(given):
        return Function(given)
    raise ConfigError(f"callback {given!r} is neither a callback, a list of them, nor a function")


class Function:
    """A function of (locals, globals), called once a step; None counts as True."""

    def __init__(self, function: Callable[[dict, dict], Any]):
        self._function = function
        self.locals: dict[str, Any] = {}
        self.globals: dict[str, Any] = {}

    def init_callback(self, model: Any) -> None:
        self.model = model

    def on_training_start(self, locals_: dict, globals_: dict) -> None:
        self.locals, self.globals = locals_, globals_

    def on_rollout_start(self) -> None:
        pass

    def update_locals(self, locals_: dict) -> None:
        self.locals.update(locals_)

    def on_step(self) -> bool:
        return self._function(self.locals, self.globals) is not False

    def on_rollout_end(self) -> None:
        pass

    def on_training_end(self) -> None:
        pass


class Several:
    """Callbacks in a row; all are called, also where one wants to stop."""

    def __init__(self, callbacks: list[Callback]):
        self.callbacks = callbacks

    def init_callback(self, model: Any) -> None:
        for callback in self.callbacks:
            callback.init_callback(model)

    def on_training_start(self, locals_: dict, globals_: dict) -> None:
        for callback in self.callbacks:
            callback.on_training_start(locals_, globals_)

    def on_rollout_start(self) -> None:
        for callback in self.callbacks:
            callback.on_rollout_start()

    def update_locals(self, locals_: dict) -> None:
        for callback in self.callbacks:
            callback.update_locals(locals_)

    def on_step(self) -> bool:
        wanted = [callback.on_step() for callback in self.callbacks]
        return all(wanted)

    def on_rollout_end(self) -> None:
        for callback in self.callbacks:
            callback.on_rollout_end()

    def on_training_end(self) -> None:
        for callback in self.callbacks:
            callback.on_training_end()
