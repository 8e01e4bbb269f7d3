"""What a processor of texts and images would do, as plain values: two of the same fingerprint make the same of a row.

Read from what it and its image processor hold; the tokenizer it has within is not looked into.
"""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any


def fingerprint(processor: Any) -> dict[str, Any]:
    """Class and plain settings of a processor and of its image processor: tokens, sizes, patches, splitting."""
    return {"processor": _settings(processor), "image_processor": _settings(processor.image_processor)}


def _settings(of: Any) -> dict[str, Any]:
    plain = {name: _plain(value) for name, value in vars(of).items() if _is_plain(value)}
    return {"class": f"{type(of).__module__}.{type(of).__qualname__}", **plain}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | tuple | Mapping) or is_dataclass(value)


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
