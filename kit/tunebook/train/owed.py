"""Events of what is done already and counted, which are told even where an interrupt falls between doing and telling.

A run that is interrupted there saves what it has done, and one that goes on from there does not do it again: an event
that got lost would be missing from the record for good.
"""

from collections import deque
from collections.abc import Generator
from typing import final

from ..events import Event


@final
class Owed:
    """Events that are to be told, the first first. Each is owed until whoever drains them asks for the next."""

    def __init__(self):
        self._events: deque[Event] = deque()

    def add(self, *events: Event) -> None:
        """Owe `events` too; inside `interrupts.held_back`, together with what they tell of."""
        self._events.extend(events)

    def told(self) -> Generator[Event, None, None]:
        """Those that are owed. An interrupt leaves the one that was being told: it comes once more, first."""
        while self._events:
            yield self._events[0]
            self._events.popleft()
