"""Progress bars for anything that takes over two seconds.

They are text, not widgets: a widget is a broken box in a saved notebook once its kernel is gone.
"""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from .inert import one_line

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int | None = None) -> "tqdm[T]":
    """Iterate over `items` with a bar that shows only if it takes over two seconds, and goes when it is done.

    `total` is how many there are, where they cannot be counted beforehand.
    """
    return tqdm(items, total=total, desc=one_line(what), delay=2, leave=False, file=sys.stdout)


def bytes_bar(total: int, what: str) -> tqdm:
    """A bar to `update` with numbers of bytes; it shows and goes as `progress` does."""
    return tqdm(total=total, desc=one_line(what), delay=2, leave=False, file=sys.stdout, unit="B", unit_scale=True)
