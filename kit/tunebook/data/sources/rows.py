"""Rows that stay where they are, on disk or in a library's memory, until one is asked for.

A source says how many rows it has and reads the ones it is asked for; indexing, slicing and iterating come from that.
Nothing is kept here but positions.
"""

import os
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any, Protocol, final, overload

from ...machine.inert import one_line
from ..reach import ANYWHERE, Reach
from .places import Broken, Place, row_number

Row = Mapping[str, Any]
Source = Iterable[Any] | str | os.PathLike[str]  # pandas frames and `datasets` objects are iterables of their kind


class Rows(Sequence[Row]):
    """A sequence of rows that are read when asked for. A slice is a view and reads nothing."""

    origin: str  # what the rows are of: a path, an id, the name of an argument
    reach: Reach = ANYWHERE  # which files they may name as images
    broken: Sequence[Broken] = ()  # lines of its files that are no rows

    def place(self, number: int) -> Place:
        """Where row `number` stands for whoever looks for it."""
        return row_number(number)

    @abstractmethod
    def pick(self, indices: Iterable[int]) -> Iterator[Row]:
        """The rows at `indices`, one after another in that order; each index is in [0, len(self))."""

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows": ...
    def __getitem__(self, index: int | slice) -> "Row | Rows":
        if isinstance(index, slice):
            return Picked(self, range(len(self))[index])
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"Row {index} of {self.origin} was asked for; it holds {count} rows.")
        return next(self.pick([index % count]))

    def __iter__(self) -> Iterator[Row]:
        return self.pick(range(len(self)))

    def __repr__(self):
        count = len(self.broken)
        without = f" without {count} broken line{'' if count == 1 else 's'}" if count else ""
        return f"<{len(self)} rows of {one_line(self.origin)}{without}>"


def place_of(rows: Sequence[Row], number: int) -> Place:
    """Where row `number` of `rows` stands."""
    return rows.place(number) if isinstance(rows, Rows) else row_number(number)


def reach_of(rows: Sequence[Row]) -> Reach:
    """Which files `rows` may name as images: those a person made, any."""
    return rows.reach if isinstance(rows, Rows) else ANYWHERE


@final
class Picked(Rows):
    """The rows of `rows` at `places`, in that order."""

    def __init__(self, rows: Rows, places: Sequence[int]):
        self.rows = rows
        self.places = places
        self.origin, self.reach, self.broken = rows.origin, rows.reach, rows.broken

    def __len__(self):
        return len(self.places)

    def place(self, number: int) -> Place:
        return self.rows.place(self.places[number])

    def pick(self, indices: Iterable[int]) -> Iterator[Row]:
        return self.rows.pick(self.places[index] for index in indices)


@final
class Joined(Rows):
    """The rows of several sources, one source after another."""

    def __init__(self, parts: Sequence[Rows], origin: str):
        self.parts = parts
        self.starts = [0, *accumulate(len(part) for part in parts)]  # the last is the number of rows
        self.origin = origin
        self.broken = [
            one._replace(place=one.place._replace(file=_file(part))) for part in parts for one in part.broken
        ]

    def __len__(self):
        return self.starts[-1]

    def place(self, number: int) -> Place:
        part = bisect_right(self.starts, number) - 1
        return self.parts[part].place(number - self.starts[part])._replace(file=_file(self.parts[part]))

    def pick(self, indices: Iterable[int]) -> Iterator[Row]:
        # Neighbours of one part are asked for together, so that its file is opened once.
        for number, group in groupby(indices, key=lambda index: bisect_right(self.starts, index) - 1):
            start = self.starts[number]
            yield from self.parts[number].pick(index - start for index in group)


def _file(part: Rows) -> str:
    return os.path.basename(part.origin)


class TakesIndex(Protocol):
    """What `Indexed` asks of a library's rows: `datasets.Dataset` and every Sequence are such."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


@final
class Indexed(Rows):
    """Rows of an object that has a length and takes an index, whatever it makes of a slice."""

    def __init__(self, rows: TakesIndex, origin: str, reach: Reach = ANYWHERE):
        self.rows = rows
        self.origin, self.reach = origin, reach

    def __len__(self):
        return len(self.rows)

    def pick(self, indices: Iterable[int]) -> Iterator[Row]:
        return (self.rows[index] for index in indices)
