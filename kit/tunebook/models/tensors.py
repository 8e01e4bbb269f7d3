"""MLX arrays by name: a tree of parameters as a flat dict, a scalar as a float, a dict as a safetensors file."""

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

T = TypeVar("T")


def flat(tree: Any) -> dict[str, mx.array]:
    """A tree of arrays, such as `module.parameters()`, as dotted name -> array."""
    return cast("dict[str, mx.array]", dict(tree_flatten(tree)))


def called_with(part: nn.Module, values: Mapping[str, mx.array], call: Callable[[], T]) -> T:
    """`call()` while `part` has `values`, by dotted name; whatever is raised, it has its own again afterwards.

    What torch calls `functional_call`: traced values reach a layer so, and leave no trace in it.
    """
    own = flat(part.parameters())
    part.update(cast("dict[str, Any]", tree_unflatten(list(values.items()))))
    try:
        return call()
    finally:
        part.update(cast("dict[str, Any]", tree_unflatten([(name, own[name]) for name in values])))


def number(scalar: mx.array) -> float:
    """A real scalar array as a float; evaluates it."""
    return cast(float, scalar.item())


def save_tensors(path: Path, arrays: dict[str, mx.array]) -> None:
    """Write `arrays` to `path` (.safetensors). Raises OSError with ENOSPC when not all of it could be written.

    The metadata `format` is `mlx`, which transformers and mlx-lm both accept.
    """
    try:
        mx.save_safetensors(str(path), arrays, metadata={"format": "mlx"})
    except RuntimeError as error:
        if "Unable to write" not in str(error):
            raise
        # MLX 0.32 keeps no errno; a write that stops short on a file just opened is a full disk or a quota.
        raise OSError(errno.ENOSPC, str(error), str(path)) from error
