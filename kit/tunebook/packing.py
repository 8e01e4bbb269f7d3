"""Packing: short documents put together in rows of nearly `max_seq_length` tokens, so that little is padding.

Encoded rows go in, fewer and fuller ones come out, and no document is split or lost. Whether a model then trains on
each document as if it stood alone is proven here, on the model itself; how the documents are kept apart is the
family's (`families/isolation.py`).
"""

import math
from bisect import bisect_left, insort
from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .families.base import Encoded, Family
from .loss import summed_loss, supervised_positions
from .tensors import flat, number

SHORT = (23, 5, 11)  # tokens of the documents that end a long row in the proof


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
    return [_joined([rows[index] for index in sorted(indices)]) for indices in sorted(shared, key=min)]


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


def why_not_packed(family: Family, module: nn.Module, *, max_seq_length: int) -> str | None:
    """Why packed documents would not train as they do alone, to end a sentence with; None when they do.

    Compares the states of documents packed into a row of `max_seq_length` tokens, and into a batch of two short rows,
    with those they have alone; of the short ones the gradients too, if anything is trainable. That takes about as long
    as a step, so ask once for a run.
    """
    # The longest comes first: the others then stand where a row ends, and a model that counts positions shows it.
    long = [_probes(max(29, max_seq_length - sum(SHORT)), *SHORT)]
    short = [_probes(*SHORT), _probes(7, 30)]  # two rows that differ, or a mask of the wrong shape might fit
    was_training = module.training
    module.eval()
    try:
        tolerance = _tolerance(family, module)
        return (
            _states_differ(family, module, short, tolerance)
            or _states_differ(family, module, long, tolerance)
            or _gradients_differ(family, module, short, tolerance)
        )
    finally:
        module.train(was_training)


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


def _joined(rows: Sequence[Encoded]) -> Encoded:
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


def _tolerance(family: Family, module: nn.Module) -> float:
    """How far rounding may take states and gradients, relative: the root of the machine epsilon, and at least 1%.

    That is 9% in bfloat16, where the states of 24 layers of random weights stray by 2.5%. In float32 the angles of far
    positions are what is inexact. Documents that see one another change by a third and more.
    """
    states = family.hidden(module, family.collate(_probes(2), 3))  # only its type is asked for, so nothing is computed
    return max(0.01, math.sqrt(mx.finfo(states.dtype).eps))


def _states_differ(
    family: Family, module: nn.Module, shared: Sequence[Sequence[Encoded]], tolerance: float
) -> str | None:
    """What is wrong with the states of documents packed into one batch; `shared` are those of each row."""
    rows = [_joined(documents) for documents in shared]
    try:
        packed = _states(family, module, rows)  # (B, T, D)
    except (AttributeError, TypeError, ValueError) as error:  # it asks for more than the family's stand-in for a cache
        return str(error)
    changes = []
    for row, states in zip(shared, packed, strict=True):
        start = 0
        for document in row:
            end = start + len(document.tokens)
            alone = _states(family, module, [document])[0]
            change = mx.linalg.norm(states[start:end] - alone, axis=-1) / mx.linalg.norm(alone, axis=-1)  # (T,)
            # The mean: where rounding sends one token to another expert, that token alone changes much.
            changes.append(number(change.mean()))
            start = end
    worst = np.max(changes)  # unlike Python's max, NaN if any is
    if worst <= tolerance:
        return None
    return (
        f"with others in its row the states of a document change by {worst:.1%}; the model counts positions from the "
        "start of the row, or sees past the start of a document"
    )


def _gradients_differ(
    family: Family, module: nn.Module, shared: Sequence[Sequence[Encoded]], tolerance: float
) -> str | None:
    """What is wrong with the gradients of documents packed into one batch; nothing is while nothing is trainable."""
    if not flat(module.trainable_parameters()):
        return None
    loss = nn.value_and_grad(module, summed_loss(family))

    def gradients(rows: Sequence[Encoded]) -> dict[str, mx.array]:
        batch = family.collate(rows, max(len(row.tokens) for row in rows))
        _, found = loss(module, batch, supervised_positions(batch))
        return {name: array.astype(mx.float32) for name, array in flat(found).items()}

    alone = gradients([document for row in shared for document in row])
    packed = gradients([_joined(row) for row in shared])
    difference = _norm([packed[name] - alone[name] for name in alone]) / _norm(list(alone.values()))
    return None if difference <= tolerance else f"the gradients of packed documents differ by {difference:.1%}"


def _probes(*lengths: int) -> list[Encoded]:
    """Documents that are all supervised, of ids that any vocabulary has."""
    random = np.random.default_rng(0)
    return [
        Encoded(tokens=random.integers(1, 64, size=length, dtype=np.int32), loss_mask=np.ones(length, dtype=bool))
        for length in lengths
    ]


def _states(family: Family, module: nn.Module, rows: Sequence[Encoded]) -> mx.array:
    """(B, T, D) float32, from a batch one token wider: the last token of a batch is predicted and not fed in."""
    batch = family.collate(rows, max(len(row.tokens) for row in rows) + 1)
    return family.hidden(module, batch).astype(mx.float32)


def _norm(arrays: Sequence[mx.array]) -> float:
    return number(mx.sqrt(sum((array.square().sum() for array in arrays), start=mx.array(0.0))))
