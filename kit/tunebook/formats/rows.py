"""The columns of a row, checked, and what becomes of rows that fail: they are counted and reported once, together."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..sources import Row


class BadRow(ValueError):
    """One row that cannot become an example; its message says what is wrong with it, without the row's number."""


@dataclass
class BadRows:
    """The bad rows met so far: how many, the first, and the kinds of complaint."""

    count: int = 0
    first: int | None = None
    kinds: Counter[str] = field(default_factory=Counter)
    first_of: dict[str, int] = field(default_factory=dict)  # complaint -> the first row it is about

    def add(self, index: int, error: BadRow) -> None:
        """Remember that row `index` is bad."""
        self.count += 1
        self.first = index if self.first is None else self.first
        self.kinds[str(error)] += 1
        self.first_of.setdefault(str(error), index)

    def check(self, total: int) -> None:
        """Raise ValueError when any of `total` rows was bad: how many, the first, and the three commonest reasons."""
        if not self.count:
            return
        said = "; ".join(
            f"{count}x {text}"
            if self.first_of[text] == self.first
            else f"{count}x (first: row {self.first_of[text]}) {text}"
            for text, count in self.kinds.most_common(3)
        )
        raise ValueError(f"{self.count} of {total} rows cannot be trained on (first: row {self.first}): {said}")


def column(row: Row, name: str, *kinds: type) -> Any:
    """The value of a column, of one of `kinds` and not empty; raises BadRow otherwise."""
    value = row.get(name)
    if isinstance(value, np.ndarray):  # as pandas and `datasets` give lists
        value = value.tolist()
    if not isinstance(value, kinds):
        wanted = " or a ".join(kind.__name__ for kind in kinds)
        raise BadRow(f"its column '{name}' is a {type(value).__name__}, not a {wanted}.")
    if not value:
        raise BadRow(f"its column '{name}' is empty.")
    return value
