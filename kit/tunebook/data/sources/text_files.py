"""Text files of records: their lines, checked to be UTF-8, and rows found again by the byte a record begins at.

What a record is, a line of JSON or a row of CSV, its own file says. Nothing is kept in memory but the positions.
"""

import os
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, final

from .rows import Row, Rows


class Line(NamedTuple):
    """One line of a text file, its line break included, and a byte order mark left out."""

    number: int  # 1-based
    start: int  # bytes from the start of the file
    end: int  # where the next line starts
    text: str


class Stamp(NamedTuple):
    """What tells that a file is still the one its positions were taken from."""

    bytes: int
    modified: int  # ns


def stamp(file: BinaryIO) -> Stamp:
    """The stamp of an open file."""
    status = os.fstat(file.fileno())
    return Stamp(status.st_size, status.st_mtime_ns)


def lines(file: BinaryIO, path: Path) -> Iterator[Line]:
    """The lines of a file opened for reading bytes; only a line feed ends one. Raises ValueError when not UTF-8."""
    start = 0
    for number, raw in enumerate(file, 1):
        mark = len(BOM_UTF8) if number == 1 and raw.startswith(BOM_UTF8) else 0
        try:
            text = raw[mark:].decode()
        except UnicodeDecodeError as error:
            place = start + mark + error.start
            raise ValueError(
                f"{path}, line {number} is not UTF-8: byte {place} of the file is 0x{raw[mark + error.start]:02x}. "
                "Save the file as UTF-8."
            ) from None
        yield Line(number, start + mark, start + len(raw), text)
        start += len(raw)


@final
class Records(Rows):
    """Rows of a text file, each read with `read` from a file that stands at the byte its record begins at.

    Raises ValueError while reading when the file has changed since its records were found.
    """

    def __init__(self, path: Path, stamp: Stamp, starts: "array[int]", read: Callable[[BinaryIO], Row]):
        self.path = path
        self.stamp = stamp
        self.starts = starts  # bytes from the start of the file, one for each record
        self.read = read
        self.origin = str(path)

    def __len__(self):
        return len(self.starts)

    def pick(self, indices: Iterable[int]) -> Iterator[Row]:
        with self.path.open("rb") as file:
            if stamp(file) != self.stamp:
                raise ValueError(f"{self.path} has changed since it was opened; call read_rows on it again.")
            for index in indices:
                file.seek(self.starts[index])
                yield self.read(file)
