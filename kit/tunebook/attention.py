"""Attention computed a block of queries at a time, so that what no query of a block may see is never computed.

MLX trains through the plain form of attention, which makes every score and masks half of them, or with a sliding window
nearly all. Here a block of queries meets only the keys from the first to the last that one of them sees: the same
numbers, fewer scores, and less memory they are kept in. With `recomputed` no block's scores are kept at all, and memory
grows with the length of a row instead of its square (Rabe and Staats 2021, arXiv 2112.05682). What differs from row to
row (documents sharing one, images seen whole) or has sinks or a cache goes through the library's own function as ever,
mlx-lm's or mlx-vlm's.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from . import runtime
from .halves import softmax
from .variants import Call, Wrap, varied, with_globals

NAME = "scaled_dot_product_attention"  # what the attention layers call, found among the globals of their module
HOMES = ("mlx_lm.models.base", "mlx_vlm.models.base")  # where it is from; the two (0.32, 0.7.10) are called alike
FEWEST_ROWS = {"cpu": 64, "metal": 256, "cuda": 256}  # of a block; a GPU would rather have few large products
MOST_BLOCKS = 16  # with more, little is saved that their number does not cost


def block_attention(module: nn.Module, *, recomputed: bool = False, masks: bool = True) -> AbstractContextManager[None]:
    """Have the attention layers of `module` work in blocks until the block ends; other models stay as they are.

    Without `masks` only what is causal by name is: a mask has to be looked at, which a compiled pass cannot.
    """
    layers = [layer for layer in module.modules() if _calls_it(type(layer).__call__)]
    return varied(layers, _WRAPS[recomputed, masks])


def attention_in_blocks(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    *,
    scale: float,
    rows: int,
    recomputed: bool,
    mask: mx.array | None = None,
) -> mx.array:
    """(B, H, T, D) of attention; queries (B, H, T, D), keys and values (B, K, S, D) with S at least T.

    `rows` queries are taken at a time. `mask` (T, S) is True where a query sees a key; None is causal attention, the
    last query seeing every key.
    """
    blocks = list(_causal_blocks(queries.shape[2], keys.shape[2], rows) if mask is None else _masked_blocks(mask, rows))
    attend = partial(_block, scale=scale)
    if recomputed:
        return _recomputed(queries, keys, values, blocks, attend)
    return mx.concatenate(
        [attend(queries[:, :, one.own], keys[:, :, one.seen], values[:, :, one.seen], mask=one.mask) for one in blocks],
        axis=2,
    )


@dataclass(frozen=True)
class _Block:
    own: slice  # its queries
    seen: slice  # the keys that one of them sees
    mask: mx.array | None  # (queries, keys) of these; None where it is causal


def _block(queries: mx.array, keys: mx.array, values: mx.array, *, mask: mx.array | None, scale: float) -> mx.array:
    if runtime.backend() != "cpu":
        given = "causal" if mask is None else mask
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=given)
    # What MLX's CPU build does for it, with the softmax on two cores.
    shared, width = keys.shape[1], queries.shape[-1]
    grouped = (queries * scale).reshape(len(queries), shared, -1, queries.shape[2], width)  # (B, K, H / K, T, D)
    scores = grouped @ keys[:, :, None].swapaxes(-1, -2)
    length, seen = scores.shape[-2:]
    visible = mx.arange(seen - length, seen)[:, None] >= mx.arange(seen) if mask is None else mask
    shares = cast(mx.array, softmax(mx.where(visible, scores, mx.finfo(scores.dtype).min)))
    return (shares @ values[:, :, None]).reshape(*queries.shape[:-1], values.shape[-1])


def _recomputed(
    queries: mx.array, keys: mx.array, values: mx.array, blocks: list[_Block], attend: Callable[..., Any]
) -> mx.array:
    """The same, with the scores of a block made again when its gradient is wanted, one block after the other."""

    @mx.custom_function
    def whole(queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        found: list[mx.array] = []
        for one in blocks:
            # Each block waits for the one before, or MLX would make the scores of all of them first.
            inputs = [queries[:, :, one.own], keys[:, :, one.seen], values[:, :, one.seen]]
            found.append(attend(*(mx.depends(inputs, found[-1:]) if found else inputs), mask=one.mask))
        return mx.concatenate(found, axis=2)

    @whole.vjp
    def backward(primals: tuple[mx.array, ...], cotangent: mx.array, _found: mx.array) -> tuple[mx.array, ...]:
        queries, keys, values = primals
        slopes: list[mx.array] = []
        of_keys, of_values = mx.zeros_like(keys), mx.zeros_like(values)
        for one in blocks:
            inputs = [queries[:, :, one.own], keys[:, :, one.seen], values[:, :, one.seen]]
            before = [slopes[-1], of_keys, of_values] if slopes else [cotangent]
            block = partial(attend, mask=one.mask)
            _, gradients = mx.vjp(block, mx.depends(inputs, before), [cotangent[:, :, one.own]])
            slope, for_keys, for_values = cast(list[mx.array], gradients)
            slopes.append(slope)
            of_keys = of_keys.at[:, :, one.seen].add(for_keys)
            of_values = of_values.at[:, :, one.seen].add(for_values)
        return mx.concatenate(slopes, axis=2), of_keys, of_values

    return cast(mx.array, whole(queries, keys, values))


def _causal_blocks(queries: int, keys: int, rows: int) -> Iterator[_Block]:
    for start in range(0, queries, rows):
        stop = min(start + rows, queries)
        yield _Block(slice(start, stop), slice(0, keys - queries + stop), None)


def _masked_blocks(mask: mx.array, rows: int) -> Iterator[_Block]:
    visible = np.array(mask)  # (T, S)
    for start in range(0, len(visible), rows):
        own = slice(start, start + rows)
        seen = slice(0, visible.shape[1])
        if visible[own].any(axis=1).all():  # else one of them sees nothing, and then all alike
            columns = np.flatnonzero(visible[own].any(axis=0))
            seen = slice(int(columns[0]), int(columns[-1]) + 1)
        yield _Block(own, seen, mask[own, seen])


def _calls_it(call: Call) -> bool:
    """Whether a layer's call looks up the attention function of its library by its name."""
    if not isinstance(call, FunctionType):  # a container's, which is never called
        return False
    if NAME not in call.__code__.co_names or not isinstance(own := call.__globals__.get(NAME), FunctionType):
        return False
    return own.__module__ in HOMES


def _wrap(*, recomputed: bool, masks: bool) -> Wrap:
    def with_blocks(plain: Call) -> Call:
        own = cast("FunctionType", plain).__globals__[NAME]
        return with_globals(plain, {NAME: partial(_instead, own=own, recomputed=recomputed, masks=masks)})

    return with_blocks


# One function each, for a variant of a layer is made once for a wrap (`variants.py`).
_WRAPS = {
    (recomputed, masks): _wrap(recomputed=recomputed, masks=masks)
    for recomputed in (False, True)
    for masks in (False, True)
}


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
    masks: bool,
) -> mx.array:
    """In the place of a library's `own` function of this name: in blocks where every row has the same mask."""
    length = queries.shape[2]
    rows = FEWEST_ROWS[runtime.backend()]
    if not recomputed:  # then all scores are kept, however many blocks they are made in
        rows = max(rows, math.ceil(length / MOST_BLOCKS))
    is_shared = isinstance(mask, str) or (masks and mask is not None and mask.ndim == 2 and mask.dtype == mx.bool_)
    if cache is not None or sinks is not None or not is_shared or length <= rows:
        return own(queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks)
    given = mask if isinstance(mask, mx.array) else None
    return attention_in_blocks(queries, keys, values, scale=scale, rows=rows, recomputed=recomputed, mask=given)
