"""One frozen dataclass serves the command line, the configuration file and `vmap`.

    @config
    class Config:
        learning_rate: float = setting(default=3e-4, above=0)
        '''Adam step size.'''

Fields typed `float` (or `float | None`) are pytree leaves: a sweep over them is a `vmap`, and
another value does not recompile. Everything else is static, and so are floats with
`static=True` (those that set a shape or choose a program). Values are checked when the object
is built, not when JAX takes it apart and puts it together.

This module does not import JAX; `describe` reads a `Config` from source text, so that the help
of the command line needs no import at all.
"""

import ast
import dataclasses
import difflib
import functools
import math
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import (
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    overload,
)

from tradax.errors import ConfigError

_BOUNDS = {
    "above": (lambda value, bound: value > bound, "above"),
    "least": (lambda value, bound: value >= bound, "at least"),
    "below": (lambda value, bound: value < bound, "below"),
    "most": (lambda value, bound: value <= bound, "at most"),
}


def setting(
    default: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    static: bool = False,
) -> Any:
    """A field with bounds: `above`/`below` are exclusive, `least`/`most` inclusive.

    For tuples the bounds hold for every element. `static=True` keeps a float out of the pytree.
    """
    bounds = {"above": above, "least": least, "below": below, "most": most}
    bounds = {name: bound for name, bound in bounds.items() if bound is not None}
    return dataclasses.field(default=default, metadata={"bounds": bounds, "static": static})


_T = TypeVar("_T")


@overload
@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
def config(cls: type[_T]) -> type[_T]: ...
@overload
@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
def config(*, traced: bool) -> Callable[[type[_T]], type[_T]]: ...
def config(cls: Any = None, *, traced: bool = True) -> Any:
    """Make `cls` a frozen, keyword-only, checked dataclass; a pytree if `traced`.

    A method `validate(self)`, if there is one, checks what concerns several fields; it runs only
    where all of them are plain Python values.
    """
    if cls is None:
        return functools.partial(_configured, traced=traced)
    return _configured(cls, traced=traced)


def _configured(cls: Any, *, traced: bool) -> Any:

    def __post_init__(self):
        _check(self)

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    if traced:
        register_pytree(cls)
    return cls


def from_dict(cls: type, values: dict[str, Any]) -> Any:
    """Build `cls` from plain values (a YAML file, the command line). Unknown names are errors."""
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    for name in values:
        if name not in names:
            raise ConfigError(f"{section(cls)} has {_unknown(name, names)}")
    return cls(
        **{
            # YAML reads 1e-3 as a string and has no tuples.
            name: tuple(value)
            if get_origin(hints[name]) is tuple and isinstance(value, list)
            else float(value)
            if hints[name] is float and isinstance(value, str) and _is_number(value)
            else value
            for name, value in values.items()
        }
    )


def checked(cls: type, values: dict[str, Any], source: str) -> Any:
    """Build the plain dataclass `cls` from a file's values, none of which it checks itself.

    Args:
        source: what the file is called in errors.

    Raises:
        ConfigError: a name is unknown or missing, or a value is of another type; it is named.
    """
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(f"{source}: {_unknown(name, list(hints))}")
        if not _matches(value, hints[name]):
            raise ConfigError(
                f"{source}: {name} is {value!r:.100}; it must be {_words(hints[name])}"
            )
    for field in dataclasses.fields(cls):
        no_default = field.default is field.default_factory is dataclasses.MISSING
        if no_default and field.name not in values:
            raise ConfigError(f"{source}: {field.name} is missing")
    return cls(**values)


def _unknown(name: Any, names: list[str]) -> str:
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(names)}"
    return f"no option {name!s:.100}; {hint}"


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values (numbers, strings, lists) of a config; the inverse of `from_dict`."""
    plain = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, tuple):
            value = list(value)
        elif hasattr(value, "item"):
            value = value.item()
        plain[field.name] = value
    return plain


def section(cls: type) -> str:
    """The name under which a config's options stand: `ppo` for tradax.algorithms.ppo."""
    return cls.__module__.rsplit(".", 1)[-1].lstrip("_")


def _check(self: Any) -> None:
    hints = typing.get_type_hints(type(self))
    all_plain = True
    for field in dataclasses.fields(self):
        value = getattr(self, field.name)
        if _is_jax_array(value):
            all_plain = False  # it was checked when it was a number
            continue
        value = plain(value)
        if get_origin(hints[field.name]) is tuple and isinstance(value, list | tuple):
            value = tuple(plain(element) for element in value)
        object.__setattr__(self, field.name, value)
        name = f"{section(type(self))}.{field.name}"
        if not _matches(value, hints[field.name]):
            raise ConfigError(f"{name} is {value!r}; it must be {_words(hints[field.name])}")
        for bound, limit in field.metadata.get("bounds", {}).items():
            holds, word = _BOUNDS[bound]
            for element in value if isinstance(value, tuple) else (value,):
                if element is not None and not holds(element, limit):
                    raise ConfigError(f"{name} is {value!r}; it must be {word} {limit}")
    if all_plain and hasattr(self, "validate"):
        self.validate()


def _is_jax_array(value: Any) -> bool:
    """Also a tracer."""
    return "jax" in sys.modules and isinstance(value, sys.modules["jax"].Array)


def plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's numbers and lists; anything else as it is."""
    return value.tolist() if type(value).__module__ == "numpy" else value


def _matches(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType) or get_origin(kind) is typing.Union:
        return any(_matches(value, option) for option in get_args(kind))
    if kind is type(None):
        return value is None
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_matches(v, get_args(kind)[0]) for v in value)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_matches(v, get_args(kind)[0]) for v in value)
    if get_origin(kind) is dict:
        key, element = get_args(kind)
        return isinstance(value, dict) and all(
            _matches(k, key) and _matches(v, element) for k, v in value.items()
        )
    if kind is Any:
        return True
    if kind is float:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _words(kind: Any) -> str:
    if isinstance(kind, types.UnionType) or get_origin(kind) is typing.Union:
        return " or ".join(_words(option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is dict:
        return f"names, each with {_words(get_args(kind)[1])}"
    if get_origin(kind) in (tuple, list):
        return f"a list, each element {_words(get_args(kind)[0])}"
    names = {float: "a finite number", int: "a whole number", bool: "true or false", str: "text"}
    return names.get(kind, "anything" if kind is Any else "none")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def register_pytree(cls: type) -> None:
    """Make the `float` fields of a frozen dataclass leaves of a pytree, and the others static."""
    import jax  # only modules that define something to train have traced configs

    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    leaves = [f.name for f in fields if _is_leaf(hints[f.name], f.metadata)]
    static = [f.name for f in fields if f.name not in leaves]

    def flatten_with_keys(self):
        keyed = tuple((jax.tree_util.GetAttrKey(n), getattr(self, n)) for n in leaves)
        return keyed, tuple(getattr(self, n) for n in static)

    def flatten(self):
        return tuple(getattr(self, n) for n in leaves), tuple(getattr(self, n) for n in static)

    def unflatten(aux, children):
        self = object.__new__(cls)  # past __init__: leaves may be tracers, or anything
        for name, value in (*zip(leaves, children, strict=True), *zip(static, aux, strict=True)):
            object.__setattr__(self, name, value)
        return self

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


def _is_leaf(kind: Any, metadata: typing.Mapping) -> bool:
    return (kind is float or set(get_args(kind)) == {float, type(None)}) and not metadata.get(
        "static", False
    )


class Field(NamedTuple):
    """One option as the source text declares it."""

    name: str
    kind: Any
    default: Any
    doc: str


def describe(path: Path, name: str = "Config") -> tuple[str, list[Field]] | None:
    """Read the dataclass `name` from a Python file without importing it.

    A base class written as `sibling.Config` is read from the file beside it.

    Returns: its docstring and its fields, or None where the file has no such class.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            break
    else:
        return None
    fields = []
    for base in node.bases:
        if isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name):
            inherited = describe(path.with_name(f"{base.value.id}.py"), base.attr)
            assert inherited is not None, f"{path}: no {ast.unparse(base)} beside it"
            fields += inherited[1]
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        value = statement.value
        if isinstance(value, ast.Call):  # setting(default, ...)
            keywords = {keyword.arg: keyword.value for keyword in value.keywords}
            value = keywords.get("default") or value.args[0]
        doc = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            doc = " ".join(str(following.value.value).split())
        assert value is not None, f"{path}: {statement.target.id} needs a literal default"
        kind = _kind(statement.annotation)
        fields.append(Field(statement.target.id, kind, ast.literal_eval(value), doc))
    # A field that is declared again keeps its place, and takes the later default and text.
    return " ".join((ast.get_docstring(node) or "").split()), list(
        {field.name: field for field in fields}.values()
    )


def _kind(node: ast.expr) -> Any:
    """The type that an annotation means, from the few that configs use."""
    if isinstance(node, ast.Constant) and node.value is None:
        return type(None)
    if isinstance(node, ast.Name):
        return {"int": int, "float": float, "bool": bool, "str": str}[node.id]
    if isinstance(node, ast.BinOp):
        return _kind(node.left) | _kind(node.right)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        if node.value.id == "Literal":
            choices = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return Literal[tuple(ast.literal_eval(choice) for choice in choices)]
        if node.value.id == "tuple" and isinstance(node.slice, ast.Tuple):
            return tuple[_kind(node.slice.elts[0]), ...]
    raise TypeError(f"unsupported annotation: {ast.unparse(node)}")
