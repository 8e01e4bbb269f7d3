"""The live panel of an exam's rows: an order of them, a page of its list, one row, and the losses of its tokens.

The browser says where to go, `{"go": "row", "at": 3}`, or which text is to be measured, `{"losses": "reference"}`; each
is answered with traits of a bounded size, however many rows there are. All of the data crosses as text, to be shown as
text; score_browser.js draws it.
"""

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..esm import esm
from . import STYLES
from .heat import LEVELS, WORDS
from .score_book import PAGE, ScoreBook, of_each
from .score_texts import reason
from .token_losses import Losses

REFERENCE = "reference"  # as the text that is measured; else "0" or "1", the answer of a model


class ScoreBrowser(anywidget.AnyWidget):
    """Leafs through a ScoreBook."""

    _esm = esm(Path(__file__).parent / "score_browser.js")
    _css = "\n".join(file.read_text(encoding="utf-8") for file in STYLES)

    names = traitlets.List().tag(sync=True)  # of the models
    metrics = traitlets.List().tag(sync=True)
    said = traitlets.List().tag(sync=True)  # what the marks have to say besides
    scale = traitlets.List([list(LEVELS), list(WORDS)]).tag(sync=True)  # of the losses
    # "metric", "sentence", "orders" [[name, rows]], "order", "lines" of the page that "at" is on, "first" of them
    view = traitlets.Dict().tag(sync=True)
    row = traitlets.Dict().tag(sync=True)  # see ScoreBook.row; with "texts" that can be measured, and "pictures"
    losses = traitlets.Dict().tag(sync=True)  # see Losses.of; with the "place", "text" and "reply" they are of
    complaint = traitlets.Unicode().tag(sync=True)
    replies = traitlets.Int().tag(sync=True)  # to messages: a page that waits hears of one that changes nothing

    def __init__(self, book: ScoreBook, metric: str, losses: Losses | None = None):
        super().__init__()
        self._book, self._losses = book, losses
        self.names, self.metrics, self.said = book.names, book.metrics, book.said()
        self._metric, self._order = metric, ""
        self._turn_to(0)
        self.on_msg(self._receive)

    def __repr__(self) -> str:
        """What a notebook shows that is opened without its kernel."""
        return "The rows of the exam could be looked at here. Run the cell again to do so."

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        with self.hold_sync():
            self._reply(content)
            self.replies += 1

    def _reply(self, content: dict[str, Any]) -> None:
        match content:
            case {"go": "metric", "name": str(name)} if name in self._book.metrics:
                self._metric = name
                self._turn_to(0)
            case {"go": "order", "name": str(name)}:
                self._order = name
                self._turn_to(0)
            case {"go": "row", "at": int(at)}:
                self._turn_to(at)
            case {"go": "number", "number": int(number)}:
                self._find(number)
            case {"losses": str(text), "place": int(place)}:
                self._measure(place, text)

    def _find(self, number: int) -> None:
        """Turn to a row by its number; to one that is not in the order among all."""
        if number not in self._book.numbers:
            self.complaint = f"There is no row {number}."
            return
        place = self._book.numbers.index(number)
        if place not in of_each(self._book.orders(self._metric), self._order).places:
            self._order = "all"
        self._turn_to(of_each(self._book.orders(self._metric), self._order).places.index(place))

    def _turn_to(self, at: int) -> None:
        orders = self._book.orders(self._metric)
        order = of_each(orders, self._order)
        at = min(max(at, 0), len(order.places) - 1)
        first = at - at % PAGE
        self._order, self.complaint = order.name, ""
        self.view = {
            "metric": self._metric,
            "sentence": self._book.sentence(self._metric),
            "orders": [[each.name, len(each.places)] for each in orders],
            "order": order.name,
            "rows": len(order.places),
            "at": at,
            "first": first,
            "lines": [self._book.line(place, self._metric) for place in order.places[first : first + PAGE]],
        }
        self.row = self._row(order.places[at])

    def _row(self, place: int) -> dict[str, Any]:
        row = self._book.row(place, self._metric) | {"texts": [], "pictures": [], "of_pictures": ""}
        if self._losses is None:
            return row
        pictures, said = self._losses.pictures(row["number"])
        return row | {"texts": self._texts(place), "pictures": pictures, "of_pictures": said}

    def _texts(self, place: int) -> list[list[str]]:
        """[name, label] of the texts of a row whose losses can be had."""
        assert self._losses is not None
        texts = [[REFERENCE, "the row's own answer"]] if self._losses.has_answer(self._book.numbers[place]) else []
        answers = [self._book.answer(place, which) for which in range(len(self.names))]
        if len(answers) > 1 and answers[0] == answers[1] and answers[0] is not None:
            return [*texts, ["0", "the answer of both"]]
        named = enumerate(zip(self.names, answers, strict=True))
        return [*texts, *([str(which), f"the answer of {name}"] for which, (name, text) in named if text is not None)]

    def _measure(self, place: int, text: str) -> None:
        if self._losses is None or text not in [name for name, _ in self._texts(place)]:
            return
        whose = None if text == REFERENCE else self._book.answer(place, int(text))
        try:
            (found,) = self._losses.of([(self._book.numbers[place], whose)])
        except ValueError as error:  # adapters were merged, or taken off, since the panel was made
            found = {"why_not": reason(str(error))}
        self.losses = {"place": place, "text": text, "reply": self.replies, **found}
