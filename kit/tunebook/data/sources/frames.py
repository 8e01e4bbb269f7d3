"""A pandas frame -> rows of plain Python values; pandas itself is not imported.

A missing value, whichever of pandas' kinds, is None, and the NumPy arrays that parquet's lists arrive as are lists.
"""

from collections import Counter
from typing import Any

import numpy as np

from .rows import Row
from .shape import check_row


def frame_rows(frame: Any, name: str) -> list[Row]:
    """The rows of a `pandas.DataFrame`, its index left out. Raises ValueError for columns that have no own name."""
    for column, count in Counter(frame.columns).items():
        if not isinstance(column, str) or count > 1:
            why = "occurs twice" if count > 1 else f"is a {type(column).__name__}, not a string"
            move = "them: frame.columns = frame.columns.map(str)" if count == 1 else "one of them."
            raise ValueError(f"The column {column!r} of {name} {why}. Rename {move}")
    whole = frame.astype(object).where(frame.notna(), None)
    rows = whole.to_dict("records")
    for number, row in enumerate(rows):
        check_row(row, number, name)
    return [{key: _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
