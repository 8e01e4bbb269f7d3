"""Trained norms in float32, in a model of any float type.

A norm's weights stay near 1, where bfloat16 cannot tell 1.000 from 1.003, so they are kept and applied in float32. Its
output returns to the type that came in: MLX's norms promote to the wider of input and weight, and the whole model would
go on in float32.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .layer_calls import Call, replace_call


def is_norm(path: str) -> bool:
    """Whether a dotted path names a norm, or a parameter of one: a part with `norm` in it, or `ln_*`."""
    return any("norm" in name or name.startswith("ln_") for name in path.split("."))


def keep_norms_in_float32(module: nn.Module) -> list[str]:
    """Have the norms of `module` that are trained computed in float32, in place; returns their paths.

    Nothing is done to a norm that is float32 already.
    """
    kept = []
    for path, layer in module.named_modules():
        trained = [value for value in layer.trainable_parameters().values() if isinstance(value, mx.array)]
        if is_norm(path) and any(value.dtype != mx.float32 for value in trained):
            layer.set_dtype(mx.float32)
            mx.eval(layer.parameters())  # weights that wait to be computed are lost with an evaluation that fails
            replace_call(layer, _returning_input_type)
            kept.append(path)
    return kept


def _returning_input_type(plain: Call) -> Call:
    def call(layer: nn.Module, x: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        return plain(layer, x, *args, **kwargs).astype(x.dtype)

    return call
