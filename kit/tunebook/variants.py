"""One layer object given another call, for good or for a while; its class, and all others of it, stay as they are.

The object becomes an instance of a subclass made here, so `isinstance`, names and parameters are what they were.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import FunctionType
from typing import Any, cast

import mlx.nn as nn

Call = Callable[..., Any]  # call(layer, *args, **kwargs)
Wrap = Callable[[Call], Call]  # a class's own call -> the one to use instead


def vary(layer: nn.Module, wrap: Wrap) -> None:
    """Have `layer` answer a call with `wrap(call)`, where `call` is its class's own."""
    layer.__class__ = _variant(type(layer), wrap)


@contextmanager
def varied(layers: Sequence[nn.Module], wrap: Wrap) -> Iterator[None]:
    """`vary` every one of `layers` until the block ends."""
    kinds = [type(layer) for layer in layers]
    for layer in layers:
        vary(layer, wrap)
    try:
        yield
    finally:
        for layer, kind in zip(layers, kinds, strict=True):
            layer.__class__ = kind


@lru_cache(maxsize=64)  # a training run varies the same layers at every step
def _variant(kind: type[nn.Module], wrap: Wrap) -> type[nn.Module]:
    return type(kind.__name__, (kind,), {"__call__": wrap(kind.__call__), "__module__": kind.__module__})


def with_globals(call: Call, others: dict[str, Any]) -> Call:
    """`call`, unchanged but for the globals it looks up by the names in `others`; its module is not touched."""
    function = cast("FunctionType", call)
    changed = FunctionType(
        function.__code__,
        {**function.__globals__, **others},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    changed.__kwdefaults__ = function.__kwdefaults__
    return changed
