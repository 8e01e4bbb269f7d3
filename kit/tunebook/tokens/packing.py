"""Packing: short documents put together in rows of nearly `max_seq_length` tokens, so that little is padding.

Encoded rows go in, fewer and fuller ones come out, and no document is split or lost. Whether a model then trains on
each document as if it stood alone is proven on the model itself (`train/packing_check.py`); how the documents are kept
apart is the family's (`models/families/document_mask.py`).
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from ..data.encoded import Encoded


def pack(rows: Sequence[Encoded], max_seq_length: int, *, seed: int) -> list[Encoded]:
    """`rows` put together into as few rows of at most `max_seq_length` tokens as best-fit decreasing finds.

    That is at most 11/9 of the fewest possible and 4 more (Johnson et al. 1974, doi 10.1137/0203025). Each document
    but its first token, which nothing predicts, stays as supervised as it was. Rows of one length are told apart by
    `seed` alone, so that neighbours in a file do not all meet; the packed rows, and the documents in each, are in the
    order of `rows`. Raises ValueError for rows that are too long or packed already.
    """
    lengths = np.array([len(row.tokens) for row in rows], dtype=np.int64)
    _check(rows, lengths, max_seq_length)
    mixed = np.random.default_rng(seed).permutation(len(rows))
    longest_first = mixed[np.argsort(-lengths[mixed], kind="stable")]
    shared = _best_fit(lengths.tolist(), longest_first.tolist(), max_seq_length)
    return [joined([rows[index] for index in sorted(indices)]) for indices in sorted(shared, key=min)]


def packing_notice(packed: Sequence[Encoded], *, max_seq_length: int) -> str:
    """A sentence about what `pack` did: how many documents are in how many rows, and how full these are."""
    return (
        f"{sum(documents(row) for row in packed)} rows were packed into {len(packed)}, which fill "
        f"{fullness(packed, max_seq_length=max_seq_length):.0%} of {max_seq_length} tokens each."
    )


def fullness(packed: Sequence[Encoded], *, max_seq_length: int) -> float:
    """Tokens over the tokens there would be if every row had `max_seq_length`."""
    return sum(len(row.tokens) for row in packed) / (len(packed) * max_seq_length)


def documents(row: Encoded) -> int:
    """How many documents are in a row."""
    return 1 if row.segments is None else int(row.segments[-1]) + 1


def _check(rows: Sequence[Encoded], lengths: np.ndarray, max_seq_length: int) -> None:
    too_long = np.flatnonzero(lengths > max_seq_length)
    if too_long.size:
        raise ValueError(
            f"{too_long.size} of {len(rows)} rows have more than {max_seq_length} tokens (first: row {too_long[0]}, "
            f"{lengths[too_long[0]]}) and no row can hold them; encode them with this max_seq_length."
        )
    packed = [index for index, row in enumerate(rows) if row.segments is not None]
    if packed:
        raise ValueError(
            f"{len(packed)} of {len(rows)} rows are packed already (first: row {packed[0]}); pack the rows they came "
            "from."
        )


def _best_fit(lengths: list[int], order: list[int], capacity: int) -> list[list[int]]:
    """Documents in `order`, each put where it leaves least room, or else into a row of its own."""
    shared: list[list[int]] = []
    having: dict[int, list[list[int]]] = {}  # free tokens -> the rows that have just so many
    free_sizes: list[int] = []  # its keys in order; at most `capacity` of them, so keeping them so is cheap
    for document in order:
        place = bisect_left(free_sizes, lengths[document])
        if place == len(free_sizes):
            free, row = capacity, []
            shared.append(row)
        else:
            free = free_sizes[place]
            row = having[free].pop()
            if not having[free]:
                del having[free], free_sizes[place]
        row.append(document)
        left = free - lengths[document]
        if left not in having:
            having[left] = []
            insort(free_sizes, left)
        having[left].append(row)
    return shared


def joined(rows: Sequence[Encoded]) -> Encoded:
    """One row of several; one alone stays as it is."""
    if len(rows) == 1:
        return rows[0]
    lengths = [len(row.tokens) for row in rows]
    loss_mask = np.concatenate([row.loss_mask for row in rows])
    loss_mask[np.cumsum([0, *lengths[:-1]])] = False
    return Encoded(
        tokens=np.concatenate([row.tokens for row in rows]),
        loss_mask=loss_mask,
        cut=sum(row.cut for row in rows),
        number=rows[0].number,
        segments=np.repeat(np.arange(len(rows), dtype=np.int32), lengths),
    )
