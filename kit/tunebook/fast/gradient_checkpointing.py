"""Gradient checkpointing: a decoder layer keeps its input alone, and is computed again when its gradient is wanted.

Chen et al. 2016, arXiv 1604.06174. It costs one more forward pass and saves the activations inside the layers. Only
the layer objects given up for the time are changed (`models/layer_calls.py`), so other models and later runs stay as
they are.
"""

from contextlib import AbstractContextManager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..models.layer_calls import Call, replaced_calls
from ..models.layers import has_dropout, layers_of
from ..models.tensors import called_with, flat, number


def recomputed_layers(module: nn.Module) -> AbstractContextManager[None]:
    """Have every entry of `module.layers` recompute its activations in the backward pass, until the block ends.

    Layers in eval mode are computed as ever. Names and values of parameters stay as they are.
    """
    return replaced_calls(layers_of(module), _recomputing)


def _recomputing(plain: Call) -> Call:
    """`plain`, wrapped in mx.checkpoint."""

    def call(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not layer.training:
            return plain(layer, *args, **kwargs)
        parameters = flat(layer.trainable_parameters())
        # The second pass must drop what the first one dropped, so both draw from a state of the layer's own.
        seed = int(number(mx.random.randint(0, 2**31 - 1))) if has_dropout(layer) else None

        def forward(traced: dict[str, mx.array], *given: Any, **named: Any) -> Any:
            if seed is not None:
                mx.random.seed(seed)
            whole = [old if _is_mask(old) else new for old, new in zip(args, given, strict=True)]
            return called_with(layer, traced, lambda: plain(layer, *whole, **{**kwargs, **named}))

        # In the backward pass mx.checkpoint makes all it was given depend on the gradient that comes back. A mask is
        # not given to it: it has no gradient, and its values are read while the pass is put together
        # (`blockwise_attention.py`).
        handed = [None if _is_mask(value) else value for value in args]
        named = {name: value for name, value in kwargs.items() if not _is_mask(value)}
        return mx.checkpoint(forward)(parameters, *handed, **named)

    return call


def _is_mask(value: Any) -> bool:
    return isinstance(value, mx.array) and value.dtype == mx.bool_
