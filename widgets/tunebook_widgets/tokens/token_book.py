"""All rows of an encoded set as pages to look at, those that were left out among them, and orders to leaf through them.

In come the rows, a few numbers about each and a way to decode; a page is made when it is asked for, and a huge row is
shown by its two ends. Nothing here knows how pages are drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .token_pieces import Decode, Piece, pieces

HEAD, TAIL = 700, 300  # tokens shown of a longer row
FIRST = 3  # rows shown because they come first
FEW = 6  # so few rows are all shown

_REMARKED = ("left out", "copies")  # orders whose rows say so themselves


class EncodedLike(Protocol):
    """A row as numbers."""

    @property
    def tokens(self) -> np.ndarray: ...  # (T,) ids
    @property
    def loss_mask(self) -> np.ndarray: ...  # (T,) bool
    @property
    def cut(self) -> int: ...  # tokens that were cut off behind
    @property
    def number(self) -> int: ...  # in its source


@dataclass(frozen=True)
class Page:
    """One row, ready to be drawn."""

    index: int  # among all pages
    number: int  # of the row in its source
    why: str  # it is worth looking at; may be empty
    tokens: int
    trained: int
    cut: int
    head: tuple[Piece, ...]
    hidden_tokens: int  # between head and tail
    hidden_trained: int
    tail: tuple[Piece, ...]

    @property
    def caption(self) -> str:
        """'180 tokens, 46 of them trained'."""
        return f"{self.tokens:,} tokens, {f'{self.trained:,}' if self.trained else 'none'} of them trained"

    @property
    def gap(self) -> str:
        """What stands for the tokens between head and tail; empty when there are none."""
        if not self.hidden_tokens:
            return ""
        return f"… {self.hidden_tokens:,} tokens, {self.hidden_trained:,} of them trained, are not shown …"

    @property
    def cut_note(self) -> str:
        """What stands at the end of a row that was cut; empty when it was not."""
        return f"✂ {self.cut:,} {'token' if self.cut == 1 else 'tokens'} cut off here" if self.cut else ""


class Book:
    """Pages in the source's order. `rows` are read one at a time; `read_left_out` reads a row that is not in them."""

    def __init__(
        self,
        rows: Sequence[EncodedLike],
        left_out: Sequence[int],
        read_left_out: Callable[[int], EncodedLike],
        *,
        numbers: np.ndarray,
        lengths: np.ndarray,
        cuts: np.ndarray,
        first_alike: np.ndarray,
        odd: Mapping[str, np.ndarray],
        decode: Decode,
        special: AbstractSet[int],
    ):
        """The arrays are (N,), over `rows`; `odd` names kinds of rows, each with a (N,) bool array."""
        self._rows, self._left_out, self._read_left_out = rows, left_out, read_left_out
        self._decode, self._special = decode, special
        self._first_alike = first_alike
        every = np.concatenate([numbers, np.array(left_out, dtype=np.int64)])
        self._entry = np.argsort(every, kind="stable")  # (pages,) index into rows, and then into left_out
        self._numbers = every[self._entry]  # (pages,)
        page = np.argsort(self._entry, kind="stable")  # the other way round
        orders = {
            "longest": np.argsort(-(lengths + cuts), kind="stable"),
            "most cut": np.argsort(-cuts, kind="stable")[: np.count_nonzero(cuts)],
            "left out": np.arange(len(rows), len(every)),
            "copies": np.flatnonzero(first_alike != np.arange(len(rows))),
            **{name: np.flatnonzero(marks) for name, marks in odd.items()},
        }
        self.orders = {name: page[entries] for name, entries in orders.items()}  # of pages, the most telling first

    def __len__(self):
        return len(self._entry)

    def page_of(self, number: int) -> int | None:
        """The first page of the source's row `number`, None when there is no such row."""
        place = int(np.searchsorted(self._numbers, number))
        return place if place < len(self) and self._numbers[place] == number else None

    def page(self, index: int, why: str = "") -> Page:
        """The page at `index`, in [0, len(self))."""
        entry = int(self._entry[index])
        left_out = entry >= len(self._rows)
        row = self._read_left_out(self._left_out[entry - len(self._rows)]) if left_out else self._rows[entry]
        tokens, trained = row.tokens.tolist(), [False, *row.loss_mask[1:].tolist()]  # the first is never predicted
        head, tail = len(tokens), len(tokens)
        if len(tokens) > HEAD + TAIL:
            head, tail = HEAD, len(tokens) - TAIL
        return Page(
            index=index,
            number=row.number,
            why=" · ".join(filter(None, [why, self._remark(entry)])),
            tokens=len(tokens),
            trained=sum(trained),
            cut=row.cut,
            head=self._pieces(tokens[:head], trained[:head]),
            hidden_tokens=tail - head,
            hidden_trained=sum(trained[head:tail]),
            tail=self._pieces(tokens[tail:], trained[tail:]),
        )

    def chosen(self) -> list[Page]:
        """A handful of pages worth a look, each with the reason: the first, and the most telling of every order."""
        reasons: dict[int, list[str]] = {index: [] for index in range(len(self) if len(self) <= FEW else FIRST)}
        for name, order in self.orders.items():
            for index in order[:1].tolist():
                reasons.setdefault(index, []).extend([] if name in _REMARKED else [name])
        return [self.page(index, " · ".join(why)) for index, why in reasons.items()]

    def _remark(self, entry: int) -> str:
        """'left out', 'a copy of row 3', or nothing."""
        if entry >= len(self._rows):
            return "left out"
        first = int(self._first_alike[entry])
        return "" if first == entry else f"a copy of row {self._rows[first].number}"

    def _pieces(self, tokens: list[int], trained: list[bool]) -> tuple[Piece, ...]:
        return tuple(pieces(tokens, trained, decode=self._decode, special=self._special))
