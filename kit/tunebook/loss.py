"""Next-token loss: the sum of nats over the supervised tokens of a batch, and nothing that was not needed for it.

Only the hidden states that predict a supervised token go through the output head, a few at a time: logits take four
bytes for every entry of the vocabulary, and with a large one they and their gradient would be most of the memory of a
step (`bench/loss.py`). Dividing is left to the caller: sums add up over micro-batches, means do not.
"""

import math
from collections.abc import Callable, Iterator
from typing import cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .families.base import Batch, Family
from .tensors import number

LOGIT_BYTES = 32_000_000  # of logits in float32 that are made at a time
FEWEST_ROWS = 32  # that are sent through the head together; with fewer, reading the head's weights takes the time


def supervised_positions(batch: Batch) -> mx.array:
    """(N,) int32: where in the flattened (B * (T-1)) predictions a supervised token is predicted."""
    mask = np.array(batch["loss_mask"])[:, 1:]
    return mx.array(np.flatnonzero(mask).astype(np.int32))


def summed_loss(family: Family) -> Callable[..., mx.array]:
    """`loss(module, batch, positions, weights=None) -> nats`, a float32 scalar: the sum over `positions`.

    `positions` (N,) hold at least one; `weights` (N,) float32 are what each counts, None all of them 1. Where the head
    is not trained, the gradient for the hidden states is found together with the loss, piece by piece; else all logits
    are made at once.
    """

    def loss(module: nn.Module, batch: Batch, positions: mx.array, weights: mx.array | None = None) -> mx.array:
        hidden, targets = _supervised(family, module, batch, positions)
        rows = rows_at_once(family, module, hidden)
        weights = mx.ones(targets.shape) if weights is None else weights
        if rows < targets.size and family.head_is_fixed(module):
            return _in_pieces(family, module, hidden, targets, weights, rows)
        return (_nats(family, module, hidden, targets) * weights).sum()

    return loss


def measured_nats(family: Family, module: nn.Module, batch: Batch, positions: mx.array) -> float:
    """The same sum where no gradient is wanted."""
    hidden, targets = _supervised(family, module, batch, positions)
    rows = rows_at_once(family, module, hidden)
    return sum(
        number(_nats(family, module, hidden[piece], targets[piece]).sum()) for piece in _pieces(targets.size, rows)
    )


def rows_at_once(family: Family, module: nn.Module, hidden: mx.array) -> int:
    """How many of the states (N, D) are sent through a fixed head together; nothing is computed to tell."""
    vocabulary = family.head(module, hidden[:1]).shape[-1]
    return max(FEWEST_ROWS, LOGIT_BYTES // (4 * vocabulary))


def _supervised(family: Family, module: nn.Module, batch: Batch, positions: mx.array) -> tuple[mx.array, mx.array]:
    """((N, D) states that predict a supervised token, (N,) those tokens)."""
    hidden = family.hidden(module, batch)  # (B, T-1, D)
    return hidden.reshape(-1, hidden.shape[-1])[positions], batch["tokens"][:, 1:].reshape(-1)[positions]


def _nats(family: Family, module: nn.Module, hidden: mx.array, targets: mx.array) -> mx.array:
    """(N,) float32 losses of states (N, D)."""
    logits = family.head(module, hidden).astype(mx.float32)  # (N, V); MLX on the CPU sums in the input's own type
    return nn.losses.cross_entropy(logits, targets)


def _in_pieces(
    family: Family, module: nn.Module, hidden: mx.array, targets: mx.array, weights: mx.array, rows: int
) -> mx.array:
    """The summed loss of states (N, D), `rows` of them at a time, with a gradient for the states alone.

    Each piece depends on the gradient of the one before, or MLX would make the logits of all of them first. Nothing is
    evaluated here: that would keep every array the states were made of, where the whole step keeps a third of them.
    """

    @mx.custom_function
    def together(hidden: mx.array) -> tuple[mx.array, mx.array]:
        nats, slopes, done = mx.array(0.0), [], []
        for piece in _pieces(targets.size, rows):
            (states,) = mx.depends([hidden[piece]], done) if done else (hidden[piece],)
            found, slope = mx.value_and_grad(
                lambda some, piece=piece: (_nats(family, module, some, targets[piece]) * weights[piece]).sum()
            )(states)
            nats = nats + found
            slopes.append(slope)
            done = [nats, slope]
        return nats, mx.concatenate(slopes)

    @together.vjp
    def backward(_: mx.array, cotangents: tuple[mx.array, mx.array], outputs: tuple[mx.array, mx.array]) -> mx.array:
        return (cotangents[0] * outputs[1]).astype(outputs[1].dtype)

    nats, _ = cast("tuple[mx.array, mx.array]", together(hidden))
    return nats


def _pieces(count: int, rows: int) -> Iterator[slice]:
    """`count` in as few stretches of at most `rows` as can be, all about as long."""
    pieces = math.ceil(count / rows)
    return (slice(count * piece // pieces, count * (piece + 1) // pieces) for piece in range(pieces))
