"""Attention a block of queries at a time; what no query of a block may see is never computed.

Queries, keys and values go in, attention's result comes out. A block of queries meets only the keys from the first to
the last that one of them sees: the numbers of attention in one, from fewer scores. For the gradient the weights of each
block are kept, or with `recomputed` made again, one block after the other, so that memory grows with the length of a
row instead of its square (Rabe and Staats 2021, arXiv 2112.05682).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import mlx.core as mx
import numpy as np

from .exponentials import softmax, softmax_gradient

Inputs = tuple[mx.array, mx.array, mx.array]  # queries (B, H, T, D), keys (B, K, S, D) and values (B, K, S, D)


def attention_in_blocks(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    *,
    scale: float,
    rows: int,
    recomputed: bool,
    mask: mx.array | None = None,
    written_out: bool = True,
) -> mx.array:
    """(B, H, T, D) of attention; queries (B, H, T, D), keys and values (B, K, S, D) with S at least T.

    `rows` queries are taken at a time. `mask` (T, S) is True where a query sees a key; None is causal attention, the
    last query seeing every key. The gradient is `written_out`, or MLX's own.
    """
    blocks = list(_causal_blocks(queries.shape[2], keys.shape[2], rows) if mask is None else _masked_blocks(mask, rows))
    if written_out:
        return _with_gradient(queries, keys, values, blocks, _by_hand(scale), recomputed=recomputed)
    if recomputed:
        return _with_gradient(queries, keys, values, blocks, _of_mlx(scale), recomputed=True)
    return mx.concatenate([_fused(*one.of(queries, keys, values), one.mask, scale) for one in blocks], axis=2)


@dataclass(frozen=True)
class _Block:
    own: slice  # its queries
    seen: slice  # the keys that one of them sees
    mask: mx.array | None  # (queries, keys) of these; None where it is causal

    def of(self, queries: mx.array, keys: mx.array, values: mx.array) -> Inputs:
        return queries[:, :, self.own], keys[:, :, self.seen], values[:, :, self.seen]


@dataclass(frozen=True, kw_only=True)
class _Kernel:
    """What is done for one block of inputs and their mask."""

    # (inputs, mask) -> (result, the one array worth keeping for the gradient, or none)
    forward: Callable[[Inputs, mx.array | None], tuple[mx.array, list[mx.array]]]
    # (inputs, mask, what was kept, the result's gradient) -> the inputs' gradients
    backward: Callable[[Inputs, mx.array | None, list[mx.array], mx.array], Inputs]


def _with_gradient(
    queries: mx.array, keys: mx.array, values: mx.array, blocks: list[_Block], kernel: _Kernel, *, recomputed: bool
) -> mx.array:
    @mx.custom_function
    def whole(inputs: list[mx.array]) -> list[mx.array]:
        found: list[mx.array] = []
        kept: list[mx.array] = []
        for one in blocks:
            own = one.of(*inputs)
            if recomputed and found:  # each block waits for the one before, or MLX would make all scores first
                own = mx.depends(own, found[-1:])
            result, worth_keeping = kernel.forward(own, one.mask)
            found.append(result)
            kept += [] if recomputed else worth_keeping
        return [mx.concatenate(found, axis=2), *kept]

    @whole.vjp
    def backward(inputs: list[mx.array], cotangents: list[mx.array], outputs: list[mx.array]) -> list[mx.array]:
        of_queries: list[mx.array] = []
        of_keys, of_values = mx.zeros_like(inputs[1]), mx.zeros_like(inputs[2])
        for number, one in enumerate(blocks):
            own, kept = one.of(*inputs), outputs[1 + number : 2 + number]
            if recomputed:
                own = mx.depends(own, [of_queries[-1], of_keys, of_values] if of_queries else cotangents[:1])
                _, kept = kernel.forward(own, one.mask)
            for_queries, for_keys, for_values = kernel.backward(own, one.mask, kept, cotangents[0][:, :, one.own])
            of_queries.append(for_queries)
            of_keys = of_keys.at[:, :, one.seen].add(for_keys)
            of_values = of_values.at[:, :, one.seen].add(for_values)
        return [mx.concatenate(of_queries, axis=2), of_keys, of_values]

    return cast(list[mx.array], whole([queries, keys, values]))[0]


def _by_hand(scale: float) -> _Kernel:
    """What MLX's CPU build does for it, in fewer and larger products, and the gradient written out."""

    def forward(inputs: Inputs, mask: mx.array | None) -> tuple[mx.array, list[mx.array]]:
        queries, keys, values = inputs
        scores = (_by_keys(queries, keys) * scale) @ keys.swapaxes(-1, -2)  # (B, K, H / K * T, S)
        length, seen = queries.shape[2], keys.shape[2]
        visible = mx.arange(seen - length, seen)[:, None] >= mx.arange(seen) if mask is None else mask
        # Cheaper than choosing between a score and the minimum, and the same: beside the minimum no score counts.
        hidden = mx.where(visible, 0.0, mx.finfo(mx.float32).min)
        weights = softmax(scores.reshape(*scores.shape[:2], -1, length, seen).astype(mx.float32) + hidden)
        weights = weights.reshape(scores.shape).astype(values.dtype)
        return (weights @ values).reshape(*queries.shape[:-1], values.shape[-1]), [weights]

    def backward(inputs: Inputs, mask: mx.array | None, kept: list[mx.array], cotangent: mx.array) -> Inputs:
        (queries, keys, values), (weights,) = inputs, kept
        # A query that sees nothing gets the mean of all values, whatever its scores are.
        felt = cotangent if mask is None else cotangent * mask.any(axis=-1, keepdims=True)
        of_scores = softmax_gradient(_by_keys(felt, keys) @ values.swapaxes(-1, -2), weights)
        of_queries = ((of_scores @ keys) * scale).reshape(queries.shape)
        of_keys = of_scores.swapaxes(-1, -2) @ (_by_keys(queries, keys) * scale)
        return of_queries, of_keys, weights.swapaxes(-1, -2) @ _by_keys(cotangent, keys)

    return _Kernel(forward=forward, backward=backward)


def _by_keys(x: mx.array, keys: mx.array) -> mx.array:
    """(B, H, T, D) as (B, K, H / K * T, D): the heads that share keys as one, for a product in place of several."""
    return x.reshape(len(x), keys.shape[1], -1, x.shape[-1])


def _of_mlx(scale: float) -> _Kernel:
    def forward(inputs: Inputs, mask: mx.array | None) -> tuple[mx.array, list[mx.array]]:
        return _fused(*inputs, mask, scale), []

    def backward(inputs: Inputs, mask: mx.array | None, _kept: list[mx.array], cotangent: mx.array) -> Inputs:
        _, gradients = mx.vjp(partial(_fused, mask=mask, scale=scale), list(inputs), [cotangent])
        of_queries, of_keys, of_values = cast(list[mx.array], gradients)
        return of_queries, of_keys, of_values

    return _Kernel(forward=forward, backward=backward)


def _fused(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None, scale: float) -> mx.array:
    given = "causal" if mask is None else mask
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=given)


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
