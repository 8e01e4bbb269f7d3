"""A part of a layer that treats every token alone: a chunk of tokens at a time, and again when a gradient is wanted.

With gradient checkpointing one layer at a time has its activations, and of those an MLP's are the widest. In chunks
there are never more of them than for the tokens of one, however long the rows. A layer that is computed again anyway
does no more work for it: what goes out of the part is not asked for then, unless it goes into a norm.
"""

from typing import cast

import mlx.core as mx
import mlx.nn as nn

from ..models.layer_calls import Call
from ..models.tensors import called_with, flat


def by_token_chunks(plain: Call, *, size: int) -> Call:
    """`plain`, a call from (..., T, D) to the same that treats every token alone and has no dropout, in chunks."""
    return lambda part, x: in_chunks(part, plain, x, size)


def in_chunks(part: nn.Module, plain: Call, x: mx.array, size: int) -> mx.array:
    """`plain(part, x)` of (..., T, D), `size` tokens at a time; with gradients for x and what is trained of `part`."""
    tokens = x.reshape(-1, x.shape[-1])
    chunks = [slice(start, start + size) for start in range(0, len(tokens), size)]
    if len(chunks) == 1:
        return plain(part, x)
    trained = flat(part.trainable_parameters())

    def answer(tokens: mx.array, *values: mx.array) -> mx.array:
        return called_with(part, dict(zip(trained, values, strict=True)), lambda: plain(part, tokens))

    @mx.custom_function
    def whole(inputs: list[mx.array]) -> mx.array:
        tokens, *values = inputs
        found: list[mx.array] = []
        for chunk in chunks:
            # Each waits for the one before, or MLX would hold what is made of all of them together.
            (own,) = mx.depends([tokens[chunk]], found[-1:]) if found else [tokens[chunk]]
            found.append(answer(own, *values))
        return mx.concatenate(found)

    @whole.vjp
    def backward(inputs: list[mx.array], cotangent: mx.array, _found: mx.array) -> list[mx.array]:
        tokens, *values = inputs
        of_tokens: list[mx.array] = []
        sums = [mx.zeros(value.shape) for value in values]  # in float32, whatever the chunks' are in
        for chunk in chunks:
            (own,) = mx.depends([tokens[chunk]], [of_tokens[-1], *sums] if of_tokens else [cotangent])
            _, gradients = mx.vjp(answer, [own, *values], [cotangent[chunk]])
            for_tokens, *of_values = cast(list[mx.array], gradients)
            of_tokens.append(for_tokens)
            sums = [total + gradient for total, gradient in zip(sums, of_values, strict=True)]
        return [
            mx.concatenate(of_tokens),
            *(total.astype(value.dtype) for total, value in zip(sums, values, strict=True)),
        ]

    return cast(mx.array, whole([tokens, *trained.values()])).reshape(*x.shape[:-1], -1)
