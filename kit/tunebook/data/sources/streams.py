"""Sources that are read while a run goes on: nothing is kept of them but where a reader stands.

What `read_rows` opens by index is read by index here too. Beyond that come iterables of unknown length, such as a
`datasets.IterableDataset`, a function that returns an iterator, and an iterator, which can be read once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol, cast, final

from ..reach import ANYWHERE, Reach
from .places import Broken, Place, row_number
from .read import is_of, read_rows
from .rows import Row, Rows, Source
from .shape import check_row

HEAD = 64  # rows that are looked at before a run begins


class RowStream(Protocol):
    """Rows in order, from any of them on."""

    origin: str  # what errors call the source
    head: list[Row]  # the rows that are to be skipped, and at most HEAD behind them
    reach: Reach  # which files the rows may name as images
    place: Callable[[int], Place]  # of a row, by its number
    broken: Sequence[Broken]  # lines of its files that are no rows and were left out

    def start_at(self, row: int) -> Iterator[Row]:
        """The rows from number `row` on. Raises ValueError for a source that is over and cannot be read again."""
        ...


def stream_rows(
    source: Source | Callable[[], Iterator[Any]],
    name: str = "train_dataset",
    *,
    skip: int = 0,
    skip_bad_rows: bool = False,
) -> RowStream:
    """A source as a stream: whatever `read_rows` opens, an iterable, an iterator, or a function that makes one.

    Raises as `read_rows` does, and ValueError when there are no rows behind the first `skip`.
    """
    seen = skip + HEAD
    if isinstance(source, Iterator):
        stream = _Once(source, name, seen)
    else:
        stream = _Repeated(_anew(source, name, skip_bad_rows=skip_bad_rows), name, seen)
    if not stream.head:
        raise ValueError(f"{name} is empty; there is nothing to train on.")
    if len(stream.head) <= skip:
        raise ValueError(f"skip is {skip}, and {name} has {len(stream.head)} rows; nothing is left of it.")
    return stream


class _Anew(NamedTuple):
    """A source that can be read again."""

    read: Callable[[int], Iterator[Any]]  # from a row on
    reach: Reach = ANYWHERE
    place: Callable[[int], Place] = row_number
    broken: Sequence[Broken] = ()


def _anew(source: Any, name: str, *, skip_bad_rows: bool) -> _Anew:
    if is_of(source, "datasets", "IterableDataset"):
        from .library import undecoded_stream, where_from

        stream = undecoded_stream(source)
        return _Anew(lambda row: iter(stream.skip(row)), where_from(source))
    if callable(source):
        return _Anew(lambda row: islice(cast(Iterator[Any], source()), row, None))
    if isinstance(source, Iterable) and not isinstance(source, str | Sized):
        return _Anew(lambda row: islice(source, row, None))
    rows = read_rows(source, name, skip_bad_rows=skip_bad_rows)
    if isinstance(rows, Rows):
        return _Anew(lambda row: rows.pick(range(row, len(rows))), rows.reach, rows.place, rows.broken)
    return _Anew(lambda row: (rows[place] for place in range(row, len(rows))))


@final
class _Repeated:
    """A source that can be read again from any row."""

    def __init__(self, source: _Anew, origin: str, seen: int):
        self._read, self.reach, self.place, self.broken = source
        self.origin = origin
        self.head = list(islice(self.start_at(0), seen))

    def start_at(self, row: int) -> Iterator[Row]:
        return _checked(self._read(row), row, self.origin)


@final
class _Once:
    """An iterator: it can be read through once, from any row."""

    def __init__(self, rows: Iterator[Any], origin: str, seen: int):
        self.origin, self.reach = origin, ANYWHERE
        self.place: Callable[[int], Place] = row_number
        self.broken: Sequence[Broken] = ()
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
