"""What rendering one conversation may take: all that is about to be made or looked through is charged for here."""

import time
from collections.abc import ItemsView, Iterable, KeysView, Mapping, ValuesView
from contextvars import ContextVar
from typing import Any, final

Span = tuple[int, int]  # first character and one past the last

SECONDS = 1.0  # of processor time for one conversation, and one more for each million characters of it
CHARACTERS = 32_000_000  # that may be written, copied or compared for one, and 16 more for each it has

CONTAINERS = (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)
SIZED = (str, bytes, Mapping, *CONTAINERS)


class TemplateLimit(ValueError):
    """A template that would take more than it may; the message says what, to go on a sentence with."""


@final
class Budget:
    """What is left of the limits while one conversation is rendered."""

    def __init__(self, size: int):
        self.characters = CHARACTERS + 16 * size
        self.seconds = SECONDS + size / 1e6
        self.until = time.thread_time() + self.seconds
        self.written = 0  # characters
        self.spans: list[Span] = []
        self._left, self._charges = self.characters, 0

    def charge(self, characters: int) -> None:
        """Take off what is about to be made. Raises TemplateLimit."""
        self._left -= characters + 1
        self._charges += 1
        if self._left < 0:
            raise TemplateLimit(f"writes or copies more than {self.characters:,} characters for one conversation")
        if not self._charges % 64 and time.thread_time() > self.until:
            raise TemplateLimit(f"takes more than {self.seconds:.0f} seconds for one conversation")


current_budget: ContextVar[Budget] = ContextVar("tunebook-template-budget")


def charge(characters: int) -> None:
    current_budget.get().charge(characters)


def weigh(value: Any) -> int:
    """Charge for every part of a value, as turning it into text would meet them; returns what that came to.

    Lists that hold one list twice, at every level, are small in memory and endless as text.
    """
    total, parts = 0, [value]
    while parts:
        part = parts.pop()
        size = len(part) if isinstance(part, SIZED) else 1
        charge(size)
        total += size
        if isinstance(part, Mapping):
            parts += part.keys()
            parts += part.values()
        elif isinstance(part, CONTAINERS):
            parts += part
    return total


def as_list(value: Any) -> Any:
    """What comes one by one as a list, each item charged for; anything else as it is."""
    if isinstance(value, SIZED) or not isinstance(value, Iterable):
        return value
    items = []
    for item in value:
        charge(8)
        items.append(item)
    return items
