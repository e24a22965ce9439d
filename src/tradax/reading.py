"""Files that a stranger may have made, read as plain data: JSON, YAML, safetensors, zip archives.

Nothing here unpickles, imports or runs what a file says, extracts an archive or follows a name in
it. Sizes, shapes and types are checked before memory is taken for them. Whatever is wrong with a
file (cut off, bits flipped, larger than it announces, foreign) is one error with its name.
"""

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tradax.errors import ModelFileError, TradaxError

MOST_BYTES = 2**31
"""The largest file that is read whole."""
MOST_YAML = 2**17
"""A run's takes a kilobyte, and 30 with 500 files named."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date, so that equal entries give equal archives
_MOST_ENTRIES = 1_000
_MOST_HEADER = 2**24  # of safetensors: a tensor takes 100 bytes
_MOST_NESTED = 20
_NESTING = {
    **dict.fromkeys(("[", "{", "<block sequence start>", "<block mapping start>"), 1),
    **dict.fromkeys(("]", "}", "<block end>"), -1),
}
_TYPES = {"F16", "F32", "F64", "BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"}


def read_bytes(
    path: Path | str, *, most: int = MOST_BYTES, error: type[TradaxError] = ModelFileError
) -> bytes:
    """A file's content. Raises `error` where there is none or it is larger than `most`."""
    path = Path(path)
    try:
        if not path.is_file():
            raise error(f"{path}: no such file")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as problem:
        if isinstance(problem, error):
            raise
        raise error(f"{path}: cannot be read ({problem})") from None
    if len(content) > most:
        raise error(f"{path}: is larger than {most} bytes, which no such file is")
    return content


def json_value(
    content: bytes | str,
    source: Path | str,
    *,
    infinite: bool = False,
    error: type[TradaxError] = ModelFileError,
) -> Any:
    """The value of strict JSON: UTF-8, no NaN or infinity, no name twice in one object.

    Args:
        source: what the file is called in errors.
        infinite: let NaN and infinity pass, which other programs write.
        error: what is raised where it is none.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        constant = float if infinite else _no_number
        return json.loads(text, parse_constant=constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as problem:
        raise error(f"{source}: is no JSON, or damaged ({problem})") from None


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number in JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def check_version(
    found: Any, newest: int, source: Path | str, *, error: type[TradaxError] = ModelFileError
) -> None:
    """Raises `error` where a file's format is newer than what is read, or no version at all."""
    if type(found) is not int or found < 1:
        raise error(f"{source}: {found!r} is no version of a format; the file is damaged")
    if found > newest:
        raise error(
            f"{source}: format version {found} is newer than this tradax reads ({newest}); "
            "upgrade tradax"
        )


def yaml_value(path: Path | str) -> Any:
    """The plain values of a YAML file: no tags that make objects, no aliases.

    Raises:
        ModelFileError: no such file, or no such values.
    """
    return yaml_of(read_bytes(path, most=MOST_YAML), path)


def yaml_of(content: bytes, source: Path | str) -> Any:
    """The same, of a file's content.

    A few aliases of aliases can stand for billions of values.
    """
    import yaml

    try:
        text = content.decode("utf-8")
        depth = 0
        for token in yaml.scan(text, yaml.SafeLoader):
            depth += _NESTING.get(token.id, 0)
            if depth > _MOST_NESTED:  # the time to read it grows with the square
                raise ValueError(f"more than {_MOST_NESTED} levels")
            if isinstance(token, yaml.AliasToken):
                raise ValueError("an alias (*name) is not read; write the value itself")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as problem:
        text = " ".join(str(problem).split())
        raise ModelFileError(f"{source}: is no YAML of plain values ({text})") from None


class Tensors(NamedTuple):
    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]


def tensors(
    content: bytes, source: Path | str, *, error: type[TradaxError] = ModelFileError
) -> Tensors:
    """The arrays of a safetensors file; together they are no larger than the file.

    The format is eight bytes with the length of a header, the header in JSON (name -> dtype, shape,
    data_offsets), and the numbers, without gaps.

    Raises:
        TradaxError: of the kind `error`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(len(content) - 8, _MOST_HEADER):
        raise error(f"{source}: is no safetensors file, or cut off")
    header = json_value(content[8 : 8 + length], source, error=error)
    try:
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata that are not text")
        if odd := {entry["dtype"] for entry in header.values()} - _TYPES:
            raise ValueError(f"numbers of type {odd}")
        return Tensors(load(content), metadata)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as problem:
        raise error(f"{source}: is damaged ({type(problem).__name__}: {problem})") from None


def archive_of(entries: dict[str, bytes]) -> bytes:
    """A zip of these entries, uncompressed and without dates."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return buffer.getvalue()


class Archive:
    """Entries of a zip, by name. Nothing is written to the disk."""

    def __init__(self, archive: zipfile.ZipFile, source: str):
        self._archive, self.source = archive, source
        self.names = archive.namelist()
        if len(self.names) > _MOST_ENTRIES or len(set(self.names)) < len(self.names):
            raise ModelFileError(f"{source}: has thousands of entries, or one name twice")
        for name in self.names:
            if name.startswith(("/", "\\")) or ".." in Path(name.replace("\\", "/")).parts:
                raise ModelFileError(
                    f"{source}: has an entry {name[:100]!r}, which leads out of the archive"
                )

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def entry(self, name: str, most: int = MOST_BYTES) -> bytes:
        """The content of an entry, which takes no more memory than the archive itself.

        Raises:
            ModelFileError: there is none, or it is compressed, damaged or larger than `most`.
        """
        if name not in self:
            raise ModelFileError(f"{self.source}: has no {name}")
        info = self._archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ModelFileError(
                f"{self.source}: {name} is compressed, which files of this kind never are"
            )
        if info.file_size > most:
            raise ModelFileError(f"{self.source}: {name} is larger than what it may announce")
        with _damage(self.source):
            return self._archive.read(info)


@contextlib.contextmanager
def opened(file: Path | str | bytes | BinaryIO, source: Path | str) -> Iterator[Archive]:
    """A zip archive.

    Raises:
        ModelFileError: it is none, or damaged.
    """
    given = io.BytesIO(file) if isinstance(file, bytes) else file
    with _damage(source):
        archive = zipfile.ZipFile(given)
    with archive:
        yield Archive(archive, str(source))


@contextlib.contextmanager
def _damage(source: Path | str) -> Iterator[None]:
    """What zipfile raises on damaged archives, beside its own error, as ours."""
    try:
        yield
    except (
        *(zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, ValueError),
        *(NotImplementedError, RuntimeError, OverflowError, MemoryError, LookupError),
    ) as problem:
        if isinstance(problem, TradaxError):
            raise
        text = str(problem) or type(problem).__name__
        raise ModelFileError(f"{source}: is no zip archive, or damaged ({text})") from None
    except Exception as problem:  # struct.error has no base of its own
        if type(problem).__name__ != "error":
            raise
        raise ModelFileError(f"{source}: is no zip archive, or damaged ({problem})") from None
