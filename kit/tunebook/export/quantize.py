"""Merged weights in fewer bits, by MLX's quantizer and under mlx-lm's names, and what that costs an adapter.

Stock `mlx_lm.load` opens the result; transformers and llama.cpp do not read MLX's quantization.
"""

import contextlib
import io
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.utils import quantize_model

from ..models.tensors import number, random_state_kept
from .weights import Adapter, adapters_in

AT_ONCE = 1 << 15  # numbers quantized together where MLX has no kernel for it


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Names and values as in MLX's `nn.quantize`."""

    mode: str
    bits: int
    group_size: int

    def __str__(self):
        return f"{self.bits} bits ({self.mode}, groups of {self.group_size})"


QUANTIZATIONS = {
    "merged_8bit": Quantization(mode="affine", bits=8, group_size=64),
    "merged_4bit": Quantization(mode="affine", bits=4, group_size=64),
    "merged_mxfp4": Quantization(mode="mxfp4", bits=4, group_size=32),
}


def quantize(
    module: nn.Module, config: dict[str, Any], how: Quantization, only: Callable[[str, nn.Module], bool] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """`module`, changed in place, and its config, as `mlx_lm.convert -q` would have them; arrays are lazy.

    Layers whose rows do not divide into groups stay as they are, and those that `only` is false for. Raises ValueError
    when that is all of them.
    """
    weights = {path: layer["weight"] for path, layer in module.named_modules() if "weight" in layer}
    with random_state_kept(), contextlib.redirect_stdout(io.StringIO()):  # it prints the bits per weight
        quantized, config = quantize_model(module, config, **asdict(how), quant_predicate=only)
    in_bits = [(path, layer) for path, layer in quantized.named_modules() if "scales" in layer]
    for path, layer in in_bits:
        if layer.mode != "affine":
            layer.weight, layer.scales = _by_rows(weights[path], layer.mode, layer.bits, layer.group_size)
    if not in_bits:
        raise ValueError(
            f"No layer of this model has rows that divide into groups of {how.group_size}, so there is nothing to "
            "quantize; use save_method='merged_16bit'."
        )
    return quantized, config


def adapters_lost(module: nn.Module, how: Quantization) -> float | None:
    """What requantizing does to the change the adapters make: |Q(W + D) - (W + D)| / |D|, all layers together.

    0 keeps the change to the last bit, 1 is an error as large as the change itself. Norms are Frobenius'. None where
    no adapter sits on a quantized layer: there the base was never in few bits, and its own rounding is all there is.
    """
    error = change = 0.0
    with random_state_kept():
        for _, layer in adapters_in(module):
            base = _base_weight(layer)
            merged = layer.fuse(dequantize=True)["weight"].astype(mx.float32)
            if base is None or merged.shape[-1] % how.group_size:
                continue
            packed = mx.quantize(merged, **asdict(how)) if how.mode == "affine" else _by_rows(merged, **asdict(how))
            weight, scales, *biases = packed
            back = mx.dequantize(weight, scales, *biases, group_size=how.group_size, bits=how.bits, mode=how.mode)
            error += number(mx.square(back - merged).sum())
            change += number(mx.square(merged - base).sum())
    return math.sqrt(error / change) if change else None


def _by_rows(weight: mx.array, mode: str, bits: int, group_size: int) -> list[mx.array]:
    """(weight, scales) as `mx.quantize` gives them, lazily, a few rows after the other.

    MLX 0.32 has no kernel for these modes on the CPU, and what stands in for it takes 76 bytes of memory for every
    number it is given at once.
    """
    rows = weight.reshape(-1, weight.shape[-1])
    step = max(1, AT_ONCE // rows.shape[-1])
    pieces: list[list[mx.array]] = []
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        if pieces:  # otherwise they may all be computed side by side
            some = mx.depends(some, pieces[-1])
        pieces.append(list(mx.quantize(some, group_size=group_size, bits=bits, mode=mode)))
    whole = [mx.concatenate(list(parts)) for parts in zip(*pieces, strict=True)]
    return [array.reshape(*weight.shape[:-1], array.shape[-1]) for array in whole]


def _base_weight(layer: Adapter) -> mx.array | None:
    """The float32 weight under an adapter whose base is quantized."""
    base = layer["linear"] if "linear" in layer else layer["embedding"]
    if "scales" not in base:
        return None
    weight = mx.dequantize(
        base["weight"], base["scales"], base.get("biases"), base.group_size, base.bits, mode=base.mode
    )
    return weight.astype(mx.float32)
