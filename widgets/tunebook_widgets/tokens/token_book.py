"""All rows of an encoded set as pages to look at, those that were left out among them, and orders to leaf through them.

In come the rows, a few numbers about each and a way to decode; a page is made when it is asked for, and a huge row is
shown by its two ends. Nothing here knows how pages are drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from .token_pieces import Decode, Piece, pieces
from .token_spread import EncodedLike, Stretch, spread

FIRST = 3  # rows shown because they come first
FEW = 6  # so few rows are all shown

JUDGED = {None: "", True: "a good answer", False: "a bad answer"}  # by its label
_REMARKED = ("left out", "copies")  # orders whose rows say so themselves


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
    title: str  # 'Row 3', or 'Line 4' of a text file
    asked: int  # the number one asks for this row by
    between: str = ""  # what the tail is, where it is no end of the row

    @property
    def caption(self) -> str:
        """'180 tokens, 46 of them trained'."""
        return f"{self.tokens:,} tokens, {f'{self.trained:,}' if self.trained else 'none'} of them trained"

    @property
    def gap(self) -> str:
        """What stands between head and tail; empty when nothing does."""
        hidden = f"… {self.hidden_tokens:,} tokens, {self.hidden_trained:,} of them trained, are not shown …"
        return "\n".join(filter(None, [hidden if self.hidden_tokens else "", self.between]))

    @property
    def cut_note(self) -> str:
        """What stands at the end of a row that was cut; empty when it was not."""
        return f"✂ {self.cut:,} {'token' if self.cut == 1 else 'tokens'} cut off here" if self.cut else ""


class PlaceLike(Protocol):
    """Where a row stands for whoever made it: a line of a text file, or a row of something else."""

    @property
    def word(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def file(self) -> str: ...  # "" where all rows are of one
    @property
    def title(self) -> str: ...


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
        ordered: Mapping[str, np.ndarray],
        place: Callable[[int], PlaceLike],
        decode: Decode,
        special: AbstractSet[int],
    ):
        """The arrays are (N,), over `rows`.

        `odd` names kinds of rows, each with a (N,) bool array; `ordered` orders, each with indexes into `rows`; `place`
        says where the row of a number stands.
        """
        self._place = place
        self._rows, self._left_out, self._read_left_out = rows, left_out, read_left_out
        self._decode, self._special = decode, special
        self._first_alike = first_alike
        every = np.concatenate([numbers, np.array(left_out, dtype=np.int64)])
        self._entry = np.argsort(every, kind="stable")  # (pages,) index into rows, and then into left_out
        self._numbers = every[self._entry]  # (pages,)
        page = np.argsort(self._entry, kind="stable")  # the other way round
        orders = {
            "longest": np.argsort(-(lengths + cuts), kind="stable"),
            **ordered,
            "most cut": np.argsort(-cuts, kind="stable")[: np.count_nonzero(cuts)],
            "left out": np.arange(len(rows), len(every)),
            "copies": np.flatnonzero(first_alike != np.arange(len(rows))),
            **{name: np.flatnonzero(marks) for name, marks in odd.items()},
        }
        self.orders = {name: page[entries] for name, entries in orders.items()}  # of pages, the most telling first

    def __len__(self):
        return len(self._entry)

    @cached_property
    def word(self) -> str:
        """What one asks for a row by: its 'line' where all are of one text file, else its 'row'."""
        first = self._place(int(self._numbers[0]))
        return "row" if first.file else first.word

    @cached_property
    def _asked(self) -> np.ndarray:
        """(pages,) the numbers rows are asked for by, ascending."""
        if self.word == "row":
            return self._numbers
        return np.array([self._place(number).number for number in self._numbers.tolist()])

    def page_of(self, asked: int) -> int | None:
        """The first page of the row that is asked for by that number, None when there is no such row."""
        place = int(np.searchsorted(self._asked, asked))
        return place if place < len(self) and self._asked[place] == asked else None

    def page(self, index: int, why: str = "") -> Page:
        """The page at `index`, in [0, len(self))."""
        entry = int(self._entry[index])
        left_out = entry >= len(self._rows)
        row = self._read_left_out(self._left_out[entry - len(self._rows)]) if left_out else self._rows[entry]
        shown = spread(row)
        return Page(
            index=index,
            number=row.number,
            why=" · ".join(filter(None, [why, JUDGED[row.label], self._remark(entry)])),
            tokens=len(row.tokens),
            trained=shown.shown_trained + shown.hidden_trained,
            cut=row.cut,
            head=self._pieces(shown.head),
            hidden_tokens=shown.hidden_tokens,
            hidden_trained=shown.hidden_trained,
            tail=self._pieces(shown.tail),
            between=shown.between,
            title=self._place(row.number).title,
            asked=int(self._asked[index]),
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
        return "" if first == entry else f"a copy of {self._place(self._rows[first].number)}"

    def _pieces(self, stretch: Stretch) -> tuple[Piece, ...]:
        return tuple(pieces(stretch.tokens, stretch.trained, decode=self._decode, special=self._special))
