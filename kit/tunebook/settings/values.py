"""A value and the type it is declared with in; the value as that type has it out, or in words what it has to be.

Types are those of annotations: numbers, texts, choices, unions, lists, `Annotated` with limits. What is none of these
is taken as it is. A text is never taken for a number: the message says what to write in its place.
"""

import ast
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from numbers import Integral, Real
from operator import or_
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin

TINIEST = 1.2e-38  # rounded up, the smallest float32 that is computed with in full

_YES_OR_NO = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_LISTS = (list, tuple, Sequence)


@dataclass(frozen=True)
class Limit:
    """What has to hold of a value besides its type."""

    holds: Callable[[Any], bool]
    words: str  # that go on from those for the type, such as "a whole number"
    before: Callable[[Any], Any] = lambda value: value  # makes of what is given what the type is asked about


Count = Annotated[int, Limit(lambda x: x >= 1, ", at least 1")]
CountOrZero = Annotated[int, Limit(lambda x: x >= 0, ", at least 0")]
Positive = Annotated[float, Limit(lambda x: x > 0, " above 0")]
NotNegative = Annotated[float, Limit(lambda x: x >= 0, ", 0 or more")]
Share = Annotated[float, Limit(lambda x: 0 <= x < 1, ", at least 0 and below 1")]
_IN_FLOAT32 = f" above 0 (below {TINIEST} it is 0 for float32, the type of all updates)"
Rate = Annotated[float, Limit(lambda x: x >= TINIEST, _IN_FLOAT32)]
AtMostOne = Annotated[float, Limit(lambda x: 0 < x <= 1, " above 0, at most 1")]
Folder = Annotated[str, Limit(bool, " or a path, not empty", before=lambda x: os.fspath(x) if _is_path(x) else x)]
SomeNames = Annotated[tuple[str, ...], Limit(bool, ", at least one")]


class Unfit(ValueError):
    """A value that its type does not take."""


def complaint(name: str, value: Any, kind: Any) -> str:
    """A sentence on a value that `kind` does not take."""
    choices, rest = [], []
    for part in _parts(kind):
        if get_origin(part) is Literal:
            choices += _choices(part)
        else:
            rest.append(words(part))
    if choices and words(bool) in rest:
        rest.remove(words(bool))
        choices = ["True", "False", *choices]
    said = f"choose one of {', '.join(choices)}" if choices else ""
    if rest:
        said = f"{said}, or {_either(rest)}" if said else f"it must be {_either(rest)}"
    meant = _meant(value, kind) if isinstance(value, str) else None
    instead = "" if meant is None else f"; write {name.rpartition('.')[2]}={meant!r}"
    made = value if isinstance(value, type) and _is_kind_of(value, kind) else _called(value, kind)
    if made is not None:
        instead = f"; write {name.rpartition('.')[2]}={made.__name__}()"
    return f"{name} is {_shown(value)}; {said}{instead}."


def read(value: Any, kind: Any) -> Any:
    """`value` as `kind` has it. Raises Unfit."""
    parts = _parts(kind)
    if len(parts) > 1:
        return _first_that_fits(value, parts)
    (kind,) = parts
    if get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        for limit in more:
            value = limit.before(value) if isinstance(limit, Limit) else value
        taken = read(value, inner)
        if not all(limit.holds(taken) for limit in more if isinstance(limit, Limit)):
            raise Unfit
        return taken
    if get_origin(kind) is Literal:
        return _chosen(value, get_args(kind))
    if get_origin(kind) in _LISTS:
        taken = _listed(value, get_args(kind)[0])
        if _length(kind) not in (None, len(taken)):
            raise Unfit
        return taken
    if kind in _PLAIN:
        return _PLAIN[kind](value)
    made_of = get_origin(kind) or kind  # a Mapping of a Mapping[str, Any]
    if made_of is Iterable:  # rows, or a function that gives them: whoever reads them says what is wrong with them
        return value
    if isinstance(made_of, type) and Protocol not in made_of.__bases__ and not isinstance(value, made_of):
        raise Unfit
    return value


def words(kind: Any) -> str:
    """What a value of `kind` is called in a sentence."""
    parts = _parts(kind)
    if len(parts) > 1:
        return _either(words(part) for part in parts)
    (kind,) = parts
    if get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        return words(inner) + "".join(limit.words for limit in more if isinstance(limit, Limit))
    if get_origin(kind) is Literal:
        return " or ".join(_choices(kind))
    if get_origin(kind) in _LISTS:
        each, length = get_args(kind)[0], _length(kind)
        if each is str:
            return "a list of texts" if length is None else f"a list of {length} texts"
        return f"a list, each {words(each)}"
    made_of = get_origin(kind) or kind
    return _WORDS.get(made_of) or f"a{'n' if made_of.__name__[0] in 'AEIO' else ''} {made_of.__name__}"


def bare(kind: Any) -> Any:
    """`kind` without its limits and its meaning, as a signature shows it."""
    if get_origin(kind) is Annotated:
        return bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return reduce(or_, (bare(part) for part in get_args(kind)))
    if get_origin(kind) is tuple:
        return tuple[tuple(part if part is ... else bare(part) for part in get_args(kind))]
    return kind


def meaning(kind: Any) -> str:
    """The sentence on what a setting means that stands in its `Annotated`; nothing where none does."""
    said = [part for part in get_args(kind)[1:] if isinstance(part, str)] if get_origin(kind) is Annotated else []
    return " ".join(said)


def _is_kind_of(value: type, kind: Any) -> bool:
    """Whether what the class `value` makes would be taken, and not the class itself."""
    return any(isinstance(part, type) and part not in _PLAIN and issubclass(value, part) for part in _parts(kind))


def _called(value: Any, kind: Any) -> type | None:
    """The class that makes what would be taken, where `value` is its name, in capitals or not."""
    if not isinstance(value, str):
        return None
    found = [part for part in _parts(kind) if isinstance(part, type) and part not in _PLAIN]
    for one in found:  # grows as it is read
        found += one.__subclasses__()
    return next((one for one in found if one.__name__.lower() == value.strip().lower()), None)


def _length(kind: Any) -> int | None:
    """How many a list has to have; None: any number."""
    parts = get_args(kind)
    return len(parts) if get_origin(kind) is tuple and parts[-1] is not ... else None


def _parts(kind: Any) -> list[Any]:
    """The members of a union, one that has only a meaning in addition taken for what it is."""
    if get_origin(kind) is Annotated and not any(isinstance(more, Limit) for more in get_args(kind)[1:]):
        return _parts(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [part for member in get_args(kind) for part in _parts(member)]
    return [kind]


def _first_that_fits(value: Any, parts: Sequence[Any]) -> Any:
    for part in parts:
        try:
            return read(value, part)
        except Unfit:
            continue
    raise Unfit


def _chosen(value: Any, choices: Sequence[Any]) -> Any:
    for choice in choices:
        if type(choice) is bool:
            try:
                if _truth(value) is choice:
                    return choice
            except Unfit:
                continue
        elif isinstance(value, str) and value == choice:
            return choice
    raise Unfit


def _listed(value: Any, kind: Any) -> tuple[Any, ...]:
    """A list; one text where texts are taken is a list of it."""
    if isinstance(value, str):
        return (read(value, kind),)
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)  # a set has an order of its own in every process
    if isinstance(value, bytes | Mapping) or not isinstance(value, Collection | Iterator):
        raise Unfit
    return tuple(read(item, kind) for item in value)


def _truth(value: Any) -> bool:
    """True or False, also as 0 and 1 and as NumPy has them."""
    if isinstance(value, str) or not (isinstance(value, bool | Real) or type(value).__name__ == "bool"):
        raise Unfit
    if value not in (0, 1):
        raise Unfit
    return bool(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise Unfit
    return int(value)


def _number(value: Any) -> float:
    """A finite number, as it is where Python made it; a plain no is the 0 that means off."""
    if value is True or not isinstance(value, Real) or not math.isfinite(value):
        raise Unfit
    return value if isinstance(value, int | float) and value is not False else float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unfit
    return value


def _is_path(value: Any) -> bool:
    return isinstance(value, os.PathLike)


def _nothing(value: Any) -> None:
    if value is not None:
        raise Unfit


def _anything(value: Any) -> Any:
    return value


_PLAIN: dict[Any, Callable[[Any], Any]] = {
    bool: _truth,
    int: _whole,
    float: _number,
    str: _text,
    NoneType: _nothing,
    Any: _anything,
}
_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    NoneType: "None",
    Mapping: "a dict",
    Callable: "a function",
}


def _either(kinds: Iterable[str]) -> str:
    """Names of kinds of values, joined to one."""
    *first, last = list(kinds)
    if not first:
        return last
    return f"{', '.join(first)}{',' if any(',' in word for word in first) else ''} or {last}"


def _choices(kind: Any) -> list[str]:
    return [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}... ({type(value).__name__})"


def _meant(text: str, kind: Any) -> Any:
    """The value that a text reads like, if `kind` takes that; None for all others."""
    try:
        value = _YES_OR_NO[text.strip().lower()] if text.strip().lower() in _YES_OR_NO else ast.literal_eval(text)
        return read(value, kind)
    except (Unfit, ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
