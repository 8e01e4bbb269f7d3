"""The decoder layers of a model: which there are, which of them are alike, and what is trained where.

A module goes in, lists of its own parts and parameters come out; nothing is computed or changed.
"""

from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from .tensors import flat


def layers_of(module: nn.Module) -> list[nn.Module]:
    """The decoder layers; every mlx-lm model names them so."""
    return list(cast("list[nn.Module]", module.layers))


def trained_outside(module: nn.Module) -> dict[str, mx.array]:
    """The trainable parameters that are in no layer, by name."""
    inside = {id(value) for layer in layers_of(module) for value in flat(layer.trainable_parameters()).values()}
    return {name: value for name, value in flat(module.trainable_parameters()).items() if id(value) not in inside}


def kinds_of_layers(module: nn.Module) -> list[list[nn.Module]]:
    """The layers a gradient passes through, those of one class with parameters of the same shapes together."""
    layers = layers_of(module)
    trained = [place for place, layer in enumerate(layers) if flat(layer.trainable_parameters())]
    before = any("embed" in name or "wte" in name for name in trained_outside(module))
    first = 0 if before else min(trained, default=len(layers))
    kinds: dict[Any, list[nn.Module]] = {}
    for layer in layers[first:]:
        shapes = tuple((name, value.shape, value.dtype) for name, value in flat(layer.parameters()).items())
        kinds.setdefault((type(layer), shapes), []).append(layer)
    return list(kinds.values())


def trained_matrices(part: nn.Module) -> dict[str, mx.array]:
    """The trained arrays of two or more dimensions that are `part`'s own, by name."""
    own = part.trainable_parameters().items()
    return {name: value for name, value in own if isinstance(value, mx.array) and value.ndim >= 2}


def has_dropout(module: nn.Module) -> bool:
    """Whether any part of `module` has dropout that is not 0."""
    return any(isinstance(part, nn.Dropout) and part._p_1 < 1.0 for part in module.modules())
