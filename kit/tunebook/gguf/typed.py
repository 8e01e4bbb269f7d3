"""Values of a .gguf's keys, held to the kind and range their reader counts on; what differs is a sentence."""

import math
from typing import Any

from .container import shown

_LARGEST = 2**31 - 1  # config.json's readers count with 32 bits


def text_of(keys: dict[str, Any], name: str, default: str | None = None) -> str:
    """A string. Raises ValueError for a value of another kind, and for a missing one without a default."""
    value = _value(keys, name, default)
    if not isinstance(value, str):
        raise ValueError(f"{name} is {shown(value)} in this GGUF; it must be a string.")
    return value


def truth_of(keys: dict[str, Any], name: str, default: bool) -> bool:
    """True or false."""
    value = _value(keys, name, default)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {shown(value)} in this GGUF; it must be true or false.")
    return value


def count_of(keys: dict[str, Any], name: str, default: int | None = None, *, least: int = 1) -> int:
    """A whole number of at least `least`."""
    value = _value(keys, name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST:
        raise ValueError(f"{name} is {shown(value)} in this GGUF; it must be a whole number from {least} on.")
    return value


def number_of(keys: dict[str, Any], name: str) -> float:
    """A finite number above zero."""
    value = _value(keys, name, None)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} is {shown(value)} in this GGUF; it must be a number above zero.")
    return float(value)


def list_of(keys: dict[str, Any], name: str, kind: type, default: list, *, length: int | None = None) -> list:
    """A list of strings, or of numbers, with `length` entries where that is given."""
    value = _value(keys, name, default)
    kinds = (int, float) if kind is float else (kind,)
    if not isinstance(value, list) or any(type(item) not in kinds for item in value[:1]):
        raise ValueError(f"{name} is {shown(value)} in this GGUF; it must be a list of {kind.__name__}.")
    if length is not None and len(value) != length:
        raise ValueError(f"{name} has {len(value)} entries in this GGUF; there are {length} tokens.")
    return value


def _value(keys: dict[str, Any], name: str, default: Any) -> Any:
    if name in keys:
        return keys[name]
    if default is None:
        raise ValueError(f"This GGUF has no {name}.")
    return default
