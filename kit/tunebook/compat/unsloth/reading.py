"""How the rows of a notebook are read: TRL's rules for which column is the text and what of it is trained."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeGuard

from ... import read_rows
from .arguments import Arguments

Row = Mapping[str, Any]
FormattingFunc = Callable[[Any], Any]
READ_WITHOUT = {"messages", "conversations", "prompt", "input_ids"}  # columns of rows that need no text column
FAILURES = (LookupError, TypeError, AttributeError, ValueError)  # of a function that is given rows of another kind


class Reading(NamedTuple):
    """What a `tunebook.Trainer` is told of the rows."""

    rows: Any
    format: str | None  # None: told from the columns
    formatting_func: FormattingFunc | None
    train_on: Literal["assistant", "everything"]


def reading_of(source: Any, asked: Arguments, formatting_func: FormattingFunc | None) -> Reading:
    """How `source` is read: by `formatting_func`, else by its text column, else as conversations or answers.

    Conversations are trained whole unless `assistant_only_loss` is on, answers to a prompt alone unless
    `completion_only_loss` is off.
    """
    rows = source if asked.config.streaming else read_rows(source)
    if formatting_func is not None:
        return Reading(rows, None, one_by_one(formatting_func), _trained(asked, is_answered=False))
    columns = {*(() if asked.config.streaming else rows[0])}
    if asked.text_field in columns and asked.text_field != "text":
        return Reading(rows, "text", _column(asked.text_field), "everything")
    if "text" in columns and asked.text_field == "text":
        return Reading(rows, "text", None, "everything")
    if columns and asked.text_field != "text" and not columns & READ_WITHOUT:
        raise ValueError(
            f"dataset_text_field is {asked.text_field!r}, and the rows have no such column; theirs are "
            f"{', '.join(sorted(columns))}."
        )
    return Reading(rows, None, None, _trained(asked, is_answered={"prompt", "completion"} <= columns))


def one_by_one(formatting_func: FormattingFunc) -> FormattingFunc:
    """A function of one row, from one of a row or, as Unsloth's notebooks have it, of a dict of columns.

    The latter gives a list of texts, one for each row: what gives one text for columns of one row is such.
    """

    def format_row(row: Row) -> Any:
        try:
            made = formatting_func({name: [value] for name, value in row.items()})
        except FAILURES:
            made = None
        if not _is_one_text(made):
            made = formatting_func(row)
        return made[0] if _is_one_text(made) else made

    return format_row


def row_as_trained(row: Any) -> dict[str, list[int]]:
    """An encoded row as TRL has it: `input_ids`, and `labels` of which -100 is not trained."""
    ids = row.tokens.tolist()
    labels = [token if trained else -100 for token, trained in zip(ids, row.loss_mask.tolist(), strict=True)]
    return {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}


class EncodedRows(Sequence[dict[str, list[int]]]):
    """The rows of a trainer as TRL's trainer shows them, each made when it is asked for."""

    def __init__(self, rows: Sequence[Any]):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [row_as_trained(row) for row in self._rows[place]]
        return row_as_trained(self._rows[place])


def _trained(asked: Arguments, *, is_answered: bool) -> Literal["assistant", "everything"]:
    if "train_on" in asked.given:
        return asked.config.train_on  # pyright: ignore[reportReturnType] - whatever the kit has
    answers_alone = asked.assistant_only or (asked.completion_only is not False and is_answered)
    return "assistant" if answers_alone else "everything"


def _column(name: str) -> FormattingFunc:
    return lambda row: row[name]


def _is_one_text(made: Any) -> TypeGuard[Sequence[str]]:
    return isinstance(made, list | tuple) and len(made) == 1 and isinstance(made[0], str)
