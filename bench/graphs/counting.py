"""Arrays that were never computed in, the primitives they wait for out: how many, which, and which Metal has not."""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
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
COPIES = "copies into a concatenation"
# "NYI" for Metal in mlx/backend/metal/primitives.cpp (0.32).
NOT_ON_METAL = {"Cholesky", "Eig", "Eigh", "Inverse", "LUF", "QRF", "SVD"}
EIGHT_BYTES = {mx.int64, mx.uint64, mx.complex64, mx.float64}  # mlx/backend/metal/indexing.cpp scatters none of them


def launches(*trees: Any) -> Counter[str]:
    """How often each primitive that is no view would be launched to compute all arrays of `trees` together.

    Concatenating launches a copy of each part (mlx/backend/gpu/slicing.cpp, 0.32); those beyond the first of each are
    counted as COPIES.
    """
    file = io.StringIO()
    mx.export_to_dot(file, *arrays(trees))
    text = file.getvalue()
    found = Counter(re.findall(r'label ="([^"]+)"', text))
    if found["Concatenate"]:
        parts = Counter(re.findall(r"-> (\d+)$", text, re.MULTILINE))
        nodes = re.findall(r'(\d+) \[label ="Concatenate"', text)
        found[COPIES] = sum(parts[node] for node in nodes) - len(nodes)
    return Counter({name: count for name, count in found.items() if name not in VIEWS})


def arrays(*trees: Any) -> list[mx.array]:
    """Every array in `trees`, each once."""
    found = {id(value): value for value in _leaves(trees)}
    return list(found.values())


@dataclass
class Types:
    """Those of arrays that were made."""

    all: set[mx.Dtype] = field(default_factory=set)
    scattered: set[mx.Dtype] = field(default_factory=set)  # of arrays of which some elements were written


def lacking(launched: Counter[str], types: Types) -> list[str]:
    """A sentence about each thing in a graph of arrays of `types` that Metal cannot compute."""
    found = [f"{name} has no kernel on Metal." for name in sorted(launched.keys() & NOT_ON_METAL)]
    if mx.float64 in types.all:
        found.append("An array is float64, which no Apple GPU has.")
    if wide := types.scattered & EIGHT_BYTES:
        names = ", ".join(sorted(str(dtype).rpartition(".")[2] for dtype in wide))
        found.append(f"Elements of 8 bytes ({names}) are written one by one, and a Scatter takes 4 at most.")
    return found


@contextmanager
def noted_types() -> Iterator[Types]:
    """Gather the types of all arrays that functions of `mx.core` and `astype` give, until the block ends.

    MLX's text of a graph names none. Operators and other methods have the widest type of what they are given, so only
    an array made directly of numbers is missed: float32 of floats, int64 where NumPy's are. Elements are written by
    assignment, by `at` and by `put_along_axis`; in a gradient they are floats.
    """
    types = Types()

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            given = function(*args, **options)
            if isinstance(given, mx.array | list | tuple):
                types.all.update(array.dtype for array in _leaves([given]))
            return given

        return call

    def writing(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(array: mx.array, *args: Any, **options: Any) -> Any:
            types.scattered.add(array.dtype)
            return function(array, *args, **options)

        return call

    with ExitStack() as patched:
        patched.enter_context(patch.object(mx.array, "__setitem__", writing(mx.array.__setitem__)))
        patched.enter_context(patch.object(mx.array, "at", property(writing(_property(mx.array, "at")))))
        patched.enter_context(patch.object(mx, "put_along_axis", writing(mx.put_along_axis)))
        for home in (mx, mx.fast, mx.random, mx.linalg, mx.array):
            own = ["astype"] if home is mx.array else [name for name, it in vars(home).items() if type(it) is FUNCTION]
            for name in own:
                patched.enter_context(patch.object(home, name, noting(getattr(home, name))))
        yield types


def _property(kind: type, name: str) -> Callable[[Any], Any]:
    return vars(kind)[name].__get__


def _leaves(trees: Any) -> Iterator[mx.array]:
    return (value for _, value in tree_flatten(list(trees)) if isinstance(value, mx.array))
