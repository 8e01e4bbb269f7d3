"""Log-probabilities of a batch's tokens, from the pieces of the next-token loss: no logits are ever whole.

What is done with them afterwards (sums by row, ratios to a reference, a loss) is arithmetic on (B, T-1) numbers and
left to MLX's own gradients. Here is the part of the gradient that would be large: from each log-probability to the
states and to what is trained of the head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import mlx.nn as nn

from ..data.encoded import Batch
from ..fast.exponentials import log_sum_exp
from ..fast.forms import Forms, forms_for
from ..models.families.base import Family
from ..models.tensors import called_with, flat
from .next_token import cross_entropy, pieces, predicting_states, rows_at_once

Values = list[mx.array]  # [(N,) log-probabilities] or [those, (N,) logs of summed squares], float32


@dataclass(frozen=True)
class TokenLogps:
    """What a model says of the tokens of a batch. (B, T-1) float32, zero wherever nothing was asked for."""

    logps: mx.array  # of tokens 1..T-1
    log_squares: mx.array | None = None  # log of the sum of p^2 over the vocabulary, without a gradient


def token_logps(
    family: Family, forms: Forms | None = None, *, squares: bool = False, differentiable: bool = True
) -> Callable[..., TokenLogps]:
    """`logps(module, batch, positions, weights=None)`: those of the tokens predicted at `positions` (N,), N > 0.

    `weights` (N,) float32 are 1, or 0 where a position is padding; None: all are 1. It can be differentiated, compiled
    and recomputed as `summed_loss` can; not `differentiable`, it makes nothing for a gradient. With `squares` it has
    `log_squares` too. No `forms` are those for this machine.
    """
    forms = forms or forms_for()

    def values(module: nn.Module, states: mx.array, targets: mx.array) -> Values:
        logits = family.head(module, states)  # (N, V)
        logps = -cross_entropy(logits, targets, forms)
        if not squares:
            return [logps]
        exact = mx.stop_gradient(logits).astype(mx.float32)
        return [logps, (log_sum_exp(2.0 * exact) - 2.0 * log_sum_exp(exact)).squeeze(-1)]

    def logps(module: nn.Module, batch: Batch, positions: mx.array, weights: mx.array | None = None) -> TokenLogps:
        hidden, targets = predicting_states(family, module, batch, positions)
        layer = family.head_layer(module)
        rows = rows_at_once(family, module, hidden, forms)

        def of(states: mx.array, their_targets: mx.array) -> Values:
            return values(module, states, their_targets)

        if layer is None or rows >= targets.size:
            found = of(hidden, targets)
        elif not differentiable:
            found = _one_after_another(of, hidden, targets, rows)
        elif flat(layer.trainable_parameters()):
            found = _with_trained_head(of, layer, hidden, targets, rows)
        else:
            found = _with_frozen_head(of, hidden, targets, rows)
        return TokenLogps(*(_placed(each, batch, positions, weights) for each in found))

    return logps


def _placed(values: mx.array, batch: Batch, positions: mx.array, weights: mx.array | None) -> mx.array:
    """(N,) numbers at their places in (B, T-1), zeros elsewhere."""
    rows, width = batch["tokens"].shape
    weighed = values if weights is None else values * weights  # what padding adds to its place is nothing
    return mx.zeros(rows * (width - 1)).at[positions].add(weighed).reshape(rows, width - 1)


def _one_after_another(
    values: Callable[[mx.array, mx.array], Values], hidden: mx.array, targets: mx.array, rows: int
) -> Values:
    """`values` of states (N, D), `rows` at a time; each depends on the one before, or all logits would come first."""
    found: list[Values] = []
    for piece in pieces(targets.size, rows):
        states = hidden[piece]
        if found:
            (states,) = mx.depends([states], found[-1])
        found.append(values(states, targets[piece]))
    return _joined(found)


def _with_frozen_head(
    values: Callable[[mx.array, mx.array], Values], hidden: mx.array, targets: mx.array, rows: int
) -> Values:
    """`values` of states (N, D), `rows` at a time, with the gradient of each log-probability for its own state.

    A log-probability depends on one state alone, so its gradient is known before that of the loss: it is found with
    the piece, (N, D) of it are kept, and the loss's gradient only scales it.
    """

    def summed(states: mx.array, their_targets: mx.array) -> tuple[mx.array, Values]:
        found = values(states, their_targets)
        return found[0].sum(), found

    @mx.custom_function
    def together(hidden: mx.array) -> list[mx.array]:
        of_states: list[mx.array] = []
        found: list[Values] = []
        for piece in pieces(targets.size, rows):
            states = hidden[piece]
            if of_states:
                (states,) = mx.depends([states], [*found[-1], of_states[-1]])
            (_, one), for_states = mx.value_and_grad(summed)(states, targets[piece])
            found.append(one)
            of_states.append(for_states)
        return [*_joined(found), mx.concatenate(of_states)]

    @together.vjp
    def backward(hidden: mx.array, cotangents: Sequence[mx.array], outputs: Sequence[mx.array]) -> mx.array:
        return (cotangents[0][:, None] * outputs[-1]).astype(hidden.dtype)

    return cast("list[mx.array]", together(hidden))[:-1]


def _with_trained_head(
    values: Callable[[mx.array, mx.array], Values], layer: nn.Module, hidden: mx.array, targets: mx.array, rows: int
) -> Values:
    """The same where the head's `layer` is trained: its gradient sums over states, each scaled by the loss's own.

    So that is waited for, and each piece is made once more then.
    """
    parameters = flat(layer.trainable_parameters())

    def weighed(states: mx.array, trained: list[mx.array], piece: slice, weights: mx.array) -> mx.array:
        given = dict(zip(parameters, trained, strict=True))
        return (called_with(layer, given, lambda: values(states, targets[piece])[0]) * weights[piece]).sum()

    @mx.custom_function
    def together(inputs: list[mx.array]) -> list[mx.array]:
        hidden, *trained = inputs
        given = dict(zip(parameters, trained, strict=True))
        return called_with(layer, given, lambda: _one_after_another(values, hidden, targets, rows))

    @together.vjp
    def backward(inputs: list[mx.array], cotangents: Sequence[mx.array], _: Sequence[mx.array]) -> list[mx.array]:
        hidden, *trained = inputs
        of_states, sums = [], [mx.zeros(array.shape) for array in trained]
        for piece in pieces(targets.size, rows):
            states = hidden[piece]
            if of_states:
                (states,) = mx.depends([states], [of_states[-1], *sums])
            for_states, for_trained = mx.grad(weighed, argnums=(0, 1))(states, trained, piece, cotangents[0])
            of_states.append(for_states)
            sums = [so_far + gradient for so_far, gradient in zip(sums, for_trained, strict=True)]
        found = [mx.concatenate(of_states), *sums]
        return [gradient.astype(given.dtype) for given, gradient in zip(inputs, found, strict=True)]

    return cast("list[mx.array]", together([hidden, *parameters.values()]))


def _joined(found: Sequence[Values]) -> Values:
    return [mx.concatenate(list(each)) for each in zip(*found, strict=True)]
