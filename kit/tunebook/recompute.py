"""Gradient checkpointing: a decoder layer keeps its input alone, and is computed again when its gradient is wanted.

Chen et al. 2016, arXiv 1604.06174. It costs one more forward pass and saves the activations inside the layers. Only
the layer objects given up for the time are changed, never their class, so other models and later runs stay as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from .tensors import number


@contextmanager
def recomputed_layers(module: nn.Module) -> Iterator[None]:
    """Have every entry of `module.layers` recompute its activations in the backward pass, until the block ends.

    Layers in eval mode are computed as ever. Names and values of parameters stay as they are.
    """
    layers = list(cast("list[nn.Module]", module.layers))
    kinds = [type(layer) for layer in layers]
    recomputing = {kind: _recomputing(kind) for kind in kinds}
    for layer, kind in zip(layers, kinds, strict=True):
        layer.__class__ = recomputing[kind]
    try:
        yield
    finally:
        for layer, kind in zip(layers, kinds, strict=True):
            layer.__class__ = kind


def _recomputing(kind: type[nn.Module]) -> type[nn.Module]:
    """A subclass of `kind` that wraps its call in mx.checkpoint."""

    def call(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not layer.training:
            return kind.__call__(layer, *args, **kwargs)
        parameters = layer.trainable_parameters()
        # The second pass must drop what the first one dropped, so both draw from a state of the layer's own.
        seed = int(number(mx.random.randint(0, 2**31 - 1)))

        def forward(traced: Any, *args: Any, **kwargs: Any) -> Any:
            mx.random.seed(seed)
            layer.update(traced)
            try:
                return kind.__call__(layer, *args, **kwargs)
            finally:
                layer.update(parameters)

        return mx.checkpoint(forward)(parameters, *args, **kwargs)

    return type(f"Recomputed{kind.__name__}", (kind,), {"__call__": call})
