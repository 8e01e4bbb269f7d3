"""A part of a run's first micro-batch to try passes on: rows in, few enough of their tokens out."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...data.encoded import Encoded


def part_of(rows: Sequence[Encoded], tokens: int) -> list[Encoded]:
    """The first of `rows`, `tokens` together or all there are; at least one row, and none cut before its images end.

    A row that was cut off before its supervised tokens has all of them supervised: a pass needs some to predict.
    """
    taken, left = [], tokens
    for row in rows:
        if taken and left < 2:
            break
        taken.append(_cut(row, max(left, 2)))
        left -= len(taken[-1].tokens)
    return taken


def _cut(row: Encoded, tokens: int) -> Encoded:
    end = max(tokens, row.images_end + 2)
    if end >= len(row.tokens):
        return row
    mask = row.loss_mask[:end]
    return replace(
        row,
        tokens=row.tokens[:end],
        loss_mask=mask if mask[1:].any() or row.images else np.ones_like(mask),
        segments=None if row.segments is None else row.segments[:end],
    )
