"""Packages that another one imports at its top and seldom uses, loaded when they are used.

gymnax imports matplotlib, seaborn and with them pandas and scipy.stats, to draw five of its games
(2.4 of the 4.4 CPU seconds that `tradax.experiment` took to import); tensorboardX imports torch
where it is installed, for its annotations (1.9 of 1.9).
"""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


@contextlib.contextmanager
def deferred(*names: str) -> Iterator[None]:
    """What is imported inside gets, for these modules, stand-ins that load at the first use.

    A stand-in gives the very objects of its module. Outside, `import` is as ever: whoever imports
    one of these later gets the module itself. Packages that are loaded, or not installed, stay so.

    Args:
        names: modules, packages before what is in them.
    """
    stand_ins: dict[str, _StandIn] = {}
    for name in names:
        package, _, part = name.rpartition(".")
        if package in stand_ins:
            stand_ins[name] = _StandIn(name, stand_ins)
            setattr(stand_ins[package], part, stand_ins[name])
        elif not package and name not in sys.modules and importlib.util.find_spec(name):
            stand_ins[name] = _StandIn(name, stand_ins)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        _withdraw(stand_ins)


@contextlib.contextmanager
def left_out(name: str) -> Iterator[None]:
    """What is imported inside finds this package not installed, unless it is loaded already.

    For packages that can do without, and ask for it again where they need it. Keep it short: other
    threads do not find it either.
    """
    if name in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules
    modules[name] = None  # Python's own way to say so
    try:
        yield
    finally:
        del sys.modules[name]


class _StandIn(ModuleType):
    """Has nothing of its own but the stand-ins of what is in it."""

    def __init__(self, name: str, family: dict[str, "_StandIn"]):
        super().__init__(name)
        self._family = family
        self.__path__ = _Path(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load(), name)

    def _load(self) -> ModuleType:
        _withdraw(self._family)
        return importlib.import_module(self.__name__)


class _Path(list[str]):
    """Where modules of a package lie. It is read when one is imported that has no stand-in."""

    def __init__(self, package: _StandIn):
        super().__init__()
        self._package = package

    def __iter__(self) -> Iterator[str]:
        return iter(self._package._load().__path__)


def _withdraw(family: dict[str, _StandIn]) -> None:
    for name, stand_in in family.items():
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
