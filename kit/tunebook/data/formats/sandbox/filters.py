"""The filters and tests of a template, each charged for before it runs."""

import json
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from .budget import CONTAINERS, SIZED, as_list, charge, weigh
from .growth import growth_of_filter

_COMPARING = (
    *("eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "le", "<="),
    *("gt", ">", "greaterthan", "ge", ">=", "in"),
)


def charged_filters(plain: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """The filters of Jinja, charged for; `tojson` is that of transformers."""
    return {name: _charged_filter(name, call) for name, call in {**plain, "tojson": _tojson}.items()}


def charged_tests(plain: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Those tests of Jinja that compare, charged for."""
    return {name: _charged_test(plain[name]) for name in _COMPARING}


def _charged_filter(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    takes_context = "jinja_pass_arg" in vars(plain) if hasattr(plain, "__dict__") else False

    @wraps(plain)
    def charged(*args: Any, **options: Any) -> Any:
        before, given = (args[:1], args[1:]) if takes_context else ((), args)
        if given:
            if name in ("join", "sum", "list", "sort", "unique", "groupby") and not isinstance(given[0], SIZED):
                given = (as_list(given[0]), *given[1:])  # what comes one by one is charged for once it is there
            charge(growth_of_filter(name, given[0], given[1:], options))
        return plain(*before, *given, **options)

    return charged


def _charged_test(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def charged(*args: Any) -> Any:
        for value in args:
            if isinstance(value, (*CONTAINERS, Mapping)):
                weigh(value)
        return plain(*args)

    return charged


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
