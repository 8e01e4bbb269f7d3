"""Whether a model trains on packed documents as if each stood alone: proven on the model itself before a run."""

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..data.encoded import Encoded
from ..models.families.base import Family
from ..models.tensors import flat, number
from ..objectives.next_token import summed_loss, supervised_positions
from ..tokens.packing import joined
from .passes.proof import tolerance_of

SHORT = (23, 5, 11)  # tokens of the documents that end a long row in the proof


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
        states = family.hidden(module, family.collate(_probes(2), 3))  # only its type is asked for: nothing is computed
        tolerance = tolerance_of(states.dtype)
        return (
            _states_differ(family, module, short, tolerance)
            or _states_differ(family, module, long, tolerance)
            or _gradients_differ(family, module, short, tolerance)
        )
    finally:
        module.train(was_training)


def _states_differ(
    family: Family, module: nn.Module, shared: Sequence[Sequence[Encoded]], tolerance: float
) -> str | None:
    """What is wrong with the states of documents packed into one batch; `shared` are those of each row."""
    rows = [joined(documents) for documents in shared]
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
    packed = gradients([joined(row) for row in shared])
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
