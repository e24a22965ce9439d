"""Programs that import Stable-Baselines3 get these classes instead, for as long as one likes."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from tradax.errors import ConfigError
from tradax.sb3 import _algorithms

_HOMES = {
    "stable_baselines3": ("PPO", "A2C", "DDPG", "TD3", "SAC"),
    "sb3_contrib": ("TRPO",),
}
_replaced: list[tuple[ModuleType, str, Any]] = []


class Installed:
    """What `install` returns: `with install(): ...` undoes it at the end."""

    def __enter__(self) -> "Installed":
        return self

    def __exit__(self, *_: object) -> None:
        uninstall()


def install() -> Installed:
    """Make `stable_baselines3.PPO` and its siblings those of tradax, until `uninstall`.

    Names that a module took over before (`from stable_baselines3 import PPO`) are replaced in every
    module that is loaded. Call it again after loading more.

    Raises:
        ConfigError: Stable-Baselines3 is not installed.
    """
    if importlib.util.find_spec("stable_baselines3") is None:
        raise ConfigError("stable_baselines3 is not installed; import from tradax.sb3 instead")
    for home, names in _HOMES.items():
        if importlib.util.find_spec(home) is None:
            continue
        package = importlib.import_module(home)
        for name in names:
            _replace(getattr(importlib.import_module(f"{home}.{name.lower()}"), name), name)
            _replace(getattr(package, name), name)
    return Installed()


def uninstall() -> None:
    """Put back what `install` replaced."""
    while _replaced:
        module, name, original = _replaced.pop()
        setattr(module, name, original)


def _replace(original: Any, name: str) -> None:
    ours = getattr(_algorithms, name)
    if original is ours:
        return
    for module in list(sys.modules.values()):
        if module is None or module.__name__.startswith("tradax"):
            continue
        for key, value in list(getattr(module, "__dict__", {}).items()):
            if value is original:
                _replaced.append((module, key, original))
                setattr(module, key, ours)
