"""Weights rounded to the 4-bit NormalFloat and kept in float32: the numbers a bitsandbytes QLoRA computes with.

A tensor, read row by row, is cut into blocks of 64. Each is divided by its largest magnitude, rounded to the nearest of
16 levels (quantiles of a normal distribution; Dettmers et al. 2023, arXiv 2305.14314, appendix E) and multiplied back.
The magnitudes stay in float32: rounding them too (double quantization) is not done. A block of zeros stays zeros.
"""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

BLOCK = 64

# bitsandbytes/functional.py (0.49), get_4bit_type("nf4").
LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def nf4_rounded(weight: mx.array) -> mx.array:
    """`weight` of any shape, rounded; float32. A last block that is not full is scaled by what it holds."""
    flat = weight.astype(mx.float32).reshape(-1)
    short = -flat.size % BLOCK
    blocks = mx.pad(flat, (0, short)).reshape(-1, BLOCK)
    largest = mx.abs(blocks).max(axis=1, keepdims=True)
    scaled = blocks / mx.where(largest == 0, 1.0, largest)  # 0 / 0 would be NaN, and spread through the model
    levels = mx.array(LEVELS)
    middles = (levels[1:] + levels[:-1]) / 2
    nearest = (scaled[..., None] > middles).sum(axis=-1)
    return (levels[nearest] * largest).reshape(-1)[: flat.size].reshape(weight.shape)


def nf4_dense(module: nn.Module) -> list[str]:
    """Round the weight of every linear layer inside the decoder layers, in place, and return their names.

    Embeddings, output head, norms and biases stay as they are, as in a model loaded by bitsandbytes.
    """
    rounded = [
        (f"{path}.weight", nf4_rounded(layer.weight))
        for path, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and ".layers." in f".{path}"
    ]
    for name, weight in rounded:  # one at a time: the comparison with all levels takes sixteen times its memory
        module.update(tree_unflatten([(name, weight)]))
        mx.eval(weight)
    return [name for name, _ in rounded]
