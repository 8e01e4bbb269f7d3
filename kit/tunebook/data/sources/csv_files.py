"""Files of comma-separated values -> rows: the first line names the columns, and every value is a string.

A cell may hold line breaks when it is quoted. An empty or missing cell is None. The file is parsed once when it is
opened, so that a broken row is found then; other separators are refused, never guessed at.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from .rows import Row, Rows
from .text_files import Found, Records, lines, stamp


def read_csv(path: Path) -> Rows:
    """A file with a header line; blank lines are passed over. Raises ValueError with the line that is wrong.

    Records of more cells than there are columns are `broken` and are no rows.
    """
    found = Found()
    with path.open("rb") as file:
        records = _records(file, path)
        line, _, columns = next(records, (1, 0, []))
        _check_header(columns, path, line)
        for line, start, cells in records:
            if len(cells) > len(columns):
                reason = (
                    f"{len(cells)} cells, but the header names {len(columns)} columns; put quotes around a cell that "
                    "holds a comma"
                )
                found.is_broken(line, reason, ",".join(cells))
            else:
                found.record(line, start)
        return Records(path, stamp(file), found, lambda file: _row(file, columns))


def _records(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, list[str]]]:
    """(the 1-based line and the byte it begins on, its cells) of every record that is no blank line."""
    end = 0  # of the line read last, in bytes

    def texts() -> Iterator[str]:
        nonlocal end
        for line in lines(file, path):
            end = line.end
            yield line.text

    reader = csv.reader(texts(), strict=True)
    while True:
        line, start = reader.line_num + 1, end
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{path}, the row that begins on line {line} is not CSV: {_said(error)}") from None
        if cells:
            yield line, start, cells


def _said(error: csv.Error) -> str:
    """The csv module's words, and the next move."""
    if "unexpected end of data" in str(error):
        return "a quoted cell is never closed. Close it; a quote inside quotes is written twice."
    if "field larger than field limit" in str(error):
        return f"{error}. Raise the limit first: csv.field_size_limit(2**31 - 1)."
    if "new-line character" in str(error):
        return "a carriage return stands outside quotes. Save the file with line feeds; quote cells with line breaks."
    return f"{error}. A cell with quotes, commas or line breaks stands in quotes, its own quotes written twice."


def _check_header(columns: list[str], path: Path, line: int) -> None:
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise ValueError(f"{path}, line {line} names the column {twice[0]!r} twice. Rename one of them.")
    other = next((separator for separator in ";\t|" if len(columns) == 1 and separator in columns[0]), None)
    if other is not None:
        raise ValueError(
            f"{path}, line {line} names one column, {columns[0]!r}; its cells seem to be separated by {other!r}. "
            f"Pass pandas.read_csv({str(path)!r}, sep={other!r})."
        )


def _row(file: BinaryIO, columns: list[str]) -> Row:
    """The record a file stands at."""
    cells = next(csv.reader((line.decode() for line in file), strict=True))
    return {column: cell or None for column, cell in zip_longest(columns, cells)}
