"""What makes every pass slow on a CPU for no need: a model in, sentences out, each with what to do about it."""

import mlx.nn as nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear

from ...machine.blas import load_fast_blas
from ...machine.runtime import backend

_QUANTIZED = (nn.QuantizedLinear, QuantizedSwitchLinear)  # an embedding is looked up, not multiplied with


def slow_here(module: nn.Module) -> list[str]:
    """Nothing on a GPU, whose products are of MLX's own kernels, also those with quantized weights.

    How much slower: `bench/blas.py`.
    """
    if backend() != "cpu":
        return []
    said = []
    blas = load_fast_blas()
    if blas.problem is not None and blas.fix is not None:
        said.append(f"Matrix products are tens of times slower than they could be. {blas.problem} Mend: {blas.fix}.")
    if any(isinstance(layer, _QUANTIZED) for layer in module.modules()):
        said.append(
            "The weights are quantized, and on a CPU MLX multiplies with such tens of times slower than with float32 "
            "ones; where there is the memory, load the model without load_in_4bit or load_in_8bit."
        )
    return said
