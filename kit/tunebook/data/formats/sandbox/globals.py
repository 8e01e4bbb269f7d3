"""The names that a template may use beside Jinja's own, as transformers documents them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NoReturn, final

from jinja2.exceptions import TemplateError
from jinja2.utils import Namespace

from .budget import TemplateLimit


def _raise_exception(message: Any) -> NoReturn:
    raise TemplateError(str(message))


def _strftime_now(format: str) -> str:
    if len(format) > 10_000:
        raise TemplateLimit("formats the time with more than 10,000 characters")
    return datetime.now().strftime(format)


@final
class _Dict:
    """`dict(...)` and `dict.fromkeys(...)` of a template, without the attributes of the class."""

    def __call__(self, *args: Any, **options: Any) -> dict[Any, Any]:
        return dict(*args, **options)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


@final
class _Namespace(Namespace):
    """`namespace(...)` of a template; shown as text it is a word, for it may hold itself."""

    def __init__(*args: Any, **options: Any):
        self, values = args[0], dict(*args[1:], **options)
        for name in values:
            _check_attribute(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _check_attribute(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise TemplateError(f"A namespace can have no attribute {name!r}; names begin with a letter.")


GLOBALS = {
    "raise_exception": _raise_exception,
    "strftime_now": _strftime_now,
    "dict": _Dict(),
    "namespace": _Namespace,
}
