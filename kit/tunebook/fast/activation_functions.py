"""The curves gates are bent by, with derivatives written out, each from one array that is worth keeping for it.

A gate goes in, arrays of its shape come out. MLX would keep the inputs of every operation on the way. Values are those
of MLX's own but for the last place.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from .exponentials import sigmoid, tanh

GELU_SCALE, GELU_CUBE = math.sqrt(2 / math.pi), 0.044715  # Hendrycks and Gimpel 2016, arXiv 1606.08415


@dataclass(frozen=True, kw_only=True)
class Curve:
    """An element-wise function in parts; all arrays are of the gate's shape."""

    kept: Callable[[mx.array], mx.array]  # gate -> what its value and derivative are made from
    value: Callable[[mx.array, mx.array], mx.array]  # (gate, kept) -> the function's value
    derivative: Callable[[mx.array, mx.array, mx.array], mx.array]  # of (gate, kept, value)


def _gelu_derivative(gate: mx.array, bend: mx.array, _: mx.array) -> mx.array:
    return 0.5 * (1 + bend) + 0.5 * gate * (1 - bend * bend) * (GELU_SCALE * (1 + 3 * GELU_CUBE * gate * gate))


SILU = Curve(
    kept=sigmoid,
    value=lambda gate, sigma: gate * sigma,
    derivative=lambda _, sigma, silu: sigma + silu * (1 - sigma),
)
GELU = Curve(  # the tanh form, as `mlx.nn.gelu_approx`
    kept=lambda gate: tanh(GELU_SCALE * gate * (1 + GELU_CUBE * gate * gate)),
    value=lambda gate, bend: 0.5 * gate * (1 + bend),
    derivative=_gelu_derivative,
)
