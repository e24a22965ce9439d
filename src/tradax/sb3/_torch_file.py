"""PyTorch's files of weights (`torch.save`), without PyTorch and without running what they say.

    archive/data.pkl     nested values in pickle's byte code; tensors point to storages
    archive/data/0 ...   the storages: numbers, little-endian
    archive/byteorder, archive/version

Tensors are numpy arrays here. What is written opens with `torch.load(weights_only=True)`.
"""

from collections import OrderedDict
from typing import Any

import numpy as np

from tradax.errors import ModelFileError
from tradax.reading import MOST_BYTES, Archive, archive_of, opened
from tradax.sb3 import _opcodes
from tradax.sb3._opcodes import Call, Global, Persistent

_REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
_STORAGES = {
    Global("torch", "FloatStorage"): np.dtype("<f4"),
    Global("torch", "DoubleStorage"): np.dtype("<f8"),
    Global("torch", "LongStorage"): np.dtype("<i8"),
}
_MOST_AXES = 8
_MOST_CODE = 2**24  # bytes; a network of a thousand layers needs less than a tenth


def write(value: Any) -> bytes:
    """A file of nested dictionaries, lists, tuples, plain values and arrays.

    Args:
        value: arrays are float32, float64 or int64.
    """
    storages: list[np.ndarray] = []
    code = _opcodes.write(_with_storages(value, storages))
    entries = {"data.pkl": code, "byteorder": b"little"}
    entries |= {f"data/{i}": array.tobytes() for i, array in enumerate(storages)}
    entries["version"] = b"3\n"
    return archive_of({f"archive/{name}": content for name, content in entries.items()})


def _with_storages(value: Any, storages: list[np.ndarray]) -> Any:
    """The same with every array replaced by how PyTorch rebuilds it, its numbers noted apart."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.array(value, order="C")
        kinds = [name for name, dtype in _STORAGES.items() if dtype == array.dtype]
        if not kinds:
            raise TypeError(f"arrays of {array.dtype} have no place in a file of weights")
        identity = ("storage", kinds[0], str(len(storages)), "cpu", array.size)
        strides = tuple(stride // array.itemsize for stride in array.strides)
        storages.append(array)
        return Call(_REBUILD, (Persistent(identity), 0, array.shape, strides, False, OrderedDict()))
    if isinstance(value, dict):
        return type(value)((k, _with_storages(v, storages)) for k, v in value.items())
    if isinstance(value, list | tuple):
        return type(value)(_with_storages(item, storages) for item in value)
    return value


def read(content: bytes, source: str) -> Any:
    """The values of a file that `torch.save` or `write` made.

    Args:
        source: what the file is called in errors.

    Raises:
        ModelFileError: not such a file, damaged, or more in it than plain values and tensors.
    """
    with opened(content, source) as archive:
        return _Reader(archive, len(content)).value()


class _Reader:
    """One file: its storages as they are asked for, and how much of them was handed out."""

    def __init__(self, archive: Archive, size: int):
        self.archive, self.source = archive, archive.source
        self.storages: dict[str, np.ndarray] = {}
        # Tensors may share a storage, but a file must not stand for many times its own size.
        self.bytes_left = 4 * size

    def value(self) -> Any:
        roots = [n for n in self.archive.names if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ModelFileError(f"{self.source}: not a file of weights (no data.pkl)")
        self.root = roots[0].removesuffix("data.pkl")
        if f"{self.root}byteorder" in self.archive:
            order = self.entry("byteorder")
            if order != b"little":
                raise ModelFileError(f"{self.source}: byte order {order!r}; only little is read")
        return _opcodes.read(
            self.entry("data.pkl", _MOST_CODE),
            self.source,
            functions={
                Global("collections", "OrderedDict"): self.mapping,
                _REBUILD: self.tensor,
                Global("torch._utils", "_rebuild_parameter"): self.parameter,
            },
            names=frozenset(_STORAGES),
            persistent=self.storage,
        )

    def entry(self, name: str, most: int = MOST_BYTES) -> bytes:
        return self.archive.entry(self.root + name, most)

    def mapping(self, items: Any = ()) -> dict:
        return OrderedDict(items)

    def storage(self, identity: Any) -> np.ndarray:
        """The numbers that ("storage", type, key, device, count) stands for, as one vector."""
        kind, storage_type, key, _, count = identity
        if kind != "storage" or storage_type not in _STORAGES or not str(key).isdecimal():
            raise ModelFileError(f"{self.source}: {key!s:.40} is no storage of numbers")
        dtype = _STORAGES[storage_type]
        if key not in self.storages:
            self.storages[key] = np.frombuffer(self.entry(f"data/{key}"), dtype)
        numbers = self.storages[key]
        if numbers.dtype != dtype or numbers.size != count:
            raise ModelFileError(f"{self.source}: storage {key} is not of {count} {dtype} numbers")
        return numbers

    def tensor(
        self, storage: Any, offset: int, shape: tuple, strides: tuple, gradient: Any, *_: Any
    ) -> np.ndarray:
        """A copy of a view into a storage."""
        if len(shape) > _MOST_AXES or len(shape) != len(strides):
            raise ModelFileError(f"{self.source}: a tensor of {len(shape)} axes is malformed")
        whole = all(
            isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**40
            for n in (offset, *shape, *strides)
        )
        if not (isinstance(storage, np.ndarray) and whole):
            raise ModelFileError(f"{self.source}: a tensor of shape {shape} is malformed")
        size = int(np.prod(shape, dtype=object)) if shape else 1
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        self.bytes_left -= size * storage.itemsize
        if (size and last >= storage.size) or self.bytes_left < 0:
            raise ModelFileError(
                f"{self.source}: a tensor of shape {shape} is larger than the numbers behind it"
            )
        if not size:
            return np.zeros(shape, storage.dtype)
        steps = [step * storage.itemsize for step in strides]
        view = np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
        return np.array(view, order="C")

    def parameter(self, tensor: Any, *_: Any) -> np.ndarray:
        if not isinstance(tensor, np.ndarray):
            raise ModelFileError(f"{self.source}: a parameter is no tensor")
        return tensor
