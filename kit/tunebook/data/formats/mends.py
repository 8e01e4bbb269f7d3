"""The line to pass so that rows with other columns become rows of a format: `formatting_func=lambda row: ...`.

Every line made here is Python that runs as it stands (one with `json` in it needs that imported); nothing is mended
unless the person passes it.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Mend(NamedTuple):
    """How some rows become rows of a format, as two expressions of `row`."""

    when: str  # true of the rows it is for, and of no good one
    makes: str


def formatting(mends: Sequence[Mend]) -> str:
    """'pass formatting_func=...', which mends the rows each of `mends` is for and leaves the others as they are."""
    steps = " else ".join(f"{mend.makes} if {mend.when}" for mend in mends)
    return _passed(f"{steps} else row")


def formatting_all(mend: Mend) -> str:
    """'pass formatting_func=...', which mends rows that are all alike."""
    return _passed(mend.makes)


def has_but_lacks(found: str, wanted: str | None) -> str:
    """The condition that a row has the column `found` and not `wanted`."""
    return f"row.get({found!r})" + (f" and not row.get({wanted!r})" if wanted is not None else "")


def _passed(makes: str) -> str:
    return f"{'import json and ' if 'json.' in makes else ''}pass formatting_func=lambda row: {makes}"


def parsed_text(column: str) -> Mend:
    """A column that holds JSON as text, read."""
    return Mend(f"isinstance(row.get({column!r}), str)", f"{{**row, {column!r}: json.loads(row[{column!r}])}}")


def turned(column: str) -> Mend:
    """A column that holds a dict of lists, as a list of dicts."""
    turns = f"[dict(zip(row[{column!r}], turn)) for turn in zip(*row[{column!r}].values())]"
    return Mend(f"isinstance(row.get({column!r}), dict)", f"{{**row, {column!r}: {turns}}}")
