"""A copy of a model with its adapters merged in; the model itself, and MLX's random state, are left alone.

The copy shares the arrays it does not change, and those it does are lazy: no memory is taken until one is evaluated.
"""

import copy
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.tuner.dora import DoRAEmbedding, DoRALinear
from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear, LoRASwitchLinear
from mlx_lm.utils import dequantize_model

from ..models.tensors import random_state_kept

Adapter = LoRALinear | LoRASwitchLinear | LoRAEmbedding | DoRALinear | DoRAEmbedding


def merged_copy(module: nn.Module, dtype: mx.Dtype) -> nn.Module:
    """`module` with every adapter merged, quantized layers opened up and floats as `dtype`."""
    with random_state_kept():
        merged = _copied(module)
        if dtype != mx.bfloat16:  # others keep digits that a sum in bfloat16, or an opened layer, would have lost
            _opened_in_float32(merged)
        fused = [(path, layer.fuse(dequantize=True)) for path, layer in adapters_in(merged)]
        if fused:
            merged.update_modules(tree_unflatten(fused))
        dequantize_model(merged)
        merged.set_dtype(dtype)
    return merged


def _opened_in_float32(module: nn.Module) -> None:
    """Have layers with adapters, and quantized ones, computed in float32 when they are merged or opened up."""
    for _, layer in module.named_modules():
        if isinstance(layer, Adapter) or "scales" in layer:
            layer.set_dtype(mx.float32)


def _copied(value: Any) -> Any:
    """A model, or a part of one, made of new modules around the same arrays.

    `copy.deepcopy` would try to copy MLX's own functions too, which some layers keep (`nn.AvgPool2d` in MLX 0.32).
    """
    if isinstance(value, nn.Module):
        fresh = copy.copy(value)
        fresh._no_grad = set(value._no_grad)
        for name, part in value.items():
            fresh[name] = _copied(part)
        return fresh
    if isinstance(value, list | tuple):
        return type(value)(_copied(part) for part in value)
    return {name: _copied(part) for name, part in value.items()} if isinstance(value, dict) else value


def adapters_in(module: nn.Module) -> list[tuple[str, Adapter]]:
    """(path, layer) of every layer that carries an adapter."""
    return [(path, layer) for path, layer in module.named_modules() if isinstance(layer, Adapter)]
