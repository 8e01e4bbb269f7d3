"""The columns of a row, checked, and what becomes of rows that fail: they are counted and reported once, together."""

from collections import Counter
from collections.abc import Mapping
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


def listed(value: Any) -> Any:
    """A value with lists and numbers in place of NumPy's, which pandas and `datasets` give, at every depth."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: listed(inner) for key, inner in value.items()}
    return [listed(inner) for inner in value] if isinstance(value, list | tuple) else value


def shown(value: Any) -> str:
    """A value as a message may say it: short, and of what has no short form its type."""
    if value is None or isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return f"{value!r:.60}"
    return f"a {type(value).__name__}"


def is_whole(text: str) -> bool:
    """Whether a text is of whole characters: JSON can spell half of a pair (`\\ud800`), which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_whole(text: str) -> None:
    """Raise BadRow for a text that no tokenizer takes."""
    if not is_whole(text):
        raise BadRow("its text holds half of a character (a surrogate), which no tokenizer reads; take it out.")


def column(row: Row, name: str, *kinds: type) -> Any:
    """The value of a column, of one of `kinds` and not empty; raises BadRow otherwise."""
    value = row.get(name)
    value = listed(value)
    if not isinstance(value, kinds):
        wanted = " or a ".join(kind.__name__ for kind in kinds)
        raise BadRow(f"its column '{name}' is a {type(value).__name__}, not a {wanted}.")
    if not value:
        raise BadRow(f"its column '{name}' is empty.")
    return value
