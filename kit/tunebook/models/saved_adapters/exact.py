"""What is trained of a model, as it is at this moment: written, and put on the same model loaded afresh.

Beside `open.py`, which reads adapters that anybody may have written, for any model that they fit: here the model is
known to be the same, every tensor keeps its type, and exactly those are trainable that were.
"""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..adapters import describe
from ..norms import keep_norms_in_float32
from ..tensors import flat
from .open import adapter_layers


def form_of(module: nn.Module) -> dict[str, Any]:
    """Which adapters a module has and what of it is trainable, as plain values."""
    return {"adapters": describe(module), "trainable": list(flat(module.trainable_parameters()))}


def put_on(module: nn.Module, form: Mapping[str, Any], weights: Mapping[str, mx.array]) -> None:
    """Give a bare module, in place, the adapters of `form` and the `weights`, by dotted name, of all that it trains.

    Raises ValueError where the module is another one.
    """
    module.freeze()
    if form["adapters"] is not None:
        paths = form["adapters"]["lora_parameters"]["keys"]
        module.update_modules(tree_unflatten(list(adapter_layers(module, form["adapters"], paths).items())))
        module.freeze()
    parts = dict(module.named_modules())
    for name in form["trainable"]:
        path, _, leaf = name.rpartition(".")
        if path not in parts or leaf not in parts[path]:
            raise ValueError(f"This model has no {name}, which was trained in the one that was saved.")
        parts[path].unfreeze(recurse=False, keys=[leaf])
    keep_norms_in_float32(module)
    module.load_weights(list(weights.items()), strict=False)
    module.train(module.training)
    mx.eval(module.parameters())
