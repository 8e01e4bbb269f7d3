"""Rows -> one batch as wide as they need, with or without the rows that turn out to be unreadable."""

from collections.abc import Sequence

from .batches import padded_width
from .families.base import Batch, Encoded, Family, Unreadable


def collated(
    family: Family, rows: Sequence[Encoded], max_seq_length: int, *, skip_unreadable: bool = False
) -> tuple[Batch, list[str]]:
    """(the batch, a sentence about each row that was left out of it).

    Raises Unreadable for a row whose images cannot be opened, unless such rows are to be left out; then ValueError when
    none is left.
    """
    rest, left_out = list(rows), []
    while rest:
        width = padded_width(max(len(row.tokens) for row in rest), max_seq_length)
        try:
            return family.collate(rest, width), left_out
        except Unreadable as error:
            if not skip_unreadable:
                raise
            left_out.append(str(error))
            rest = [row for row in rest if row.number != error.number]
    raise ValueError(
        f"All {len(rows)} rows of a batch were left out, the first because: {left_out[0]} Mend the images, or make "
        "batches larger."
    )
