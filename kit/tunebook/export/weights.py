"""The weights a model would have with its adapters merged in, one tensor at a time, the model itself left alone."""

from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear
from mlx_lm.tuner.dora import DoRALinear
from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear, LoRASwitchLinear

_ADAPTERS = (LoRALinear, LoRASwitchLinear, LoRAEmbedding, DoRALinear)
_QUANTIZED = (nn.QuantizedLinear, nn.QuantizedEmbedding, QuantizedSwitchLinear)


def merged_weights(module: nn.Module, dtype: mx.Dtype) -> Iterator[tuple[str, mx.array]]:
    """(name, array) of every weight, adapters merged and quantized layers opened up, floats as `dtype`.

    Arrays are lazy: nothing is computed, and no memory taken, until one is evaluated.
    """
    for path, layer in module.named_modules():
        if isinstance(layer, _ADAPTERS):
            owned = layer.fuse(dequantize=True)
        elif _inside_adapter(module, path):
            continue
        else:
            owned = layer
        for name, array in _own_arrays(owned):
            floats = mx.issubdtype(array.dtype, mx.floating)
            yield ".".join(filter(None, (path, name))), array.astype(dtype) if floats else array


def _inside_adapter(module: nn.Module, path: str) -> bool:
    """Whether `path` is the base layer an adapter wraps, or its dropout: both are part of what was merged."""
    parent, _, _ = path.rpartition(".")
    return bool(parent) and isinstance(_at(module, parent), _ADAPTERS)


def _at(module: nn.Module, path: str) -> nn.Module:
    for name in path.split("."):
        module = module[int(name)] if isinstance(module, list) else module[name]
    return module


def _own_arrays(layer: nn.Module) -> Iterator[tuple[str, mx.array]]:
    """The arrays a layer holds itself; those of its children come with the children."""
    if isinstance(layer, _QUANTIZED):
        yield (
            "weight",
            mx.dequantize(
                layer["weight"], layer["scales"], layer.get("biases"), layer.group_size, layer.bits, mode=layer.mode
            ),
        )
        if "bias" in layer:
            yield "bias", layer["bias"]
        return
    for name, value in layer.items():
        if isinstance(value, mx.array) and not name.startswith("_"):
            yield name, value
