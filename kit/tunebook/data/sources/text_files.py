"""Text files of records: their lines, checked to be UTF-8, and rows found again by the byte a record begins at.

What a record is, a line of JSON or a row of CSV, its own file says. Nothing is kept in memory but the positions.
"""

import os
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, final

from .not_utf8 import not_utf8
from .places import Broken, Place
from .rows import Row, Rows

MOST_KEPT = 4000  # characters of a line that is no row


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
            raise not_utf8(path, start + mark + error.start) from None
        yield Line(number, start + mark, start + len(raw), text)
        start += len(raw)


class Found:
    """Where the records of a file begin, and the lines that are none."""

    def __init__(self):
        self.starts = array("Q")  # bytes from the start of the file, one for each record
        self.numbers = array("I")  # of the 1-based line each begins on
        self.broken: list[Broken] = []

    def record(self, number: int, start: int) -> None:
        """A record begins on line `number`, at byte `start`."""
        self.starts.append(start)
        self.numbers.append(number)

    def is_broken(self, number: int, reason: str, text: str) -> None:
        """Line `number` is no record."""
        self.broken.append(Broken(Place("line", number), reason, text.rstrip("\r\n")[:MOST_KEPT]))


@final
class Records(Rows):
    """Rows of a text file, each read with `read` from a file that stands at the byte its record begins at.

    Raises ValueError while reading when the file has changed since its records were found.
    """

    def __init__(self, path: Path, stamp: Stamp, found: Found, read: Callable[[BinaryIO], Row]):
        self.path = path
        self.stamp = stamp
        self.read = read
        self.origin = str(path)
        self._starts, self._numbers = found.starts, found.numbers
        self.broken: Sequence[Broken] = found.broken

    def __len__(self):
        return len(self._starts)

    def place(self, number: int) -> Place:
        return Place("line", self._numbers[number])

    def pick(self, indices: Iterable[int]) -> Iterator[Row]:
        with self.path.open("rb") as file:
            if stamp(file) != self.stamp:
                raise ValueError(f"{self.path} has changed since it was opened; call read_rows on it again.")
            for index in indices:
                file.seek(self._starts[index])
                yield self.read(file)
