"""Rows that bring their text as it shall be read, or their token ids."""

from typing import Any

import numpy as np

from ..examples import Example, Tokens
from ..sources import Row
from .columns import BadRow, column
from .reading import Reading

NOT_SUPERVISED = -100  # the label torch's cross entropy ignores


def read_text(row: Row, reading: Reading) -> Example:
    """`{"text": ...}`: raw text, all of it supervised unless response markers say which."""
    return reading.raw(column(row, "text", str))


def read_tokens(row: Row, reading: Reading) -> Example:
    """`{"input_ids": [...], "labels": [...]}`: labels are the ids, or -100 where not supervised; absent: all are.

    Nothing is added. Of `train_on` only "everything" has a meaning here: every id is supervised.
    """
    if reading.response_markers is not None:
        raise ValueError("response_markers are found in text, and these rows are token ids; mark them in 'labels'.")
    ids = integers(row.get("input_ids"), "input_ids")
    if not len(ids):
        raise BadRow("its column 'input_ids' is empty.")
    size = len(reading.tokenizer)
    _check(
        ids, (ids < 0) | (ids >= size), f"'input_ids' holds {{}} at position {{}}; the vocabulary ends at {size - 1}."
    )
    labels = ids if row.get("labels") is None or reading.train_on == "everything" else integers(row["labels"], "labels")
    if len(labels) != len(ids):
        raise BadRow(f"'labels' has {len(labels)} entries and 'input_ids' {len(ids)}.")
    supervised = labels != NOT_SUPERVISED
    _check(labels, supervised & (labels != ids), "'labels' holds {} at position {}; it must be the id there, or -100.")
    if not supervised.any():
        raise BadRow("every one of its labels is -100, so there is nothing to learn; drop it.")
    return Example(parts=(Tokens(tuple(ids.tolist()), tuple(supervised.tolist())),), rendered=True)


def integers(values: Any, name: str) -> np.ndarray:
    """A column of whole numbers as (T,) int64. Raises BadRow for anything else."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # of lists of several lengths
        raise BadRow(f"its column '{name}' is not a flat list of whole numbers.") from error
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise BadRow(f"its column '{name}' is not a flat list of whole numbers.")
    if array.size and int(array.max()) > np.iinfo(np.int64).max:  # of unsigned ones, which int64 would make negative
        raise BadRow(f"its column '{name}' holds {int(array.max())}, which no vocabulary has.")
    return array.astype(np.int64)


def _check(values: np.ndarray, wrong: np.ndarray, complaint: str) -> None:
    """Raise BadRow with the first value that is wrong and its position."""
    if wrong.any():
        position = int(wrong.argmax())
        raise BadRow(complaint.format(values[position], position))
