"""Next-token loss: the sum of nats over the supervised tokens of a batch, and nothing that was not needed for it.

Only the hidden states that predict a supervised token go through the output head, a few at a time: logits take four
bytes for every entry of the vocabulary, and with a large one they and their gradient would be most of the memory of a
step (`bench/memory.py`). Dividing is left to the caller: sums add up over micro-batches, means do not.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, cast, final

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..data.encoded import Batch
from ..fast.exponentials import exponential, summed
from ..fast.forms import Forms, forms_for
from ..models.families.base import Family
from ..models.tensors import called_with, flat, number
from .base import Objective, RowsKind, Summed, Sums


@final
class NextToken(Objective):
    """The loss of the next token, in nats. It has no settings and reports nothing else."""

    rows: ClassVar[RowsKind] = "texts"

    def positions(self, batch: Batch) -> mx.array:
        """Where a supervised token is predicted."""
        return supervised_positions(batch)

    def units(self, batch: Batch) -> int:
        """Supervised tokens."""
        return int(number(batch["loss_mask"][:, 1:].sum()))

    def summed(self, family: Family, forms: Forms | None = None) -> Callable[..., Summed]:
        """`summed_loss`, with no sums beside it."""
        loss = summed_loss(family, forms)
        return lambda *arguments: (loss(*arguments), {})

    def measured(
        self, family: Family, module: nn.Module, batch: Batch, forms: Forms | None = None
    ) -> tuple[float, Sums]:
        """`measured_nats`."""
        return measured_nats(family, module, batch, supervised_positions(batch), forms), {}


def supervised_positions(batch: Batch) -> mx.array:
    """(N,) int32: where in the flattened (B * (T-1)) predictions a supervised token is predicted."""
    mask = np.array(batch["loss_mask"])[:, 1:]
    return mx.array(np.flatnonzero(mask).astype(np.int32))


def summed_loss(family: Family, forms: Forms | None = None) -> Callable[..., mx.array]:
    """`loss(module, batch, positions, weights=None) -> nats`, a float32 scalar: the sum over `positions`.

    `positions` (N,) hold at least one; `weights` (N,) float32 are what each counts, None all of them 1. The gradients
    for the states and for what is trained of the head are found together with the loss, piece by piece, unless the
    model does not show where its head begins. No `forms` are those for this machine.
    """
    forms = forms or forms_for()

    def loss(module: nn.Module, batch: Batch, positions: mx.array, weights: mx.array | None = None) -> mx.array:
        hidden, targets = predicting_states(family, module, batch, positions)
        weights = mx.ones(targets.shape) if weights is None else weights
        layer = family.head_layer(module)
        rows = rows_at_once(family, module, hidden, forms)
        if layer is None or rows >= targets.size:
            return (_nats(family, module, hidden, targets, forms) * weights).sum()

        def nats(states: mx.array, their_targets: mx.array) -> mx.array:
            return _nats(family, module, states, their_targets, forms)

        return _in_pieces(nats, layer, hidden, targets, weights, rows)

    return loss


def measured_nats(
    family: Family, module: nn.Module, batch: Batch, positions: mx.array, forms: Forms | None = None
) -> float:
    """The same sum where no gradient is wanted."""
    forms = forms or forms_for()
    hidden, targets = predicting_states(family, module, batch, positions)
    rows = rows_at_once(family, module, hidden, forms)
    return sum(
        number(_nats(family, module, hidden[piece], targets[piece], forms).sum())
        for piece in pieces(targets.size, rows)
    )


def rows_at_once(family: Family, module: nn.Module, hidden: mx.array, forms: Forms) -> int:
    """How many of the states (N, D) are sent through the head together; nothing is computed to tell."""
    logits = family.head(module, hidden[:1])
    itemsize = mx.float32.size if forms.losses == "written out" else logits.itemsize
    return max(forms.logit_rows, forms.logit_bytes // (itemsize * logits.shape[-1]))


def cross_entropy(logits: mx.array, targets: mx.array, forms: Forms) -> mx.array:
    """(N,) float32 losses of logits (N, V)."""
    if forms.losses == "fused":
        return mx.fast.cross_entropy(logits, targets)  # it sums in float32 itself
    losses, _ = cast(tuple[mx.array, mx.array], _with_gradients(logits.astype(mx.float32), targets))
    return losses


@mx.custom_function
def _with_gradients(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """((N,) losses, (N, V) their gradients): softmax minus one at the target.

    MLX's CPU build takes most of its time for exponentials here, and would make each of them twice: once for the loss
    and once for its gradient.
    """
    top = logits.max(axis=-1, keepdims=True)
    heights = exponential(logits - top)
    total = summed(heights)
    losses = mx.log(total) + top - mx.take_along_axis(logits, targets[:, None], axis=-1)
    softmax = heights / total
    return losses.squeeze(-1), softmax.at[mx.arange(targets.size), targets].add(-1.0)


@_with_gradients.vjp
def _backward(
    primals: Sequence[mx.array], cotangents: Sequence[mx.array], outputs: Sequence[mx.array]
) -> tuple[mx.array, mx.array]:
    return cotangents[0][:, None] * outputs[1], mx.zeros_like(primals[1])


def predicting_states(
    family: Family, module: nn.Module, batch: Batch, positions: mx.array
) -> tuple[mx.array, mx.array]:
    """((N, D) states at `positions`, (N,) the tokens that are predicted from them)."""
    hidden = family.hidden(module, batch)  # (B, T-1, D)
    return hidden.reshape(-1, hidden.shape[-1])[positions], batch["tokens"][:, 1:].reshape(-1)[positions]


def _nats(family: Family, module: nn.Module, hidden: mx.array, targets: mx.array, forms: Forms) -> mx.array:
    """(N,) float32 losses of states (N, D)."""
    return cross_entropy(family.head(module, hidden), targets, forms)


def _in_pieces(
    nats: Callable[[mx.array, mx.array], mx.array],
    layer: nn.Module,
    hidden: mx.array,
    targets: mx.array,
    weights: mx.array,
    rows: int,
) -> mx.array:
    """The sum of `nats` of states (N, D), `rows` of them at a time; with gradients for them and for the head's `layer`.

    Each piece depends on the gradient of the one before, or MLX would make the logits of all of them first. Nothing is
    evaluated here: the arrays that the states were made of would then all be held at once, three times as much as where
    a step is evaluated as a whole.
    """
    parameters = flat(layer.trainable_parameters())

    def piece_nats(states: mx.array, trained: list[mx.array], piece: slice) -> mx.array:
        values = dict(zip(parameters, trained, strict=True))
        return (called_with(layer, values, lambda: nats(states, targets[piece])) * weights[piece]).sum()

    @mx.custom_function
    def together(inputs: list[mx.array]) -> list[mx.array]:
        hidden, *trained = inputs
        total, of_states, sums = mx.array(0.0), [], [mx.zeros(array.shape) for array in trained]
        for piece in pieces(targets.size, rows):
            states = hidden[piece]
            if of_states:
                (states,) = mx.depends([states], [total, of_states[-1], *sums])
            found, (for_states, for_trained) = mx.value_and_grad(piece_nats, argnums=(0, 1))(states, trained, piece)
            total = total + found
            of_states.append(for_states)
            sums = [so_far + gradient for so_far, gradient in zip(sums, for_trained, strict=True)]
        return [total, mx.concatenate(of_states), *sums]

    @together.vjp
    def backward(inputs: list[mx.array], cotangents: Sequence[mx.array], outputs: Sequence[mx.array]) -> list[mx.array]:
        return [
            (cotangents[0] * gradient).astype(given.dtype) for given, gradient in zip(inputs, outputs[1:], strict=True)
        ]

    return cast(list[mx.array], together([hidden, *parameters.values()]))[0]


def pieces(count: int, rows: int) -> Iterator[slice]:
    """`count` in as few slices of at most `rows` as can be, all about as long."""
    many = math.ceil(count / rows)
    return (slice(count * piece // many, count * (piece + 1) // many) for piece in range(many))
