"""The bytes that a forward and backward pass of one row takes at its peak, with only a part of a model at work.

A model, the part and a length go in, or a row where its content matters; else the row is made up. Layers that are not
looked at pass on what they get (`variants.py`), so a pass costs a few layers and no more. No gradient of a layer's
matrices is made: a scale of their input is trained in their place, which needs the same input to be kept and leaves the
gradients' own bytes out. Nothing of the model is changed; MLX's peak memory is counted anew, and its random state drawn
from if there is dropout.
"""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from .families.base import Encoded, Family
from .layers import layers_of, trained_matrices, trained_outside
from .loss import summed_loss, supervised_positions
from .tensors import flat
from .variants import Call, varied

Arrays = dict[str, mx.array]


def layers_peak(family: Family, module: nn.Module, at_work: Sequence[nn.Module], length: int) -> int:
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
        with varied(matrices, _scaling), varied(idle, _passing_on):
            return _with_scales(matrices, scales, lambda: family.hidden(module, batch)).astype(mx.float32).sum()

    return _peak(module, trained, states, len(matrices))


def loss_peak(family: Family, module: nn.Module, positions: int) -> int:
    """Bytes that the loss of `positions` and its gradient for the states take, every layer passing on what it gets."""
    first, *others = layers_of(module)
    width = positions + 1
    batch = family.collate([made_up_row(width, supervised=positions)], width)

    def nats(scales: list[mx.array]) -> mx.array:
        with varied([first], _passing_on_scaled), varied(others, _passing_on):
            loss = summed_loss(family)
            return _with_scales([first], scales, lambda: loss(module, batch, supervised_positions(batch)))

    return _peak(module, trained_outside(module), nats, 1)


def outside_peak(family: Family, module: nn.Module, row: Encoded) -> int:
    """Bytes that the gradient of what is trained outside of the layers takes for `row`, layers and loss left out."""
    width = len(row.tokens)

    def states(_: list[mx.array]) -> mx.array:
        with varied(layers_of(module), _passing_on):
            return family.hidden(module, family.collate([row], width)).astype(mx.float32).sum()

    return _peak(module, trained_outside(module), states, 0)


def made_up_row(tokens: int, *, supervised: int) -> Encoded:
    """A row of so many `tokens`, of which the last `supervised` are supervised."""
    return Encoded(tokens=np.arange(tokens, dtype=np.int32) % 7 + 1, loss_mask=np.arange(tokens) >= tokens - supervised)


def _peak(module: nn.Module, trained: Arrays, objective: Callable[[list[mx.array]], mx.array], scales: int) -> int:
    """Bytes beyond what is held now that the gradient of `objective` takes, for `trained` and so many scales of 1."""

    def whole(scales: list[mx.array], trained: Arrays) -> mx.array:
        module.update(tree_unflatten(list(trained.items())))
        return objective(scales)

    was_training = module.training
    module.train()
    try:
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        ones = [mx.array(1.0) for _ in range(scales)]
        mx.eval(mx.value_and_grad(whole, argnums=(0, 1))(ones, trained) if ones or trained else whole([], {}))
        return mx.get_peak_memory() - before
    finally:
        module.update(tree_unflatten(list(trained.items())))
        module.train(was_training)
        mx.clear_cache()


# What the calls below look at; they are module-level functions so that a layer's variant is made once (`variants.py`).
_scales: dict[int, mx.array] = {}  # id of a module -> the scale of its input


def _with_scales(parts: Sequence[nn.Module], scales: list[mx.array], call: Callable[[], mx.array]) -> mx.array:
    _scales.update({id(part): scale for part, scale in zip(parts, scales, strict=True)})
    try:
        return call()
    finally:
        _scales.clear()


def _scaling(plain: Call) -> Call:
    def call(part: nn.Module, x: mx.array, *args: Any, **kwargs: Any) -> Any:
        return plain(part, x * _scales[id(part)].astype(x.dtype), *args, **kwargs)

    return call


def _passing_on(_: Call) -> Call:
    return lambda _layer, x, *_args, **_kwargs: x


def _passing_on_scaled(_: Call) -> Call:
    return lambda layer, x, *_args, **_kwargs: x * _scales[id(layer)].astype(x.dtype)
