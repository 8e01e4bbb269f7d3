"""Causal attention computed a block of queries at a time, so that what no query may see is never computed.

MLX trains through the plain form of attention, which makes every score and masks half of them. Here a block of queries
meets only the keys up to its own end: the same numbers, about half the scores, and half the memory they are kept in.
With `recomputed` no block's scores are kept at all, and memory grows with the length of a row instead of its square
(Rabe and Staats 2021, arXiv 2112.05682). What is not plainly causal (a window, documents sharing a row, images seen
whole, a cache) goes through the library's own function as ever, mlx-lm's or mlx-vlm's.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from types import FunctionType
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from . import runtime
from .halves import softmax
from .variants import Call, varied, with_globals

NAME = "scaled_dot_product_attention"  # what the attention layers call, found among the globals of their module
HOMES = ("mlx_lm.models.base", "mlx_vlm.models.base")  # where it is from; the two (0.32, 0.7.10) are called alike
FEWEST_ROWS = {"cpu": 64, "metal": 256, "cuda": 256}  # of a block; a GPU would rather have few large products
MOST_BLOCKS = 16  # with more, little is saved that their number does not cost


def block_attention(module: nn.Module, *, recomputed: bool = False) -> AbstractContextManager[None]:
    """Have the attention layers of `module` work in blocks until the block ends; other models stay as they are."""
    layers = [layer for layer in module.modules() if _calls_it(type(layer).__call__)]
    return varied(layers, _recomputed_in_blocks if recomputed else _in_blocks)


def attention_in_blocks(
    queries: mx.array, keys: mx.array, values: mx.array, *, scale: float, rows: int, recomputed: bool
) -> mx.array:
    """(B, H, T, D) of causal attention; queries (B, H, T, D), keys and values (B, K, S, D) with S at least T.

    `rows` queries are taken at a time. The last query sees every key.
    """
    blocks = list(_blocks(queries.shape[2], keys.shape[2], rows))
    if recomputed:
        return _recomputed(queries, keys, values, blocks, partial(_block, scale=scale))
    return mx.concatenate(
        [_block(queries[:, :, own], keys[:, :, seen], values[:, :, seen], scale=scale) for own, seen in blocks], axis=2
    )


def _block(queries: mx.array, keys: mx.array, values: mx.array, *, scale: float) -> mx.array:
    if runtime.backend() != "cpu":
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask="causal")
    # What MLX's CPU build does for it, with the softmax on two cores.
    shared, width = keys.shape[1], queries.shape[-1]
    grouped = (queries * scale).reshape(len(queries), shared, -1, queries.shape[2], width)  # (B, K, H / K, T, D)
    scores = grouped @ keys[:, :, None].swapaxes(-1, -2)
    length, seen = scores.shape[-2:]
    visible = mx.arange(seen - length, seen)[:, None] >= mx.arange(seen)
    shares = cast(mx.array, softmax(mx.where(visible, scores, mx.finfo(scores.dtype).min)))
    return (shares @ values[:, :, None]).reshape(*queries.shape[:-1], values.shape[-1])


def _recomputed(
    queries: mx.array, keys: mx.array, values: mx.array, blocks: list[tuple[slice, slice]], block: Callable[..., Any]
) -> mx.array:
    """The same, with the scores of a block made again when its gradient is wanted, one block after the other."""

    @mx.custom_function
    def attend(queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        found: list[mx.array] = []
        for own, seen in blocks:
            # Each block waits for the one before, or MLX would make the scores of all of them first.
            inputs = [queries[:, :, own], keys[:, :, seen], values[:, :, seen]]
            found.append(block(*(mx.depends(inputs, found[-1:]) if found else inputs)))
        return mx.concatenate(found, axis=2)

    @attend.vjp
    def backward(primals: tuple[mx.array, ...], cotangent: mx.array, _found: mx.array) -> tuple[mx.array, ...]:
        queries, keys, values = primals
        slopes: list[mx.array] = []
        of_keys, of_values = mx.zeros_like(keys), mx.zeros_like(values)
        for own, seen in blocks:
            inputs = [queries[:, :, own], keys[:, :, seen], values[:, :, seen]]
            before = [slopes[-1], of_keys, of_values] if slopes else [cotangent]
            _, gradients = mx.vjp(block, mx.depends(inputs, before), [cotangent[:, :, own]])
            slope, for_keys, for_values = cast(list[mx.array], gradients)
            slopes.append(slope)
            of_keys = of_keys.at[:, :, seen].add(for_keys)
            of_values = of_values.at[:, :, seen].add(for_values)
        return mx.concatenate(slopes, axis=2), of_keys, of_values

    return cast(mx.array, attend(queries, keys, values))


def _blocks(queries: int, keys: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """(queries, the keys they see) of each block."""
    for start in range(0, queries, rows):
        stop = min(start + rows, queries)
        yield slice(start, stop), slice(0, keys - queries + stop)


def _calls_it(call: Call) -> bool:
    """Whether a layer's call looks up the attention function of its library by its name."""
    if not isinstance(call, FunctionType):  # a container's, which is never called
        return False
    if NAME not in call.__code__.co_names or not isinstance(own := call.__globals__.get(NAME), FunctionType):
        return False
    return own.__module__ in HOMES


def _in_blocks(plain: Call) -> Call:
    return _with(plain, recomputed=False)


def _recomputed_in_blocks(plain: Call) -> Call:
    return _with(plain, recomputed=True)


def _with(plain: Call, *, recomputed: bool) -> Call:
    own = cast("FunctionType", plain).__globals__[NAME]
    return with_globals(plain, {NAME: partial(_instead, own=own, recomputed=recomputed)})


def _instead(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: Any,
    scale: float,
    mask: mx.array | str | None,
    sinks: mx.array | None = None,
    *,
    own: Call,
    recomputed: bool,
) -> mx.array:
    """In the place of a library's `own` function of this name: in blocks where all is plainly causal."""
    length = queries.shape[2]
    rows = FEWEST_ROWS[runtime.backend()]
    if not recomputed:  # then all scores are kept, however many blocks they are made in
        rows = max(rows, math.ceil(length / MOST_BLOCKS))
    if cache is not None or sinks is not None or not isinstance(mask, str) or length <= rows:
        return own(queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks)
    return attention_in_blocks(queries, keys, values, scale=scale, rows=rows, recomputed=recomputed)
