"""Mutations of files: of their bytes, and of what zip archives, JSON and safetensors hold."""

import io
import json
import random
import struct
import zipfile
from typing import Any

_NUMBERS = (0, 1, -1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1)
_FLOATS = (float("nan"), float("inf"), -1.0, 0.0, 1e-300, 1e300, 2.0**31, 2.0**62, 0.5)
_TEXTS = (
    *(b"nan", b"inf", b"-inf", b"1e999", b"-0", b"9" * 400, b"1e-400", b'"', b"'", b"\x00"),
    *(b"\n\n", b",", b";", b"\t", b"\r", b"\xff\xfe", b"\xef\xbb\xbf", b"0x10", b"1_000", b"[]"),
    *(b"2024-02-30", b"99999-01-01", b"0001-01-01", b"{}", b"null", b"true", b"../", b"\\u0000"),
    *(b"!!python/object/apply:os.system ['true']", b"&a [*a]", b"<<: *a", b"#", b"---\n", b": "),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2**24, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, "", "x", "../x"),
    *(float("nan"), float("inf"), [], {}, [[]], [1, 2, 3], ["a"], {"a": 1}, "é\x00", "1" * 1000),
)


class Mutator:
    """One case: a good file, changed one to four times."""

    def __init__(self, rng: random.Random, seeds: list[bytes]):
        self.rng, self.seeds = rng, seeds

    def file(self, suffix: str) -> bytes:
        content = self.rng.choice(self.seeds)
        for _ in range(self.rng.choice((1, 1, 1, 2, 2, 3, 4))):
            inside = self.rng.random() < 0.6
            if inside and suffix == ".zip":
                content = self.archive(content)
            elif inside and suffix == ".safetensors":
                content = self.tensors(content)
            elif inside and suffix in (".csv", ".yaml"):
                content = self.text(content)
            elif inside and suffix == ".parquet":
                content = self.rng.choice((self.near_end, self.frame, self.frame))(content)
            else:
                content = self.bytes(content)
        return content

    def bytes(self, content: bytes) -> bytes:
        """Anywhere, without regard to what it means."""
        rng, data = self.rng, bytearray(content)
        at = rng.randrange(len(data) + 1)
        length = min(rng.choice((1, 2, 4, 8, 16, 64, 512, 4096)), len(data) - at)
        match rng.randrange(9):
            case 0 if data:
                for _ in range(rng.choice((1, 1, 2, 8, 32))):
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = rng.randbytes(rng.choice((1, 4, 64, 1024)))
            case 4:
                data[at:at] = data[at : at + length] * rng.choice((1, 1, 10))
            case 5:
                other = rng.choice(self.seeds)
                start = rng.randrange(len(other))
                data[at : at + length] = other[start : start + rng.choice((4, 64, 1024))]
            case 6:
                size, code = rng.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
                value = rng.choice(_NUMBERS) % 2 ** (8 * size)
                data[at : at + size] = struct.pack(rng.choice("<>") + code, value)
            case 7:
                data[at:at] = rng.choice(_TEXTS)
            case _:
                data[at : at + length] = bytes(length)
        return bytes(data)

    def near_end(self, content: bytes) -> bytes:
        """Bytes of the last kilobyte or so, where Parquet keeps what describes the rest."""
        footer = 8 + int.from_bytes(content[-8:-4], "little") if len(content) > 8 else 0
        if not 8 < footer < len(content):
            return self.bytes(content)
        changed = self.bytes(content[-footer:-8])
        return content[:-footer] + changed + len(changed).to_bytes(4, "little") + content[-4:]

    def frame(self, content: bytes) -> bytes:
        """Values, kinds and names of a table's columns, written anew as a sound Parquet file."""
        import polars as pl
        import pyarrow.parquet

        rng = self.rng
        try:
            # Not by polars, which on some damaged files ends the whole process.
            frame = pl.DataFrame(pl.from_arrow(pyarrow.parquet.read_table(io.BytesIO(content))))
        except BaseException:  # a mutation before; a panic is no Exception
            return self.bytes(content)
        if not frame.width:
            return content
        name = rng.choice(frame.columns)
        column = frame[name]
        match rng.randrange(7):
            case 0:
                frame = frame.drop(name)
            case 1:
                other = rng.choice(("X", "Close", "date", "a" * 5000, "é"))
                frame = frame if other in frame.columns else frame.rename({name: other})
            case 2:
                kind = rng.choice((pl.String, pl.Float32, pl.Int8, pl.UInt64, pl.Boolean, pl.Date))
                try:
                    frame = frame.with_columns(column.cast(kind, strict=False))
                except pl.exceptions.PolarsError:
                    frame = frame.drop(name)
            case 3:
                frame = frame.with_columns(pl.struct(pl.all()).alias(name))
            case 4:
                frame = frame.with_columns(pl.concat_list(pl.col(name)).alias(name))
            case 5:
                frame = rng.choice((frame[:0], frame[:1], frame.reverse(), pl.concat([frame] * 2)))
            case _:
                value = rng.choice((None, *_FLOATS))
                at = pl.int_range(pl.len()) == rng.randrange(max(len(column), 1))
                if column.dtype.is_numeric():
                    odd = pl.when(at).then(pl.lit(value)).otherwise(pl.col(name).cast(pl.Float64))
                else:
                    odd = pl.when(~at).then(pl.col(name))
                frame = frame.with_columns(odd.alias(name))
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        return buffer.getvalue()

    def text(self, content: bytes) -> bytes:
        """A line, or what stands between separators."""
        rng = self.rng
        lines = content.split(b"\n")
        at = rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                lines[at] = self.bytes(lines[at])
            case 1:
                lines.insert(at, rng.choice(lines))
            case 2:
                del lines[at]
            case 3:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case _:
                separator = b"," if b"," in lines[at] else b": "
                cells = lines[at].split(separator)
                cells[rng.randrange(len(cells))] = rng.choice(_TEXTS)
                lines[at] = separator.join(cells)
        return b"\n".join(lines)

    def archive(self, content: bytes) -> bytes:
        """An entry of a zip, its check sum right; or names, sizes and methods in its headers."""
        rng = self.rng
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entries = [(name, archive.read(name)) for name in archive.namelist()]
        except Exception:  # it was damaged by the mutation before
            return self.bytes(content)
        if not entries:
            return self.bytes(content)
        at = rng.randrange(len(entries))
        name, inside = entries[at]
        method = zipfile.ZIP_STORED
        match rng.randrange(12):
            case 0:
                entries[at] = (
                    rng.choice(("../x", "/etc/x", "", "a" * 60_000, "é", "x\\..")),
                    inside,
                )
            case 1:
                entries.append(rng.choice(entries))
            case 2:
                del entries[at]
            case 3:
                method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
                entries[at] = (name, inside + bytes(rng.choice((0, 2**16, 2**22))))
            case 4:
                entries[at] = (name, self.bytes(inside))
            case 5:
                return self._header(content)
            case _:
                entries[at] = (name, self._inside(name, inside))
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for entry, value in entries:
                archive.writestr(zipfile.ZipInfo(entry), value, method)
        return buffer.getvalue()

    def _inside(self, name: str, content: bytes) -> bytes:
        if name.endswith(".safetensors"):
            return self.tensors(content)
        if name.endswith(".json") or name == "data":
            return self.json(content)
        if name.endswith(".pth"):
            return self.archive(content)
        return self.bytes(content)

    def _header(self, content: bytes) -> bytes:
        """Fields of a local or central header, or of the directory's end."""
        rng, data = self.rng, bytearray(content)
        marks = [
            i
            for mark in (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06")
            for i in range(len(data))
            if data[i : i + 4] == mark
        ] or [0]
        at = rng.choice(marks) + rng.randrange(4, 46)
        size = rng.choice((1, 2, 4))
        data[at : at + size] = (rng.choice(_NUMBERS) % 2 ** (8 * size)).to_bytes(size, "little")
        return bytes(data)

    def json(self, content: bytes) -> bytes:
        """A value somewhere in it, or its end."""
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):  # it was damaged by the mutation before
            return self.bytes(content)
        if self.rng.random() < 0.05:
            return b"[" * self.rng.choice((10, 100_000)) + content
        return json.dumps(self._changed(value)).encode()

    def _changed(self, value: Any) -> Any:
        rng = self.rng
        if isinstance(value, dict) and value and rng.random() < 0.9:
            key = rng.choice(list(value))
            if rng.random() < 0.15:
                return {k: v for k, v in value.items() if k != key}
            if rng.random() < 0.1:
                return {**value, rng.choice(("x", "__metadata__", "")): rng.choice(_VALUES)}
            return {**value, key: self._changed(value[key])}
        if isinstance(value, list) and value and rng.random() < 0.8:
            at = rng.randrange(len(value))
            if rng.random() < 0.2:
                return value * rng.choice((0, 2, 100))
            return [*value[:at], self._changed(value[at]), *value[at + 1 :]]
        if isinstance(value, int) and rng.random() < 0.5:
            return value + rng.choice((-1, 1, 2, 10, 1000, 2**20))
        return rng.choice(_VALUES)

    def tensors(self, content: bytes) -> bytes:
        """The header of a safetensors file with its length right, or numbers that are none."""
        rng = self.rng
        length = int.from_bytes(content[:8], "little")
        if not 0 < length <= len(content) - 8:
            return self.bytes(content)
        header, numbers = content[8 : 8 + length], bytearray(content[8 + length :])
        if rng.random() < 0.4 and len(numbers) >= 8:
            at = rng.randrange(len(numbers) // 8) * 8
            odd = rng.choice((float("nan"), float("inf"), 1e300, -1.0, 0.0))
            numbers[at : at + 8] = rng.choice(
                (struct.pack("<d", odd), struct.pack("<f", min(odd, 1e30)) * 2)
            )
        else:
            header = self.json(header) if rng.random() < 0.8 else self.bytes(header)
        return len(header).to_bytes(8, "little") + header + bytes(numbers)
