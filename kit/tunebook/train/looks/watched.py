"""Work that says how far it is, as events: whoever drains them may listen in between."""

from collections.abc import Generator
from contextlib import closing
from typing import TypeVar

from ...events import Working

T = TypeVar("T")


def watched(work: Generator[tuple[int, int], None, T], what: str, step: int) -> Generator[Working, None, T]:
    """What `work` returns; how far it says it is, (done, total), as events."""
    with closing(work):
        while True:
            try:
                done, total = next(work)
            except StopIteration as end:
                return end.value
            yield Working(step=step, what=what, done=done, total=total)
