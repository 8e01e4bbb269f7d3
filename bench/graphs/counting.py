"""Arrays that were never computed in, the primitives they wait for out: how many, which, and which Metal has not."""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import mlx.core as mx
from mlx.utils import tree_flatten

FUNCTION = type(mx.add)
# Primitives that launch nothing: they look at another array's memory, or are there for the gradient alone.
VIEWS = {
    *("AsStrided", "Broadcast", "BroadcastAxes", "Copy", "ExpandDims", "Flatten", "Reshape", "Slice", "Split"),
    *("Squeeze", "Transpose", "Unflatten", "View"),
    *("Checkpoint", "CustomTransforms", "Depends", "StopGradient"),
}
# "NYI" for Metal in mlx/backend/metal/primitives.cpp (0.32).
NOT_ON_METAL = {"Cholesky", "Eig", "Eigh", "Inverse", "LUF", "QRF", "SVD"}
EIGHT_BYTES = {mx.int64, mx.uint64, mx.complex64, mx.float64}  # mlx/backend/metal/indexing.cpp scatters none of them


def launches(*trees: Any) -> Counter[str]:
    """How often each primitive that is no view would be launched to compute all arrays of `trees` together."""
    text = io.StringIO()
    mx.export_to_dot(text, *arrays(trees))
    found = Counter(re.findall(r'label ="([^"]+)"', text.getvalue()))
    return Counter({name: count for name, count in found.items() if name not in VIEWS})


def arrays(*trees: Any) -> list[mx.array]:
    """Every array in `trees`, each once."""
    found = {id(value): value for value in _leaves(trees)}
    return list(found.values())


def lacking(launched: Counter[str], types: set[mx.Dtype]) -> list[str]:
    """A sentence about each thing in a graph of arrays of `types` that Metal cannot compute."""
    found = [f"{name} has no kernel on Metal." for name in sorted(launched.keys() & NOT_ON_METAL)]
    if mx.float64 in types:
        found.append("An array is float64, which no Apple GPU has.")
    scatters = sorted(name for name in launched if name.startswith("Scatter"))
    if scatters and types & EIGHT_BYTES:
        wide = ", ".join(sorted(str(dtype).rpartition(".")[2] for dtype in types & EIGHT_BYTES))
        found.append(
            f"There are elements of 8 bytes ({wide}) beside {scatters[0]}, which takes 4 at most: is it given them?"
        )
    return found


@contextmanager
def noted_types() -> Iterator[set[mx.Dtype]]:
    """Gather the types of all arrays that functions of `mx.core` and `astype` give, until the block ends.

    MLX's text of a graph names none. Operators and other methods have the widest type of what they are given, so only
    an array made directly of numbers is missed: float32 of floats, int64 where NumPy's are.
    """
    types: set[mx.Dtype] = set()

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            given = function(*args, **options)
            if isinstance(given, mx.array | list | tuple):
                types.update(array.dtype for array in _leaves([given]))
            return given

        return call

    with ExitStack() as patched:
        for home in (mx, mx.fast, mx.random, mx.linalg, mx.array):
            own = ["astype"] if home is mx.array else [name for name, it in vars(home).items() if type(it) is FUNCTION]
            for name in own:
                patched.enter_context(patch.object(home, name, noting(getattr(home, name))))
        yield types


def _leaves(trees: Any) -> Iterator[mx.array]:
    return (value for _, value in tree_flatten(list(trees)) if isinstance(value, mx.array))
