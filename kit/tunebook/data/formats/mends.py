"""The line to pass so that rows with other columns become rows of a format: `formatting_func=lambda row: ...`.

Every line made here is Python that runs as it stands (one with `json` or `tunebook` in it needs that imported);
nothing is mended unless the person passes it.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Mend(NamedTuple):
    """How some rows become rows of a format, as two expressions of `row`."""

    when: str  # true of the rows it is for, and of no good one
    makes: str


def formatting(mends: Sequence[Mend]) -> str:
    """The argument that mends the rows each of `mends` is for and leaves the others as they are."""
    return _argument(" else ".join(f"{mend.makes} if {mend.when}" for mend in mends) + " else row")


def formatting_all(mend: Mend) -> str:
    """The argument that mends rows which are all alike."""
    return _argument(mend.makes)


def passed(argument: str) -> str:
    """What to do with an argument, in a sentence."""
    return f"{'import json and ' if 'json.' in argument else ''}pass {argument}"


def called(*arguments: str) -> str:
    """The lines to write with these arguments."""
    given = ", ".join(arguments)
    imports = "".join(f"import {name}\n" for name in ("json", "tunebook") if f"{name}." in given)
    return f"{imports}Trainer(model, tokenizer, train_dataset=rows, {given})"


def _argument(makes: str) -> str:
    return f"formatting_func=lambda row: {makes}"


def has_but_lacks(found: str, wanted: str | None) -> str:
    """The condition that a row has the column `found` and not `wanted`."""
    return f"row.get({found!r})" + (f" and not row.get({wanted!r})" if wanted is not None else "")


def parsed_text(column: str) -> Mend:
    """A column that holds JSON as text, read."""
    return Mend(f"isinstance(row.get({column!r}), str)", f"{{**row, {column!r}: json.loads(row[{column!r}])}}")


def turned(column: str) -> Mend:
    """A column that holds a dict of lists, as a list of dicts."""
    turns = f"[dict(zip(row[{column!r}], turn)) for turn in zip(*row[{column!r}].values())]"
    return Mend(f"isinstance(row.get({column!r}), dict)", f"{{**row, {column!r}: {turns}}}")
