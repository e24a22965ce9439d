"""Algorithms and environments, found by the names of their files.

A module of `tradax.algorithms` or `tradax.envs` with a top-level `Config` is one; there is no
registry. Listing them reads source text and imports nothing.
"""

import ast
import difflib
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

from tradax.config import Field, describe
from tradax.errors import ConfigError

_PACKAGE = Path(__file__).parent


def algorithms() -> dict[str, str]:
    """Name -> one-line description."""
    return _listed("algorithms")


def environments() -> dict[str, str]:
    """Name -> one-line description, of the markets that come with tradax."""
    return _listed("envs")


@cache
def options(kind: str, name: str) -> list[Field]:
    """The options of an algorithm (`kind="algorithms"`), environment (`"envs"`) or of `"data"`."""
    described = describe(_PACKAGE / kind / f"{name}.py")
    assert described is not None
    return described[1]


@cache
def functions(kind: str, name: str) -> frozenset[str]:
    """Top-level functions that a module defines; none where there is no such module."""
    path = _PACKAGE / kind / f"{name}.py"
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@cache
def flag(kind: str, name: str, constant: str) -> bool:
    """Whether a module has a top-level constant that is True; imports nothing."""
    path = _PACKAGE / kind / f"{name}.py"
    if not path.is_file():
        return False
    wanted = f"{constant} = True"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.Assign) and ast.unparse(node) == wanted for node in tree.body)


def module(kind: str, name: str) -> ModuleType:
    """Import an algorithm or environment by name.

    Raises:
        ConfigError: there is none of that name; the message lists near ones.
    """
    names = _listed(kind)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3) or list(names)
        what = {"algorithms": "algorithm", "envs": "environment"}[kind]
        raise ConfigError(f"unknown {what} {name}; did you mean {', '.join(close)}?")
    return importlib.import_module(f"tradax.{kind}.{name}")


@cache
def _listed(kind: str) -> dict[str, str]:
    found = {}
    for path in sorted((_PACKAGE / kind).glob("[a-z]*.py")):
        described = describe(path)
        if described is not None:
            found[path.stem] = described[0]
    return found
