"""MLX arrays by name: a tree of parameters as a flat dict, a scalar as a float, a dict as a safetensors file."""

import errno
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
