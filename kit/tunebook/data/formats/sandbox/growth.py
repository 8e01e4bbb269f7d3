"""How much an operator, a method or a filter of a template makes at most, told before it is made."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .budget import SIZED, TemplateLimit, weigh

MOST_BITS = 16_384  # of a whole number


def growth_of_operator(operator: str, left: Any, right: Any) -> int:
    """How many characters or items an operator makes at most. Raises TemplateLimit for a number with too many bits."""
    if isinstance(left, int) and isinstance(right, int):
        bits = max(left.bit_length(), right.bit_length())
        if operator == "*":
            bits = left.bit_length() + right.bit_length()
        elif operator == "**":
            bits = max(bits, left.bit_length() * max(right, 1))
        if bits > MOST_BITS:
            raise TemplateLimit(f"computes with numbers of more than {MOST_BITS} bits")
        return 0
    if operator == "%" and isinstance(left, str | bytes):
        return weigh(right) + _widths(left, right)
    sizes = [len(side) for side in (left, right) if isinstance(side, SIZED)]
    counts = [max(side, 0) for side in (left, right) if isinstance(side, int)]
    return sizes[0] * counts[0] * 8 if operator == "*" and sizes and counts else sum(sizes)


def _widths(text: str | bytes, values: Any) -> int:
    """The characters that the widths in a %-format ask for."""
    text = text if isinstance(text, str) else text.decode("latin-1")
    found = re.findall(r"%(?:\([^)]*\))?[#0\- +]*(\*|\d{1,18})?(?:\.(\*|\d{1,18}))?", text)
    widths = [width for pair in found for width in pair if width]
    given = values if isinstance(values, tuple) else (values,)
    stars = sum(abs(value) for value in given if isinstance(value, int)) if "*" in widths else 0
    return len(text) + stars * widths.count("*") + sum(int(width) for width in widths if width != "*")


def growth_of_method(owner: Any, name: str, args: Sequence[Any]) -> int:
    """How many characters or items a method of a built-in type makes at most."""
    ints = sum(abs(value) for value in args if isinstance(value, int))
    if not isinstance(owner, str | bytes):
        return ints + (weigh(owner) if name in ("index", "count") else 0)
    size, first = len(owner), args[0] if args else None
    if name == "replace" and len(args) > 1 and isinstance(first, str | bytes) and isinstance(args[1], str | bytes):
        return size + owner.count(first) * len(args[1])  # pyright: ignore[reportArgumentType]
    if name == "join" and isinstance(first, list):
        return size * len(first) + weigh(first)
    if name in ("split", "rsplit", "splitlines"):
        return size + 8 * (owner.count(first) if isinstance(first, type(owner)) and first else size // 2)  # pyright: ignore[reportArgumentType]
    if name == "expandtabs":
        return size + owner.count("\t" if isinstance(owner, str) else b"\t") * (ints or 8)  # pyright: ignore[reportArgumentType]
    if name == "translate" and isinstance(first, Mapping):
        return size * max((len(text) for text in first.values() if isinstance(text, str)), default=1)
    return size + ints


def growth_of_filter(name: str, value: Any, args: Sequence[Any], options: Mapping[str, Any]) -> int:
    """How many characters or items a filter makes at most, or by how many it takes longer."""
    given = (*args, *options.values())
    ints = sum(abs(number) for number in given if isinstance(number, int))
    texts = [text for text in given if isinstance(text, str)]
    if name in _SHALLOW:
        return ints
    weight = weigh(value)
    for other in given:
        weigh(other)
    if name == "round" and ints > 400:
        raise TemplateLimit("rounds to more than 400 digits")
    if name == "replace" and len(texts) > 1 and isinstance(value, str):
        return value.count(texts[0]) * len(texts[1])
    if name == "join":
        return len(value) * sum(map(len, texts))
    if name == "indent":
        return (str(value).count("\n") + 1) * (ints or 4 + sum(map(len, texts)))
    if name == "tojson":
        return weight * ints
    if name == "format":
        return _widths(str(value), tuple(args))
    if name == "sum" and not isinstance(options.get("start", 0), int | float):
        return weight * weight
    return (
        ints
        + weight * _TIMES.get(name, 0) * (1 + sum(map(len, texts)) if name == "wordwrap" else 1)
        + (weight * weight // 1000 if name in ("striptags", "urlize") else 0)
    )


# Filters that look at no part of their value, or at each when it is asked for.
_SHALLOW = (
    *("attr", "batch", "count", "d", "default", "first", "items", "last", "length", "map", "random"),
    *("reject", "rejectattr", "select", "selectattr", "slice"),
)
# Filters that take so many times longer than what they write is long.
_TIMES = {"list": 8, "sort": 8, "unique": 8, "groupby": 8, "dictsort": 8, "wordwrap": 8, "pprint": 16, "title": 8}
