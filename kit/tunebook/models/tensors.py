"""MLX arrays: a tree of them as a flat dict, a scalar as a float, a dict as a safetensors file, the random state."""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
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


def random_key() -> mx.array:
    """(2,) uint32: MLX's random state as it is now, for `set_random_key`."""
    return next(iter(cast("Iterable[mx.array]", mx.random.state)))


def set_random_key(key: mx.array) -> None:
    """Have MLX draw again what it drew after `random_key` gave `key`."""
    high, low = np.array(key).tolist()
    mx.random.seed(high << 32 | low)  # the key of a seed is its two halves (MLX 0.32, python/src/random.cpp)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put MLX's random state back when the block ends.

    A layer draws its first weights when it is made, also one made only to hold merged weights, and a run in progress
    would go on with another dropout.
    """
    key = random_key()
    try:
        yield
    finally:
        set_random_key(key)
