"""Depthwise convolutions over a few tokens, as sums of shifted products: what MLX's CPU build does slowly otherwise.

Hybrid models mix each channel over the last three or four tokens. As one convolution that takes the CPU build three
times as long, forward and backward, and more than the delta rule behind it.
"""

from contextlib import AbstractContextManager

import mlx.core as mx
import mlx.nn as nn

from ..models.layer_calls import Call, replaced_calls

MOST_TAPS = 8  # each is a product and a sum of the whole input


def shifted_convolutions(module: nn.Module) -> AbstractContextManager[None]:
    """Have the short depthwise convolutions of `module` take float32 inputs as shifted products, until the block ends.

    Short are those without padding, stride or dilation over at most `MOST_TAPS` tokens; others stay as they are.
    """
    return replaced_calls([part for part in module.modules() if _is_short(part)], _shifting)


def _is_short(part: nn.Module) -> bool:
    if type(part) is not nn.Conv1d:
        return False
    channels, taps, depth = part.weight.shape
    plain = (part.stride, part.padding, part.dilation) == (1, 0, 1)
    return plain and depth == 1 and part.groups == channels and taps <= MOST_TAPS


def _shifting(plain: Call) -> Call:
    def call(layer: nn.Conv1d, x: mx.array) -> mx.array:  # (B, T, C) -> (B, T - taps + 1, C)
        if x.dtype != mx.float32:  # a convolution sums in float32, and rounds once
            return plain(layer, x)
        taps = layer.weight.shape[1]
        length = x.shape[1] - taps + 1
        total = x[:, :length] * layer.weight[:, 0, 0]
        for tap in range(1, taps):
            total = total + x[:, tap : tap + length] * layer.weight[:, tap, 0]
        return total + layer.bias if "bias" in layer else total

    return call
