"""Whether a value that JSON gave is one of the type a record declares: a type in, a check out. Knows no record."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

IsOne = Callable[[Any], bool]


def check_of(kind: Any) -> IsOne:
    """The check of a declared type. Raises KeyError for one that no record of ours has.

    >>> check_of(float)(3), check_of(int | None)("3")
    (True, False)
    """
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _IS_ONE[str]  # whether it is a name that is known is asked apart
    return _IS_ONE[kind]


def is_int(value: Any) -> bool:
    """Whether it is an integer that 64 bits hold."""
    return type(value) is int and -(2**63) <= value < 2**63


def _is_float(value: Any) -> bool:
    """A number that a float can hold, or not; integers are written where a float happens to be whole."""
    return type(value) is float or is_int(value)


_IS_ONE: dict[Any, IsOne] = {
    int: is_int,
    float: _is_float,
    str: lambda value: type(value) is str,
    bool: lambda value: type(value) is bool,
    dict[str, Any]: lambda value: type(value) is dict,
    dict[str, int]: lambda value: type(value) is dict and all(map(is_int, value.values())),
    dict[str, float]: lambda value: type(value) is dict and all(map(_is_float, value.values())),
    dict[str, str]: lambda value: type(value) is dict and all(type(one) is str for one in value.values()),
    list[str]: lambda value: type(value) is list and all(type(one) is str for one in value),
    list[float]: lambda value: type(value) is list and all(map(_is_float, value)),
    int | None: lambda value: value is None or is_int(value),
    float | None: lambda value: value is None or _is_float(value),
    str | None: lambda value: value is None or type(value) is str,
}
