"""Exponentials, and what is made of them, in the cheapest way there is for the machine; the values are the usual ones.

MLX's CPU build for x86 (0.32) computes an exponential through calls into the C library, one for each term of a
polynomial: 11.6 ns an element, where the power of a number, one call in all, takes 4.6 (`bench/elementwise.py`). There
2 ** (x * log2 e) stands for it, and two cores share the work (`two_cores.py`). Arrays go in and come out, of the same
shape and type.
"""

import math
from typing import cast

import mlx.core as mx

from ..machine import runtime
from .two_cores import in_halves

SUMMED_AT_ONCE = 256


def exponential(x: mx.array) -> mx.array:
    """e ** x, in the shape and type of `x`.

    To a few parts in 10**7 for results of a usual size, and 1 in 10**5 where they are next to nothing.
    """
    return mx.power(2.0, x * math.log2(math.e)) if _is_power(x) else mx.exp(x)


def sigmoid(x: mx.array) -> mx.array:
    """1 / (1 + e ** -x), in the shape and type of `x`."""
    return in_halves(_sigmoid, x)


def tanh(x: mx.array) -> mx.array:
    """The hyperbolic tangent, in the shape and type of `x`; to 1e-7 of 1."""
    return in_halves(_tanh, x)


def softmax(x: mx.array) -> mx.array:
    """Over the last axis of `x` (..., N), in its shape and type; summed in float32."""
    return in_halves(_softmax, x)


def log_sum_exp(x: mx.array) -> mx.array:
    """log(sum(e ** x)) over the last axis of `x` (..., N), which is kept; float32, as exact for a large N."""
    if runtime.backend() != "cpu":
        return mx.logsumexp(x, axis=-1, keepdims=True)
    top = x.max(axis=-1, keepdims=True)
    return mx.log(summed(exponential(x - top))) + top


def summed(x: mx.array) -> mx.array:
    """The sum over the last axis of `x` (..., N), which is kept, to 1e-6 of sums of what is positive, whatever N is.

    MLX's CPU build (0.32) adds a row up one number after another: in float32 a sum of 49,152 exponentials is 7e-5 too
    small, and one of 151,936 is 2e-4. Sums of sums are not, and take no longer.
    """
    length = x.shape[-1]
    whole = length - length % SUMMED_AT_ONCE
    if whole == 0:
        return x.sum(axis=-1, keepdims=True)
    in_pieces = x[..., :whole].reshape(*x.shape[:-1], -1, SUMMED_AT_ONCE)
    total = in_pieces.sum(axis=-1).sum(axis=-1, keepdims=True)
    return total if whole == length else total + x[..., whole:].sum(axis=-1, keepdims=True)


def softmax_gradient(gradient: mx.array, weights: mx.array) -> mx.array:
    """The gradient for what `weights` are the softmax of; `gradient` is the one for `weights`. All are (..., N)."""
    return in_halves(_softmax_gradient, gradient, weights)


def _is_power(x: mx.array) -> bool:
    """Whether a power stands for the exponential of x; in half precision its exponent would be too coarse."""
    return x.dtype == mx.float32 and runtime.has_slow_exponentials()


def _sigmoid(x: mx.array) -> mx.array:
    # The CPU build's own takes longer than its exponential; in half precision it is the exacter one.
    fast = runtime.backend() == "cpu" and x.dtype == mx.float32
    return 1 / (1 + exponential(-x)) if fast else mx.sigmoid(x)


def _tanh(x: mx.array) -> mx.array:
    return 1 - 2 / (1 + exponential(2 * x)) if _is_power(x) else mx.tanh(x)


def _softmax(x: mx.array) -> mx.array:
    if not _is_power(x):
        return cast(mx.array, mx.softmax(x, axis=-1, precise=True))
    heights = exponential(x - x.max(axis=-1, keepdims=True))
    return heights / heights.sum(axis=-1, keepdims=True)


def _softmax_gradient(gradient: mx.array, weights: mx.array) -> mx.array:
    weighted = gradient * weights
    return weighted - weights * weighted.sum(axis=-1, keepdims=True)
