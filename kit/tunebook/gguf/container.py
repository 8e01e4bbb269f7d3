"""The container itself: a .gguf file becomes its keys and the places of its tensors, each held against the file's size.

The file may be a stranger's. Nothing is allocated for a count, a length or a shape before the bytes for it are known to
be there, and what does not fit is a ValueError of one sentence. The layout is ggml/docs/gguf.md, versions 2 and 3.
"""

import math
import mmap
import re
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

_SCALARS = {
    GGUFValueType.UINT8: "u1",
    GGUFValueType.INT8: "i1",
    GGUFValueType.UINT16: "u2",
    GGUFValueType.INT16: "i2",
    GGUFValueType.UINT32: "u4",
    GGUFValueType.INT32: "i4",
    GGUFValueType.FLOAT32: "f4",
    GGUFValueType.BOOL: "u1",
    GGUFValueType.UINT64: "u8",
    GGUFValueType.INT64: "i8",
    GGUFValueType.FLOAT64: "f8",
}
_KINDS = {kind.value for kind in GGUFValueType}
_TYPES = {kind.value for kind in gguf.GGML_QUANT_SIZES}
_MAX_NAME = 65_535  # bytes of a key, by the format
_MAX_TENSOR_NAME = 127  # bytes; ggml itself reads 63
_MAX_DIMENSIONS = 4  # ggml's GGML_MAX_DIMS
_SMALLEST_KEY, _SMALLEST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8  # bytes


@dataclass(frozen=True)
class StoredArray:
    """A tensor of a .gguf, not read yet."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]  # as NumPy writes it: rows first
    offset: int  # bytes from the start of the file
    size_bytes: int
    file: np.ndarray  # the whole file, mapped

    @property
    def data(self) -> np.ndarray:
        """Its bytes, one row of blocks after the other: (*rows, bytes of a row)."""
        raw = self.file[self.offset : self.offset + self.size_bytes]
        return raw.reshape(*self.shape[:-1], -1)


@dataclass(frozen=True)
class Container:
    """What a .gguf holds."""

    keys: dict[str, Any]  # numbers, truth values, strings and lists of them
    tensors: dict[str, StoredArray]


def open_container(path: Path) -> Container:
    """Read the keys and the table of tensors. Raises FileNotFoundError, or ValueError for what is no whole file."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    size = path.stat().st_size
    if size < 24:
        raise ValueError(f"{path} is no GGUF file: it has {size} bytes.")
    try:
        return _read(path)
    except _Odd as odd:
        raise ValueError(f"{path} is not a whole GGUF file: {odd}.") from odd


def shown(value: Any) -> str:
    """A name or value of the file, fit to be read in a sentence: quoted, and cut where it is long."""
    text = value[:61] if isinstance(value, str) else repr(value[:8] if isinstance(value, list) else value)
    cut = text if len(text) <= 60 else f"{text[:60]}..."
    return repr(cut) if isinstance(value, str) else cut


def named(name: str) -> str:
    """A key's or tensor's name, quoted only where it is an odd one."""
    return name if len(name) <= 60 and re.fullmatch(r"[\w.]+", name, re.ASCII) else shown(name)


class _Odd(Exception):
    """What is wrong with the bytes, to be put into a sentence."""


def _read(path: Path) -> Container:
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        cursor = _Cursor(mapped)
        if cursor.take(4) != b"GGUF":
            raise _Odd("it does not begin with GGUF")
        version = cursor.number("u4")
        if version & 0xFFFF == 0:
            raise _Odd("it is written for big-endian machines")
        if version not in (2, 3):
            raise _Odd(f"it has version {version}, and versions 2 and 3 are read")
        tensor_count, key_count = cursor.number("u8"), cursor.number("u8")
        cursor.expect(key_count, _SMALLEST_KEY, "keys")
        keys: dict[str, Any] = {}
        for _ in range(key_count):
            name = cursor.string("a key", most=_MAX_NAME)
            if name in keys:
                raise _Odd(f"the key {shown(name)} stands in it twice")
            keys[name] = cursor.value(name)
        cursor.expect(tensor_count, _SMALLEST_TENSOR, "tensors")
        table = [_entry(cursor) for _ in range(tensor_count)]
        start, alignment = cursor.at, keys.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise _Odd(f"general.alignment is {shown(alignment)}, no power of two")
    file = np.memmap(path, dtype=np.uint8, mode="r")
    tensors = _placed(table, file, start + -start % alignment, alignment)
    return Container(keys, tensors)


class _Cursor:
    """A place in the file that moves on as it is read, never past the end."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at, self.size = data, 0, len(data)

    def take(self, count: int) -> bytes:
        if count > self.size - self.at:
            raise _Odd(f"it ends {count - (self.size - self.at)} bytes early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, kind: str) -> Any:
        return np.frombuffer(self.take(int(kind[1])), dtype=f"<{kind}")[0].item()

    def expect(self, count: int, least: int, what: str) -> None:
        """Raise if `count` things of at least `least` bytes cannot be in what is left."""
        if count * least > self.size - self.at:
            raise _Odd(f"it says {count} {what}, and {self.size - self.at} bytes are left for them")

    def string(self, what: str, *, most: int | None = None) -> str:
        length = self.number("u8")
        if most is not None and length > most:
            raise _Odd(f"the name of {what} has {length} bytes")
        self.expect(length, 1, f"bytes of {what}")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _Odd(f"{what} is not UTF-8") from error

    def value(self, name: str) -> Any:
        kind = self.kind(name)
        if kind == GGUFValueType.STRING:
            return self.string(f"the value of {shown(name)}")
        return self.items(name) if kind == GGUFValueType.ARRAY else self.scalars(kind, 1, name)[0]

    def kind(self, name: str) -> GGUFValueType:
        number = self.number("u4")
        if number not in _KINDS:
            raise _Odd(f"{shown(name)} is of type {number}, which is none")
        return GGUFValueType(number)

    def items(self, name: str) -> list:
        kind, count = self.kind(name), self.number("u8")
        if kind == GGUFValueType.ARRAY:
            raise _Odd(f"{shown(name)} is a list of lists")
        if kind != GGUFValueType.STRING:
            return self.scalars(kind, count, name)
        self.expect(count, 8, f"strings in {shown(name)}")
        return self.strings(name, count)

    def strings(self, name: str, count: int) -> list[str]:
        found, at, length_of = [], self.at, struct.Struct("<Q").unpack_from
        for _ in range(count):
            if self.size - at < 8:
                raise _Odd(f"it ends within {shown(name)}")
            (length,) = length_of(self.data, at)
            at += 8
            if length > self.size - at:
                raise _Odd(f"a string of {shown(name)} has {length} bytes, and {self.size - at} are left")
            found.append(self.data[at : at + length])
            at += length
        self.at = at
        try:
            return [text.decode("utf-8") for text in found]
        except UnicodeDecodeError as error:
            raise _Odd(f"a string of {shown(name)} is not UTF-8") from error

    def scalars(self, kind: GGUFValueType, count: int, name: str) -> list:
        size = int(_SCALARS[kind][1])
        self.expect(count, size, f"numbers in {shown(name)}")
        numbers = np.frombuffer(self.take(count * size), dtype=f"<{_SCALARS[kind]}")
        if kind != GGUFValueType.BOOL:
            return numbers.tolist()
        if (numbers > 1).any():
            raise _Odd(f"{shown(name)} is neither true nor false")
        return (numbers == 1).tolist()


def _entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """A tensor's name, shape (rows first), type and offset within the data."""
    name = cursor.string("a tensor", most=_MAX_TENSOR_NAME)
    count = cursor.number("u4")
    if not 1 <= count <= _MAX_DIMENSIONS:
        raise _Odd(f"the tensor {shown(name)} has {count} dimensions")
    shape = tuple(cursor.number("u8") for _ in range(count))[::-1]
    return name, shape, cursor.number("u4"), cursor.number("u8")


def _placed(table: list, file: np.ndarray, start: int, alignment: int) -> dict[str, StoredArray]:
    tensors: dict[str, StoredArray] = {}
    for name, shape, number, offset in table:
        if name in tensors:
            raise _Odd(f"the tensor {shown(name)} stands in it twice")
        if number not in _TYPES:
            raise _Odd(f"the tensor {shown(name)} is of type {number}, which is none")
        kind = GGMLQuantizationType(number)
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        elements = math.prod(shape)
        if not elements or shape[-1] % block:
            raise _Odd(f"the tensor {shown(name)} has the shape {shape}, which {kind.name} has not")
        size = elements // block * block_bytes
        if offset % alignment or start + offset + size > len(file):
            raise _Odd(
                f"the tensor {shown(name)} takes {size} bytes from {start + offset}, and the file has {len(file)}"
            )
        tensors[name] = StoredArray(name, kind, shape, start + offset, size, file)
    in_order = sorted(tensors.values(), key=lambda tensor: tensor.offset)
    for one, other in pairwise(in_order):
        if one.offset + one.size_bytes > other.offset:
            raise _Odd(f"the tensors {shown(one.name)} and {shown(other.name)} take the same bytes")
    return tensors
