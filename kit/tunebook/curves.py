"""The curves gates are bent by, with slopes written out, each from one array that is worth keeping for it.

A gate goes in, arrays of its shape come out. MLX would keep the inputs of every operation on the way. Values are those
of MLX's own but for the last place.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from . import runtime
from .halves import in_halves

GELU_SCALE, GELU_CUBE = math.sqrt(2 / math.pi), 0.044715  # Hendrycks and Gimpel 2016, arXiv 1606.08415


@dataclass(frozen=True, kw_only=True)
class Curve:
    """An element-wise function in parts; all arrays are of the gate's shape."""

    kept: Callable[[mx.array], mx.array]  # gate -> what its value and slope are made from
    value: Callable[[mx.array, mx.array], mx.array]  # (gate, kept) -> the function's value
    slope: Callable[[mx.array, mx.array, mx.array], mx.array]  # (gate, kept, value) -> its derivative


def _sigmoid(gate: mx.array) -> mx.array:
    # The CPU build's sigmoid takes half as long again as its exponential; in half precision it is the exacter one.
    fast = runtime.backend() == "cpu" and gate.dtype == mx.float32
    return 1 / (1 + in_halves(mx.exp, -gate)) if fast else mx.sigmoid(gate)


def _gelu_slope(gate: mx.array, bend: mx.array, _: mx.array) -> mx.array:
    return 0.5 * (1 + bend) + 0.5 * gate * (1 - bend * bend) * (GELU_SCALE * (1 + 3 * GELU_CUBE * gate * gate))


SILU = Curve(
    kept=_sigmoid,
    value=lambda gate, share: gate * share,
    slope=lambda _, share, silu: share + silu * (1 - share),
)
GELU = Curve(  # the tanh form, as `mlx.nn.gelu_approx`
    kept=lambda gate: in_halves(mx.tanh, GELU_SCALE * gate * (1 + GELU_CUBE * gate * gate)),
    value=lambda gate, bend: 0.5 * gate * (1 + bend),
    slope=_gelu_slope,
)
