"""Rows -> one batch as wide as they need, with or without the rows that turn out to be unreadable.

Opening and scaling images takes a processor core that the model may leave idle, so a batch that is known to come can be
made ahead, in a thread of its own.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import final

import mlx.core as mx

from ..data.encoded import Batch, Encoded, Unreadable, sequences_of
from ..models.families.base import Family
from .answers import mismatched
from .batch_order import padded_width

Collated = tuple[Batch, list[str]]  # the batch, a sentence about each row that was left out of it


@final
class Collator:
    """Makes the batches of one run, each when it is asked for or, if it is expected, while another is computed."""

    def __init__(self, family: Family, max_seq_length: int, *, skip_unreadable: bool = False):
        self._family, self._max_seq_length, self._skip_unreadable = family, max_seq_length, skip_unreadable
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tunebook-images")
        self._expected: tuple[Sequence[Encoded], Future[Collated]] | None = None

    def expect(self, rows: Sequence[Encoded]) -> None:
        """Begin with the batch of `rows`, if they have images; one that was expected before is forgotten."""
        has_images = any(row.images for row in rows)
        self._expected = (rows, self._worker.submit(self._made, rows)) if has_images else None

    def batch(self, rows: Sequence[Encoded]) -> Collated:
        """The batch of `rows`; raises as `collated`."""
        if self._expected is None or self._expected[0] is not rows:
            return self._made(rows)
        coming, self._expected = self._expected[1], None
        return coming.result()

    def _made(self, rows: Sequence[Encoded]) -> Collated:
        batch, left_out = collated(self._family, rows, self._max_seq_length, skip_unreadable=self._skip_unreadable)
        mx.eval(batch)  # MLX (0.32) evaluates an array on no other thread than the one that made it
        return batch, left_out


def collated(
    family: Family, rows: Sequence[Encoded], max_seq_length: int, *, skip_unreadable: bool = False
) -> Collated:
    """The batch of `rows` and what was left out of it.

    Raises Unreadable for a row whose images cannot be opened, unless such rows are to be left out; then ValueError when
    none is left.
    """
    rest, left_out = list(rows), []
    while rest:
        width = padded_width(max(row.longest for row in rest), max_seq_length)
        try:
            batch = family.collate(sequences_of(rest), width)
            return batch | _of_answers(family, rest, batch, max_seq_length), left_out
        except Unreadable as error:
            if not skip_unreadable:
                raise
            left_out.append(str(error))
            rest = [row for row in rest if row.number != error.number]
    raise ValueError(
        f"All {len(rows)} rows of a batch were left out, the first because: {left_out[0]} Mend the images, or make "
        "batches larger."
    )


def _of_answers(family: Family, rows: Sequence[Encoded], batch: Batch, max_seq_length: int) -> Batch:
    """What an objective over answers reads of the `batch` of `rows` beside its tokens (`objectives/__init__.py`)."""
    if rows[0].second:
        return {"lengths": mx.array([len(sequence.tokens) for sequence in sequences_of(rows)], mx.int32)}
    if rows[0].label is not None:
        others = mismatched(rows, max_seq_length)
        width = padded_width(max(len(row.tokens) for row in others), max_seq_length)
        labels = mx.array([bool(row.label) for row in rows])
        return {"labels": labels, "mismatched": family.collate(others, width, beside=batch)}
    return {}
