"""What is shown of settings where a person asks for help: each by name, with its default and its meaning."""

import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

from .values import meaning

WIDTH = 100  # characters, of a pop-up in a notebook


def documented(text: str | None, heading: str, kinds: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The docstring `text` with a list of those of `kinds` that have a meaning, each with its default where it has one.

    The docstring comes back without the indentation of its source.
    """
    lines: list[str] = []
    for name, kind in kinds.items():
        if said := meaning(kind):
            default = f" = {defaults[name]!r}" if name in defaults else ""
            lines += textwrap.wrap(
                f"{name}{default}: {said}", WIDTH, initial_indent="    ", subsequent_indent="        "
            )
    said = inspect.cleandoc(text or "")
    return "\n".join([said, "", f"{heading}:", *lines]) if lines else said
