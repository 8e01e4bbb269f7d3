"""The experts of a mixture as transformers 5 stores them, in one array each -> the arrays of mlx-lm's SwitchGLU.

transformers 5 writes `experts.gate_up_proj` (E, 2I, D) and `experts.down_proj` (E, D, I) where it wrote an array for
each of the E experts before; several classes of mlx-lm (0.32) take the older names alone.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.utils import _get_classes  # pyright: ignore[reportPrivateUsage] - what load_model takes by default

from .tensors import flat

Weights = dict[str, mx.array]

_FUSED, _DOWN = ".experts.gate_up_proj", ".experts.down_proj"


def classes_of(config: dict[str, Any]) -> tuple[type[nn.Module], type]:
    """What mlx-lm builds a model of `config` with; it takes fused experts too."""
    kind: Any
    kind, arguments = _get_classes(config)

    class Opened(kind):
        def sanitize(self, weights: Weights) -> Weights:
            sanitized = super().sanitize(weights) if hasattr(kind, "sanitize") else weights
            self.__class__ = kind  # which it is from here on
            return split(sanitized, self)

    return Opened, arguments


def split(weights: Weights, module: nn.Module) -> Weights:
    """`weights` with the fused experts of every mixture in `module` as its SwitchGLU has them; the rest untouched."""
    fused = [name.removesuffix(_FUSED) for name in weights if name.endswith(_FUSED)]
    if not fused:
        return weights
    shapes, said = {name: array.shape for name, array in flat(module.parameters()).items()}, dict(weights)
    for mixture in fused:
        names = [f"{mixture}.switch_mlp.{part}_proj.weight" for part in ("gate", "up", "down")]
        both, down = weights[mixture + _FUSED], weights.get(mixture + _DOWN)
        if not set(names) <= shapes.keys() or down is None or both.ndim != 3:
            continue
        half = both.shape[1] // 2
        del said[mixture + _FUSED], said[mixture + _DOWN]
        said |= dict(zip(names, (both[:, :half], both[:, half:], down), strict=True))
    return said
