"""RMS norms whose weights are kept less one, as Gemma's are: the one is added once for all passes, not in each of them.

Only norms that are not trained are changed. On a GPU it spares a launch for every norm of a pass.
"""

from contextlib import AbstractContextManager
from types import CodeType, FunctionType
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from ..models.layer_calls import Call, replaced_calls


def norms_shifted_once(module: nn.Module) -> AbstractContextManager[None]:
    """Have such norms of `module` use weights that were shifted beforehand, until the block ends."""
    layers = [layer for layer in module.modules() if _is_shifted(layer) and not layer.trainable_parameters()]
    shifted = {id(layer): 1.0 + layer["weight"] for layer in layers}
    mx.eval(shifted)

    def with_shifted(_: Call) -> Call:
        return lambda layer, x: mx.fast.rms_norm(x, shifted[id(layer)], layer.eps)

    return replaced_calls(layers, with_shifted)


# As mlx-lm's and mlx-vlm's are written (0.32, 0.7.10). It is never called: another is such a norm if it compiles to the
# same code.
def _form(self, x):
    return mx.fast.rms_norm(x, 1.0 + self.weight, self.eps)


def _is_shifted(layer: nn.Module) -> bool:
    call = type(layer).__call__
    own = isinstance(call, FunctionType) and call.__globals__.get("mx") is mx
    return own and _meaning(cast("FunctionType", call).__code__) == _meaning(cast("FunctionType", _form).__code__)


def _meaning(code: CodeType) -> tuple[Any, ...]:
    return code.co_code, code.co_names, code.co_consts[1:]  # the first is the docstring
