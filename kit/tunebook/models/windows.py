"""Attention that looks back a number of tokens and no further, in models of mlx-lm that have the number and ignore it.

A layer's mask is narrowed before the layer sees it. Rows no longer than the window take the very path they took.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .families.beginnings import BehindCache
from .layer_calls import Call, Wrap, replace_call
from .layers import layers_of


def apply_windows(module: nn.Module, windows: Mapping[int, int]) -> None:
    """Have layer i of `module` see `windows[i]` tokens, its own among them."""
    layers = layers_of(module) if windows else []
    for index, window in windows.items():
        replace_call(layers[index], _narrowing(window))


@lru_cache(maxsize=64)
def _narrowing(window: int) -> Wrap:
    def narrowed(call: Call) -> Call:
        def layer_call(layer: nn.Module, states: mx.array, mask: Any = None, cache: Any = None) -> Any:
            if isinstance(cache, BehindCache):  # where tokens stand it alone knows
                return call(layer, states, cache.make_mask(states.shape[1], window_size=window), cache)
            length = states.shape[1]
            seen = length + _before(cache)
            return call(layer, states, mask if seen <= window else _within(mask, length, seen, window), cache)

        return layer_call

    return narrowed


def _before(cache: Any) -> int:
    """How many tokens `cache` holds; of rows that are padded on the left, with their padding."""
    if cache is None:
        return 0
    return cache.size() if isinstance(cache.offset, mx.array) else cache.offset  # an offset for each row, or one


def _within(mask: Any, length: int, seen: int, window: int) -> mx.array:
    """`mask`, for the last `length` of `seen` tokens, and the window: (..., length, seen), bool or added to scores."""
    rows, columns = mx.arange(seen - length, seen)[:, None], mx.arange(seen)[None]
    near = (rows >= columns) & (rows < columns + window)
    if not isinstance(mask, mx.array):
        return near
    return mask & near if mask.dtype == mx.bool_ else mx.where(near, mask, mx.finfo(mask.dtype).min)
