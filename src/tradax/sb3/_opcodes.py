"""Pickle's byte code, written and read as data. Nothing here calls what a file names.

Other programs keep their files as such code: a small stack machine that may call any function. The
writer emits the few instructions that plain values need. The reader knows the same few, takes
functions from a list of its caller's, and refuses all else.
"""

import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tradax.errors import ModelFileError


class Global(NamedTuple):
    """A class or function by name."""

    module: str
    name: str


class Call(NamedTuple):
    """What calling a class or function gives."""

    function: Global
    arguments: tuple


class Persistent(NamedTuple):
    """An object that the reader keeps elsewhere, by what identifies it."""

    identity: tuple


def write(value: Any) -> bytes:
    """A value as protocol 2: None, bool, int, float, str, tuple, list, dict, and the above."""
    return b"\x80\x02" + _encode(value) + b"."


def read(
    content: bytes,
    source: str,
    *,
    functions: Mapping[Global, Callable[..., Any]],
    names: frozenset[Global] = frozenset(),
    persistent: Callable[[tuple], Any] | None = None,
) -> Any:
    """The value that byte code stands for, out of the instructions that plain values need.

    Args:
        source: what the file is called in errors.
        functions: what may be called, and our function to call in its place.
        names: what may be named beside, as a `Global`.
        persistent: the object for an identity.

    Raises:
        ModelFileError: any other instruction, function or name, or damaged code.
    """
    machine = _Machine(source, functions, names, persistent)
    try:
        for instruction, argument, _ in pickletools.genops(content):
            machine.run(instruction.name, argument)
    except ModelFileError:
        raise
    except _DAMAGE as error:
        raise ModelFileError(f"{source}: damaged ({type(error).__name__}: {error})") from None
    return machine.result


def _encode(value: Any) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, Global):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        return _encode(value.function) + _encode(tuple(value.arguments)) + b"R"
    if isinstance(value, Persistent):
        return _encode(value.identity) + b"Q"
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        length = value.bit_length() // 8 + 1
        return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode()
        return b"X" + struct.pack("<I", len(text)) + text
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_encode, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_encode, value)) + b"e"
    if isinstance(value, dict):
        ordered = isinstance(value, OrderedDict)
        start = _encode(Call(Global("collections", "OrderedDict"), ())) if ordered else b"}"
        return start + b"(" + b"".join(_encode(k) + _encode(v) for k, v in value.items()) + b"u"
    raise TypeError(f"{type(value).__name__} is no plain value")


_DAMAGE = (
    *(ValueError, IndexError, KeyError, TypeError, AttributeError),
    *(StopIteration, OverflowError, RecursionError, MemoryError),
)
_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
)
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack, the memo, and one method for each kind of instruction."""

    def __init__(self, source, functions, names, persistent):
        self.source, self.functions, self.names = source, functions, names
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None

    def run(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            pass
        elif name == "STOP":
            (self.result,) = stack
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _SHORT_TUPLES:
            count = _SHORT_TUPLES[name]
            stack[-count:] = [tuple(self._pop(count))]
        elif name == "TUPLE":
            stack.append(tuple(self._to_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = self._to_mark() if name == "APPENDS" else self._pop(1, remove=True)
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            self._set(self._to_mark() if name == "SETITEMS" else self._pop(2, remove=True))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "GLOBAL":
            stack.append(self._named(Global(*argument.split(" "))))
        elif name == "REDUCE":
            function, arguments = self._pop(2, remove=True)
            stack.append(self._call(function, arguments))
        elif name == "BINPERSID" and self.persistent is not None:
            stack.append(self.persistent(stack.pop()))
        elif name == "BUILD":
            # PyTorch notes versions of modules on a state dict's dictionary; nothing needs them.
            stack.pop()
            self._top(dict)
        else:
            raise ModelFileError(f"{self.source}: instruction {name} is not one of plain values")

    def _named(self, wanted: Global) -> Global:
        if wanted not in self.functions and wanted not in self.names:
            raise ModelFileError(
                f"{self.source}: names {wanted.module}.{wanted.name}, which a file of weights does "
                "not need; it was refused and nothing of it has run"
            )
        return wanted

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Global) or function not in self.functions:
            raise ModelFileError(f"{self.source}: calls what is no function")
        if not isinstance(arguments, tuple):
            raise ModelFileError(f"{self.source}: damaged (arguments are no tuple)")
        return self.functions[function](*arguments)

    def _pop(self, count: int, *, remove: bool = False) -> list[Any]:
        taken = self.stack[-count:]
        if len(taken) < count or any(item is _MARK for item in taken):
            raise IndexError("stack underflow")
        if remove:
            del self.stack[-count:]
        return taken

    def _to_mark(self) -> list[Any]:
        # From the top, so that many marks do not make reading slow.
        at = next(i for i in reversed(range(len(self.stack))) if self.stack[i] is _MARK)
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"a {kind.__name__} was expected")
        return self.stack[-1]

    def _set(self, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        if any(not isinstance(key, str | int) for key in keys):
            raise TypeError("keys must be strings or numbers")
        self._top(dict).update(zip(keys, values, strict=True))
