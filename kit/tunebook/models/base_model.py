"""The base model inside a tuned one: its adapters taken out for a moment, and put back.

A module with adapters comes in; for the time of a `with` block it computes what it did before they were made. Where
weights themselves were trained, what they were is gone, and `why_no_base` says so.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.nn as nn
from mlx.utils import tree_unflatten

from .adapters import adapter_paths, trained_whole

_INNER = ("linear", "embedding")  # what mlx-lm (0.32) calls the layer an adapter is wrapped around


def why_no_base(module: nn.Module) -> str | None:
    """Why there is no base model to compare with, as a sentence; None where there is one."""
    if whole := trained_whole(module):
        return f"{len(whole)} tensors are trained whole (the first: {whole[0]}), so the base model is not in memory."
    if not adapter_paths(module):
        return "This model has no adapters: it is the base model."
    return None


def is_base(module: nn.Module) -> bool:
    """Whether nothing of a model is tuned: it has no adapters, and no weights of its own are trained."""
    return not (adapter_paths(module) or trained_whole(module))


@contextmanager
def without_adapters(module: nn.Module) -> Iterator[None]:
    """Within the block, `module` has no adapters. Raises ValueError where that does not make it the base model."""
    if reason := why_no_base(module):
        raise ValueError(f"{reason} Load it once more to compare the two.")
    layers = dict(module.named_modules())
    adapted = {path: layers[path] for path in adapter_paths(module)}
    bare = {path: next(layer[name] for name in _INNER if name in layer) for path, layer in adapted.items()}
    module.update_modules(tree_unflatten(list(bare.items())))
    try:
        yield
    finally:
        module.update_modules(tree_unflatten(list(adapted.items())))
