"""The bytes that a forward and backward pass of one row takes at its peak, with only a part of a model at work.

A model, the part and a length go in, or a row where its content matters; else the row is made up. Layers that are not
looked at pass on what they get (`models/layer_calls.py`), so a pass costs a few layers and no more. No gradient of a
layer's matrices is made: a scale of their input is trained in their place, which needs the same input to be kept and
leaves the gradients' own bytes out. Nothing of the model is changed; MLX's peak memory is counted anew, and its random
state drawn from if there is dropout.

MLX allocates for operations ahead of the one it computes, as many as its threads get to: the peak of a pass as it runs
is of what else the machine is at. `in_turn` has each operation wait for the one before, and its bytes are all but the
same each time; two of those may be subtracted. Of passes as they run the highest of a few is taken.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..data.encoded import Encoded
from ..models.families.base import Family
from ..models.layer_calls import Call, Wrap, replaced_calls
from ..models.layers import layers_of, trained_matrices, trained_outside
from ..models.tensors import called_with, flat
from ..objectives.next_token import summed_loss, supervised_positions

Arrays = dict[str, mx.array]

PASSES = 6  # as they run, at most
ENOUGH_SECONDS = 0.06  # of them: in a longer pass MLX gets as far ahead as it goes, at some time


def layers_peak(
    family: Family, module: nn.Module, at_work: Sequence[nn.Module], length: int, *, in_turn: bool = False
) -> int:
    """Bytes that a forward and backward pass through the layers `at_work` takes, for one row of `length` tokens."""
    within = {id(value) for layer in at_work for value in flat(layer.trainable_parameters()).values()}
    trained = {
        name: value
        for name, value in flat(module.trainable_parameters()).items()
        if id(value) in within and value.ndim < 2
    }
    matrices = [part for layer in at_work for part in layer.modules() if trained_matrices(part)]
    idle = [layer for layer in layers_of(module) if all(layer is not other for other in at_work)]

    def states(scales: list[mx.array]) -> mx.array:
        batch = family.collate([made_up_row(length + 1, supervised=length)], length + 1)
        with replaced_calls(matrices, _scaling(matrices, scales)), replaced_calls(idle, _passing_on):
            return family.hidden(module, batch).astype(mx.float32).sum()

    return _peak(module, trained, states, len(matrices), in_turn=in_turn)


def loss_peak(family: Family, module: nn.Module, positions: int) -> int:
    """Bytes that the loss of `positions` and its gradient for the states take, every layer passing on what it gets."""
    first, *others = layers_of(module)
    width = positions + 1
    batch = family.collate([made_up_row(width, supervised=positions)], width)

    def nats(scales: list[mx.array]) -> mx.array:
        with replaced_calls([first], _passing_on_scaled(scales[0])), replaced_calls(others, _passing_on):
            return summed_loss(family)(module, batch, supervised_positions(batch))

    return _peak(module, trained_outside(module), nats, 1)


def outside_peak(family: Family, module: nn.Module, rows: Sequence[Encoded]) -> int:
    """Bytes that what is outside of the layers takes for `rows`, with the gradient of what is trained there."""
    width = max(len(row.tokens) for row in rows)

    def states(_: list[mx.array]) -> mx.array:
        with replaced_calls(layers_of(module), _passing_on):
            return family.hidden(module, family.collate(rows, width)).astype(mx.float32).sum()

    return _peak(module, trained_outside(module), states, 0)


def made_up_row(tokens: int, *, supervised: int) -> Encoded:
    """A row of so many `tokens`, of which the last `supervised` are supervised."""
    return Encoded(tokens=np.arange(tokens, dtype=np.int32) % 7 + 1, loss_mask=np.arange(tokens) >= tokens - supervised)


def _peak(
    module: nn.Module,
    trained: Arrays,
    objective: Callable[[list[mx.array]], mx.array],
    scales: int,
    *,
    in_turn: bool = False,
) -> int:
    """Bytes beyond what is held now that the gradient of `objective` takes, for `trained` and so many scales of 1."""

    def whole(scales: list[mx.array], trained: Arrays) -> mx.array:
        return called_with(module, trained, lambda: objective(scales))

    def once() -> int:
        mx.synchronize()  # what came before gives its arrays back a little after it is done
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        ones = [mx.array(1.0) for _ in range(scales)]
        mx.eval(mx.value_and_grad(whole, argnums=(0, 1))(ones, trained) if ones or trained else whole([], {}))
        return mx.get_peak_memory() - before

    was_training = module.training
    module.train()
    try:
        return _in_turn(once) if in_turn else _highest(once)
    finally:
        module.train(was_training)
        mx.clear_cache()


def _in_turn(once: Callable[[], int]) -> int:
    """One pass in which MLX (0.32, `eval_impl`) goes on to an operation when no other is left: it is over its limit."""
    limit = mx.set_memory_limit(0)
    try:
        return once()
    finally:
        mx.set_memory_limit(limit)


def _highest(once: Callable[[], int]) -> int:
    """The most of a few passes: of those in which MLX got furthest ahead, as it does where nothing else is at work."""
    began, peaks = time.perf_counter(), [once()]
    while len(peaks) < PASSES and time.perf_counter() - began < ENOUGH_SECONDS:
        peaks.append(once())
    return max(peaks)


def _scaling(parts: Sequence[nn.Module], scales: Sequence[mx.array]) -> Wrap:
    """The input of each of `parts` times the scale in its place."""
    scale_of = {id(part): scale for part, scale in zip(parts, scales, strict=True)}

    def wrap(plain: Call) -> Call:
        def call(part: nn.Module, x: mx.array, *args: Any, **kwargs: Any) -> Any:
            return plain(part, x * scale_of[id(part)].astype(x.dtype), *args, **kwargs)

        return call

    return wrap


def _passing_on(_: Call) -> Call:
    return lambda _layer, x, *_args, **_kwargs: x


def _passing_on_scaled(scale: mx.array) -> Wrap:
    return lambda _plain: lambda _layer, x, *_args, **_kwargs: x * scale.astype(x.dtype)
