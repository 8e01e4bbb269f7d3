"""The columns of a row, checked, and what becomes of rows that fail: they are counted and reported once, together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..sources import Place, Row, named, row_number, told
from .mends import Mend, formatting, parsed_text, passed, turned


class BadRow(ValueError):
    """One row that cannot become an example; its message says what is wrong with it, without the row's number."""

    def __init__(self, message: str, mend: Mend | None = None):
        super().__init__(message)
        self.mend = mend


class NoFormat(ValueError):
    """Rows of no format, or of several; each of `mending` is an argument with which they may be what was meant."""

    def __init__(self, message: str, *mending: str):
        super().__init__(message)
        self.mending = mending


class RefusedRows(ValueError):
    """Rows of a set, or of a part of it, that cannot be trained on."""


@dataclass
class BadRows:
    """The bad rows met so far, under what is wrong with them."""

    reasons: dict[str, list[int]] = field(default_factory=dict)  # the numbers of the rows
    mends: dict[str, Mend] = field(default_factory=dict)  # by whom they are for

    def add(self, index: int, error: BadRow) -> None:
        """Remember that row `index` is bad."""
        self.reasons.setdefault(str(error), []).append(index)
        if error.mend is not None:
            self.mends.setdefault(error.mend.when, error.mend)

    @property
    def numbers(self) -> set[int]:
        """Of all bad rows."""
        return {number for numbers in self.reasons.values() for number in numbers}

    @property
    def mending(self) -> str:
        """The argument that mends the rows whose columns alone are wrong."""
        return formatting(list(self.mends.values()))

    def check(
        self,
        total: int,
        *,
        name: str = "",
        place: Callable[[int], Place] = row_number,
        can_skip: bool = False,
    ) -> None:
        """Raise RefusedRows when any of `total` rows was bad: which, why, and what can be done about it.

        `can_skip` says that skip_bad_rows can be passed where these rows came from.
        """
        if not self.reasons:
            return
        count = len(self.numbers)
        heading = f"{count} of {total} rows{f' of {name}' if name else ''} cannot be trained on"
        others = f" {total - count}" if total - count > 1 else " one"
        moves = [f"skip_bad_rows=True trains on the other{others}."] if can_skip and count < total else []
        if self.mends:
            moves.append(f"To mend the columns, {passed(self.mending)}")
        if len(self.reasons) == 1:
            [(reason, numbers)] = self.reasons.items()
            raise RefusedRows(" ".join([f"{heading} ({named(list(map(place, numbers)))}): {reason}", *moves]))
        raise RefusedRows("\n".join([f"{heading}:", *(f"- {line}" for line in self.told(place)), *moves]))

    def told(self, place: Callable[[int], Place]) -> list[str]:
        """'lines 3 and 9: its text is empty.', one for each reason, at a length to read."""
        return told({reason: list(map(place, numbers)) for reason, numbers in self.reasons.items()})


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
    value = listed(row.get(name))
    if is_missing(value):
        raise BadRow(f"its column '{name}' has no value; fill it in, or drop the row.")
    if not isinstance(value, kinds):
        wanted = " or a ".join(kind.__name__ for kind in kinds if kind is not tuple)
        move, mend = _as_kind(value, name, kinds)
        raise BadRow(f"its column '{name}' is {_of_type(value)}, not a {wanted}; {move}.", mend)
    if not value:
        raise BadRow(f"its column '{name}' is empty; fill it in, or drop the row.")
    return value


def is_missing(value: Any) -> bool:
    """Whether nothing is there: None, or the NaN that pandas and some writers of JSON have for it."""
    return value is None or (isinstance(value, float) and value != value)


def _of_type(value: Any) -> str:
    kind = f"a {type(value).__name__}"
    return f"{shown(value)}, {kind}" if isinstance(value, int | float) else kind


def _as_kind(value: Any, name: str, kinds: tuple[type, ...]) -> tuple[str, Mend | None]:
    """(the next move, how it is mended) for a value that is none of `kinds`."""
    if list in kinds and isinstance(value, str) and value.lstrip().startswith("["):
        return "it is JSON text, to be read with json.loads", parsed_text(name)
    if list in kinds and isinstance(value, Mapping) and value and all(isinstance(one, list) for one in value.values()):
        return "it is a dict of lists, to be turned into a list of dicts", turned(name)
    if isinstance(value, int | float) and str in kinds:
        return "put it in quotes", None
    return "correct it, or drop the row", None
