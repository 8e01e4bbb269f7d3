"""The live view of all rows: one page at a time, made in the kernel when the browser asks for it.

The browser sends where to go, `{"go": "next"}`; the page it is at is a trait, so a reloaded tab finds it again. All of
the data crosses as text, to be shown as text; token_browser.js draws it.
"""

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from .token_book import Book, Page
from .token_html import shown
from .token_pieces import Piece

_HERE = Path(__file__).parent


class TokenBrowser(anywidget.AnyWidget):
    """Pages through a Book."""

    _esm = _HERE / "token_browser.js"
    _css = _HERE / "tokens.css"

    name = traitlets.Unicode().tag(sync=True)  # of the rows
    total = traitlets.Int().tag(sync=True)  # pages
    orders = traitlets.List().tag(sync=True)  # [name, rows in it] of each order to leaf through
    word = traitlets.Unicode().tag(sync=True)  # what is asked for by its number: a "row" or a "line"
    page = traitlets.Dict().tag(sync=True)  # see `plain_page`

    def __init__(self, book: Book, name: str):
        super().__init__()
        self._book = book
        self._order, self._place = "", 0  # the order last leafed through, and how far
        self.name, self.word = name, book.word
        self.total = len(book)
        self.orders = [[name, len(order)] for name, order in book.orders.items() if len(order)]
        self.page = plain_page(book.page(0))
        self.on_msg(self._receive)

    def __repr__(self) -> str:
        """What a notebook shows that is opened without its kernel."""
        return "All rows could be leafed through here. Run the cell again to do so."

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        match content:
            case {"go": "to", "index": int(index)}:
                self._turn_to(index)
            case {"go": "row", "number": int(number)}:
                index = self._book.page_of(number)
                if index is None:
                    self.page = {**self.page, "complaint": f"There is no {self.word} {number}."}
                else:
                    self._turn_to(index)
            case {"go": "order", "name": str(name)} if len(self._book.orders.get(name, ())):
                order = self._book.orders[name]
                place = (self._place + 1) % len(order) if name == self._order else 0
                self._turn_to(int(order[place]), why=f"{name}: {place + 1:,} of {len(order):,}")
                self._order, self._place = name, place

    def _turn_to(self, index: int, why: str = "") -> None:
        self._order = ""
        self.page = plain_page(self._book.page(min(max(index, 0), self.total - 1), why))


def plain_page(page: Page) -> dict[str, Any]:
    """A page as JSON."""
    return {
        "index": page.index,
        "number": page.number,
        "title": page.title,
        "asked": page.asked,
        "why": page.why,
        "caption": page.caption,
        "head": [_plain_piece(piece) for piece in page.head],
        "gap": page.gap,
        "tail": [_plain_piece(piece) for piece in page.tail],
        "cut": page.cut_note,
        "complaint": "",
    }


def _plain_piece(piece: Piece) -> list[Any]:
    """[text, ids, trained, special]."""
    return [shown(piece), list(piece.ids), piece.trained, piece.special]
