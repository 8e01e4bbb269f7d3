"""What every row must be, wherever it comes from: a mapping of named columns, nested no deeper than anything reads.

Nothing is said here of what the columns mean.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

DEEPEST = 100  # levels; the readers below take one or two frames of Python's 1000 for each
_FLAT = frozenset((int, float, str, bool, bytes, type(None)))


def check_row(row: Any, number: int, name: str) -> None:
    """Raise TypeError for what is no mapping, ValueError for columns without a name and for a row nested too deep."""
    if not isinstance(row, Mapping):
        raise TypeError(f"Row {number} of {name} is a {type(row).__name__}; each row must be a dict.")
    for column in row:
        if not isinstance(column, str):
            raise ValueError(
                f"Row {number} of {name} has a column whose name is a {type(column).__name__}, not a string; "
                "rename it: rows = [{str(name): value for name, value in row.items()} for row in rows] and pass these."
            )
    if is_too_deep(row):
        raise ValueError(
            f"Row {number} of {name} is nested more than {DEEPEST} levels deep, or holds itself; flatten it, or write "
            "the nested value as JSON text."
        )


def is_too_deep(value: Any) -> bool:
    """Whether there are more than `DEEPEST` levels in a value; goes through them one after another, never recursing."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for holder in level for inner in _held(holder)]
        if not level:
            return False
    return True


def _held(value: Any) -> list[Any]:
    """What a value holds that may itself hold something."""
    if isinstance(value, Mapping):
        value = list(value.values())
    elif isinstance(value, np.ndarray):
        value = value.ravel().tolist() if value.dtype == object else ()
    elif not isinstance(value, list | tuple | set | frozenset):
        return []
    # Long lists are of numbers, nearly all, and each is gone through without Python's own loop.
    return [] if _FLAT.issuperset(map(type, value)) else [inner for inner in value if type(inner) not in _FLAT]
