"""MLX arrays by name: a tree of parameters as a flat dict, a scalar as a float, a dict as a safetensors file."""

import errno
import shutil
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx.utils import tree_flatten


def flat(tree: Any) -> dict[str, mx.array]:
    """A tree of arrays, such as `module.parameters()`, as dotted name -> array."""
    return cast("dict[str, mx.array]", dict(tree_flatten(tree)))


def number(scalar: mx.array) -> float:
    """A real scalar array as a float; evaluates it."""
    return cast(float, scalar.item())


def save_tensors(path: Path, arrays: dict[str, mx.array]) -> None:
    """Write `arrays` to `path` (.safetensors). Raises OSError with ENOSPC when the disk is full.

    The metadata `format` is `mlx`, which transformers and mlx-lm both accept.
    """
    try:
        mx.save_safetensors(str(path), arrays, metadata={"format": "mlx"})
    except RuntimeError as error:  # MLX 0.32 raises no OSError for a short write and names no errno
        missing = sum(array.nbytes for array in arrays.values()) - (path.stat().st_size if path.exists() else 0)
        if shutil.disk_usage(path.parent).free >= missing:
            raise
        raise OSError(errno.ENOSPC, str(error), str(path)) from error
