"""Whether a model has the same numbers for rows whose beginnings were read once: tried on a probe before it is done."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...data.encoded import Encoded
from ..tensors import number
from .base import Family
from .batched import ROUNDING, ROUNDING_OF_16_BITS
from .beginnings import Before, carried_state

# Tokens of a beginning, of two that go on from it, and of three rows; and behind which of the two each row stands.
_FIRST, _SECOND, _ROWS, _BEHIND = 5, (11, 4), (4, 7, 2), (1, 0, 0)


def why_not_begun(family: Family, module: nn.Module) -> str | None:
    """Why what rows begin with is read again with each, as the end of a sentence; None where once is enough."""
    if kind := carried_state(module):
        return f"its layers carry state of their own from token to token ({kind}), and only attention is branched"
    first, *others = _texts(family.tables.known, (_FIRST, *_SECOND, *_ROWS))
    seconds, rows = others[: len(_SECOND)], others[len(_SECOND) :]
    try:
        before = Before(1).then(family.read(module, [first], Before(1))).of([0] * len(seconds))
        before = before.then(family.read(module, seconds, before)).of(_BEHIND)
        found = _log_probs(family, module, rows, before)  # (rows, T-1, V)
    except (ValueError, TypeError) as error:  # a mask or positions of several rows, as where rows are answered together
        return f"its own code fails with rows that go on at unequal places ({error})"
    for row, second, ours in zip(rows, _BEHIND, found, strict=True):
        behind = len(row) - 1
        theirs = _log_probs(family, module, [np.concatenate([first, seconds[second], row])])[0, -behind:]
        off = number(mx.abs(theirs - ours[:behind]).max())
        if not off <= (ROUNDING if ours.dtype == mx.float32 else ROUNDING_OF_16_BITS):
            return f"its layers do not go on as they would (a log-probability is off by {off:.2g})"
    return None


def _texts(known: int, lengths: tuple[int, ...]) -> list[np.ndarray]:
    """(T,) ids below `known` for each length."""
    ends = np.cumsum(lengths)
    return np.split(37 * np.arange(1, 1 + ends[-1], dtype=np.int32) % known, ends[:-1])


def _log_probs(family: Family, module: nn.Module, rows: list[np.ndarray], before: Before | None = None) -> mx.array:
    """(B, T-1, V) of what each token is followed by."""
    made = [Encoded(tokens=row, loss_mask=np.ones(len(row), bool)) for row in rows]
    batch = family.collate(made, max(map(len, rows)))
    if before is not None:
        batch["before"] = before
    return nn.log_softmax(family.head(module, family.hidden(module, batch)))
