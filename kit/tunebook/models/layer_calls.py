"""Layer objects that answer a call in another way, for good or for a while; classes, and all other objects, stay.

A changed object becomes an instance of a subclass made here, so `isinstance`, names and parameters are what they were.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FunctionType
from typing import Any, cast, final

import mlx.nn as nn

Call = Callable[..., Any]  # call(layer, *args, **kwargs)
Wrap = Callable[[Call], Call]  # a class's own call -> the one to use instead


def replace_call(layer: nn.Module, wrap: Wrap) -> None:
    """Have `layer` answer a call with `wrap(call)`, where `call` is its class's own."""
    layer.__class__ = _variant(type(layer), wrap)


@contextmanager
def replaced_calls(layers: Sequence[nn.Module], wrap: Wrap) -> Iterator[None]:
    """`replace_call` every one of `layers` until the block ends; those of one class get one class."""
    kinds = [type(layer) for layer in layers]
    variants = {kind: _variant(kind, wrap) for kind in set(kinds)}
    _assign(layers, [variants[kind] for kind in kinds])
    try:
        yield
    finally:
        _assign(layers, kinds)


@final
class Form:
    """What several changes make of the layers of a module: found once, and entered as often as wanted, one at a time.

    `changes` are entered one within the other when the form is made, so that a later one finds what an earlier one did,
    and left again. Layers that are put into the module afterwards are not of the form.
    """

    def __init__(self, module: nn.Module, changes: Iterable[Callable[[], AbstractContextManager[Any]]]):
        layers = module.modules()
        plain = [type(layer) for layer in layers]
        with ExitStack() as entered:
            for change in changes:
                entered.enter_context(change())
            changed = [type(layer) for layer in layers]
        differ = [place for place in range(len(layers)) if changed[place] is not plain[place]]
        self._layers = [layers[place] for place in differ]
        self._plain = [plain[place] for place in differ]
        self._changed = [changed[place] for place in differ]

    def __enter__(self) -> None:
        _assign(self._layers, self._changed)

    def __exit__(self, *_: object) -> None:
        _assign(self._layers, self._plain)


def looked_up(layer: nn.Module, name: str) -> Any:
    """What a layer's own call finds under a global name; None when it looks up no such name."""
    call = type(layer).__call__
    if not isinstance(call, FunctionType) or name not in call.__code__.co_names:  # a container's is never called
        return None
    return call.__globals__.get(name)


def replaced_name(
    layers: Sequence[nn.Module], name: str, is_theirs: Callable[[Any], bool], ours: Callable[[Any], Any]
) -> AbstractContextManager[None]:
    """Have those of `layers` whose call looks up `name`, and finds what `is_theirs`, find `ours(theirs)` instead.

    Until the block ends; the module that defines the name is not touched.
    """

    def finding_ours(plain: Call) -> Call:
        return with_globals(plain, {name: ours(cast("FunctionType", plain).__globals__[name])})

    return replaced_calls([layer for layer in layers if is_theirs(looked_up(layer, name))], finding_ours)


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


def _variant(kind: type[nn.Module], wrap: Wrap) -> type[nn.Module]:
    return type(kind.__name__, (kind,), {"__call__": wrap(kind.__call__), "__module__": kind.__module__})


def _assign(layers: Sequence[nn.Module], kinds: Sequence[type[nn.Module]]) -> None:
    for layer, kind in zip(layers, kinds, strict=True):
        layer.__class__ = kind
