"""f-divergences between the model and its reference: log ratios in, the scores that stand for them in a loss out.

Wang et al. 2023 (arXiv 2309.16240): with another divergence than the reverse KL, a reward is f'(ratio) in place of the
ratio's logarithm (their theorem 1 and table 1).
"""

import math
from collections.abc import Callable
from typing import Literal

import mlx.core as mx
import mlx.nn as nn

FDivergence = Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]

LARGEST_EXPONENT = 80.0  # whose exponential float32 holds; TRL 1.16 clamps there too


def scores_of(kind: FDivergence, alpha: float) -> Callable[[mx.array], mx.array]:
    """f' as a function of log ratios (P,), without its constant; `alpha` is of the alpha divergence alone."""
    if kind == "forward_kl":
        return lambda ratios: 1.0 - mx.exp(-ratios)
    if kind == "js_divergence":
        return lambda ratios: math.log(2.0) + nn.log_sigmoid(ratios)
    if kind == "alpha_divergence" and abs(alpha - 1.0) >= 1e-6:  # it has the reverse KL as its limit
        return lambda ratios: (mx.exp(mx.minimum((alpha - 1.0) * ratios, LARGEST_EXPONENT)) - 1.0) / (alpha - 1.0)
    return lambda ratios: ratios
