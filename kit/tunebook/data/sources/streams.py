"""Sources that are read while a run goes on: nothing is kept of them but where a reader stands.

What `read_rows` opens by index is read by index here too. Beyond that come iterables of unknown length, such as a
`datasets.IterableDataset`, a function that returns an iterator, and an iterator, which can be read once.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import chain, islice
from typing import Any, Protocol, cast, final

from ..reach import ANYWHERE, Reach
from .read import is_of, read_rows
from .rows import Row, Rows, Source
from .shape import check_row

HEAD = 64  # rows that are looked at before a run begins


class RowStream(Protocol):
    """Rows in order, from any of them on."""

    origin: str  # what errors call the source
    head: list[Row]  # the rows that are to be skipped, and at most HEAD behind them
    reach: Reach  # which files the rows may name as images

    def start_at(self, row: int) -> Iterator[Row]:
        """The rows from number `row` on. Raises ValueError for a source that is over and cannot be read again."""
        ...


def stream_rows(
    source: Source | Callable[[], Iterator[Any]], name: str = "train_dataset", *, skip: int = 0
) -> RowStream:
    """A source as a stream: whatever `read_rows` opens, an iterable, an iterator, or a function that makes one.

    Raises as `read_rows` does, and ValueError when there are no rows behind the first `skip`.
    """
    seen = skip + HEAD
    stream = (
        _Once(source, name, seen) if isinstance(source, Iterator) else _Repeated(*_reader(source, name), name, seen)
    )
    if not stream.head:
        raise ValueError(f"{name} is empty; there is nothing to train on.")
    if len(stream.head) <= skip:
        raise ValueError(f"skip is {skip}, and {name} has {len(stream.head)} rows; nothing is left of it.")
    return stream


def _reader(source: Any, name: str) -> tuple[Callable[[int], Iterator[Any]], Reach]:
    """(the function that reads a source anew, from a row on; which files its rows may name as images)."""
    if is_of(source, "datasets", "IterableDataset"):
        from .library import undecoded_stream, where_from

        stream = undecoded_stream(source)
        return lambda row: iter(stream.skip(row)), where_from(source)
    if callable(source):
        return lambda row: islice(cast(Iterator[Any], source()), row, None), ANYWHERE
    if isinstance(source, Iterable) and not isinstance(source, str | Sized):
        return lambda row: islice(source, row, None), ANYWHERE
    rows = read_rows(source, name)
    if isinstance(rows, Rows):
        return lambda row: rows.pick(range(row, len(rows))), rows.reach
    return lambda row: (rows[place] for place in range(row, len(rows))), ANYWHERE


@final
class _Repeated:
    """A source that can be read again from any row."""

    def __init__(self, read: Callable[[int], Iterator[Any]], reach: Reach, origin: str, seen: int):
        self._read, self.reach, self.origin = read, reach, origin
        self.head = list(islice(self.start_at(0), seen))

    def start_at(self, row: int) -> Iterator[Row]:
        return _checked(self._read(row), row, self.origin)


@final
class _Once:
    """An iterator: it can be read through once, from any row."""

    def __init__(self, rows: Iterator[Any], origin: str, seen: int):
        self.origin, self.reach = origin, ANYWHERE
        self.head = list(_checked(islice(rows, seen), 0, origin))
        self._rest, self._is_read = rows, False

    def start_at(self, row: int) -> Iterator[Row]:
        if self._is_read:
            raise ValueError(
                f"{self.origin} is an iterator and can be read once, so it has no second epoch and no second run; pass "
                "a function that returns it, such as lambda: (row for row in ...), or fewer max_steps."
            )
        self._is_read = True
        return _checked(islice(chain(self.head, self._rest), row, None), row, self.origin)


def _checked(rows: Iterable[Any], first: int, origin: str) -> Iterator[Row]:
    for number, row in enumerate(rows, start=first):
        check_row(row, number, origin)
        yield row
