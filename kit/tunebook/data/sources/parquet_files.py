"""Parquet files -> rows, one row group in memory at a time.

Reading in order reads every group once; jumping about between groups reads one anew for each jump. A key that one row
lacks inside nested columns is there with None, for Arrow stores one structure for all rows; it stays so.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import final

import pyarrow
from pyarrow import parquet

from .rows import Row, Rows
from .text_files import Stamp, stamp


def read_parquet(path: Path) -> Rows:
    """A parquet file, of which the footer is read. Raises ValueError when it is damaged or none."""
    with path.open("rb") as file:
        at = stamp(file)
        if not at.bytes:
            return ParquetRows(path, at, [])
        try:
            opened = parquet.ParquetFile(file)
            footer, columns = opened.metadata, opened.schema_arrow.names
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(
                f"{path} is not a whole parquet file: {_first_line(error)}. Write or download it again."
            ) from None
        if twice := [column for column, count in Counter(columns).items() if count > 1]:
            raise ValueError(f"{path} has the column {twice[0]!r} twice. Write it again with a name for each.")
        return ParquetRows(path, at, [footer.row_group(number).num_rows for number in range(footer.num_row_groups)])


@final
class ParquetRows(Rows):
    """Rows of a parquet file whose groups hold `group_rows` rows."""

    def __init__(self, path: Path, stamp: Stamp, group_rows: list[int]):
        self.path = path
        self.stamp = stamp
        self.starts = [0, *accumulate(group_rows)]  # the last is the number of rows
        self.origin = str(path)
        self._held: tuple[int, pyarrow.Table] | None = None  # the group read last

    def __len__(self):
        return self.starts[-1]

    def pick(self, indices: Iterable[int]) -> Iterator[Row]:
        for index in indices:
            number = bisect_right(self.starts, index) - 1
            yield self._row(self._group(number).slice(index - self.starts[number], 1), index)

    def _row(self, table: pyarrow.Table, index: int) -> Row:
        """The one row of a table. A date beyond Python's calendar and text that is not UTF-8 cannot be had."""
        try:
            return table.to_pylist()[0]
        except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError) as error:
            bad = next((name for name in table.column_names if not _is_readable(table.column(name))), "")
            rest = [name for name in table.column_names if name != bad]
            raise ValueError(
                f"{self.path}, row {index}: its column {bad!r} cannot be read ({_first_line(error)}). Write that "
                f"column again, or leave it out: import pandas; rows = pandas.read_parquet({str(self.path)!r}, "
                f"columns={rest})"
            ) from error

    def _group(self, number: int) -> pyarrow.Table:
        if self._held is None or self._held[0] != number:
            self._held = None  # before the next is read, so that two are never held
            self._held = (number, self._read_group(number))
        return self._held[1]

    def _read_group(self, number: int) -> pyarrow.Table:
        with self.path.open("rb") as file:
            if stamp(file) != self.stamp:
                raise ValueError(f"{self.path} has changed since it was opened; call read_rows on it again.")
            try:
                return parquet.ParquetFile(file).read_row_group(number)
            except (pyarrow.ArrowException, OSError) as error:
                raise ValueError(
                    f"{self.path}, row group {number} (rows {self.starts[number]} to {self.starts[number + 1] - 1}) "
                    f"is damaged: {_first_line(error)}. Write or download the file again."
                ) from error


def _is_readable(column: pyarrow.ChunkedArray) -> bool:
    try:
        column.to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError):
        return False
    return True


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
