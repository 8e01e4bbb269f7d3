"""MLX's CPU build made to build the graphs a Metal build would, for as long as a block lasts.

The kit is told that its backend is Metal, and each fused function of `mx.fast`, which the CPU build takes apart, is one
primitive each way, as on Metal in MLX 0.32.4 (`scaled_dot_product_attention` where no mask is an array: with one, Metal
takes it apart too when it is to have a gradient). What the primitives compute is nonsense of the right shape.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn

from tunebook.machine import runtime

Arrays = tuple[mx.array, ...]

FEW_TOKENS = 128  # fewer are computed


@contextmanager
def as_on_metal() -> Iterator[None]:
    """Have MLX and the kit build what they would on Metal, until the block ends; nothing of it is to be computed."""
    apart, delta = mx.fast.scaled_dot_product_attention, mx.fast.gated_delta_update

    def attention(queries: mx.array, keys: mx.array, values: mx.array, **options: Any) -> mx.array:
        is_fused = options.get("sinks") is None and not isinstance(options.get("mask"), mx.array)
        if not is_fused:
            return apart(queries, keys, values, **options)
        if queries.shape[-1] != values.shape[-1]:
            raise ValueError(
                f"The stand-in for attention takes keys and values of one width, and these have {queries.shape[-1]} "
                f"and {values.shape[-1]}; give it another primitive for them."
            )
        return _ROWS(queries, keys, values)

    def cross_entropy(logits: mx.array, targets: mx.array, **_: Any) -> mx.array:
        return _LOSSES(logits, targets).astype(mx.float32)  # the sum is in float32 there

    def gated_delta_update(q: mx.array, k: mx.array, v: mx.array, *gates: mx.array) -> list[mx.array]:
        if v.shape[1] < FEW_TOKENS:  # the kit proves it on a few tokens before it takes it
            return delta(q, k, v, *gates)
        y = _ROWS(v, q, k, *gates)
        return [y, mx.as_strided(y, (v.shape[0], v.shape[2], v.shape[3], k.shape[3]), (0,) * 4).astype(mx.float32)]

    instead = {
        "rms_norm": lambda x, weight, *_args, **_: _normed(x, weight),
        "layer_norm": lambda x, weight, bias, *_args, **_: _normed(x, weight, bias),
        "rope": lambda x, *_args, **_: _ROWS(x),
        "cross_entropy": cross_entropy,
        "scaled_dot_product_attention": attention,
        "gated_delta_update": gated_delta_update,
    }
    with ExitStack() as patched:
        for name, stand_in in instead.items():
            patched.enter_context(patch.object(mx.fast, name, stand_in))
        # It asks for the default device before it takes the fused one (mlx/nn/losses.py, 0.32.4).
        stock = lambda logits, targets, **_: mx.fast.cross_entropy(logits, targets).astype(logits.dtype)  # noqa: E731
        patched.enter_context(patch.object(nn.losses, "cross_entropy", stock))
        patched.enter_context(patch.object(runtime, "backend", lambda: "metal"))
        yield


def _one_each_way(forward: Callable[[mx.array], mx.array], backward: Callable[[mx.array, mx.array], mx.array]) -> Any:
    """A function of arrays whose value is `forward(first)`, whose gradient `backward(first, cotangent)`.

    The gradients of the other arrays are views, as the outputs of one primitive are.
    """

    @mx.custom_function
    def function(*inputs: mx.array) -> mx.array:
        return forward(inputs[0])

    @function.vjp
    def slopes(primals: Any, cotangent: mx.array, _output: mx.array) -> Arrays:
        first, *others = primals if isinstance(primals, tuple | list) else (primals,)
        views = (mx.as_strided(first, other.shape, (0,) * other.ndim) for other in others)
        return (backward(first, cotangent), *views)

    return function


# Of primitives that nothing else here has and that no compiler fuses with its neighbours.
_ROWS = _one_each_way(lambda x: mx.softmax(x, axis=-1), lambda _x, cotangent: mx.sort(cotangent, axis=-1))
_LOSSES = _one_each_way(lambda x: mx.logsumexp(x, axis=-1), lambda x, _cotangent: mx.softmax(x, axis=-1))


def _normed(x: mx.array, *factors: mx.array | None) -> mx.array:
    return _ROWS(x, *(factor for factor in factors if factor is not None))
