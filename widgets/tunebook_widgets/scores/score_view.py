"""`ScoreView`: the rows of an exam that went worst, or that flipped between two models, with all that is known of them.

Marks come in, and a model with its exam where losses are wanted; what goes out is static HTML that stays in a saved
notebook, plain text beside it, and on request a live panel of all rows. Numbers are those of the marks.
"""

from typing import Any

from tunebook.models.loaded import HoldsLoaded
from tunebook.scores import Exam, Marks

from .score_book import NOT_SCORED, WORST, WRONG, Order, ScoreBook
from .score_browser import ScoreBrowser
from .score_html import static_html
from .score_texts import first_line
from .token_losses import Losses

SHOWN = 10  # rows in a saved notebook
_TELLING = {WRONG: "wrong", WORST: "worst", NOT_SCORED: "not scored"}  # orders, the first that has rows is shown


class ScoreView:
    """Look at rows of an exam: what was asked, what was answered, what each metric says of it.

        >>> from tunebook import scores
        >>> exam = scores.Exam(held_out_rows, metrics=["exact_match", "perplexity"], max_tokens=4)
        >>> base, tuned = exam.take(model, adapters=False), exam.take(model)
        >>> view = ScoreView(base, tuned)
        >>> view = ScoreView(tuned, model=model, exam=exam)

    `marks` are those of one model, or of two, the second to be looked at and the first to compare it with: of the live
    model, of checkpoints or of exports. With `model` and the `exam` it took, the loss of each token of the row's own
    answer is shown too, by the model as it is now, and by its base where that is in memory; the model is left as it
    was. `metric` is the one that rows are ordered by, None the first. As the last expression of a cell it shows the ten
    worst rows, and stays in the saved notebook; `browse()` shows all of them, for as long as the kernel lives. Raises
    ValueError for marks of different exams, and for a model without its exam.
    """

    def __init__(
        self,
        *marks: Marks,
        model: HoldsLoaded | None = None,
        exam: Exam | None = None,
        metric: str | None = None,
    ):
        self._losses = _losses(marks, model, exam)
        self._book = ScoreBook(marks, *([self._losses.thoughts] if self._losses else []))
        self.metric = metric or self._book.metrics[0]
        if self.metric not in self._book.metrics:
            raise ValueError(
                f"There is no metric {metric!r} in these marks; there are {', '.join(self._book.metrics)}."
            )

    def __repr__(self) -> str:
        order = self._order()
        lines = [self._book.line(place, self.metric) for place in order.places[:SHOWN]]
        rows = [f"  row {number}  {told}  {begins}" for number, told, _, begins in lines]
        return "\n".join([self._book.sentence(self.metric), *self._book.said(), self._shown(order), *rows])

    def browse(self) -> ScoreBrowser:
        """A widget to look at all rows, in orders of one's choice; it needs the kernel."""
        return ScoreBrowser(self._book, self.metric, self._losses)

    def _repr_html_(self) -> str:
        order, names = self._order(), " → ".join(self._book.names)
        said = [self._book.sentence(metric) for metric in self._book.metrics]
        rows = [self._row(place) for place in order.places[:SHOWN]]
        losses: list[dict[str, Any]] = []
        if self._losses is not None:
            losses = self._losses.of([(row["number"], None) for row in rows])
        for row, found in zip(rows, losses, strict=bool(losses)):
            row["losses"] = found
        return static_html(names, [*said, *self._book.said()], self._shown(order), rows)

    def _row(self, place: int) -> dict[str, Any]:
        row = self._book.row(place, self.metric)
        pictures, said = self._losses.pictures(row["number"]) if self._losses is not None else ([], "")
        begins = first_line(row["prompt"])
        return row | {"pictures": pictures, "of_pictures": said, "begins": begins, "losses": {}}

    def _order(self) -> Order:
        """Rows that are wrong, or the worst, or where none is scored those that are not."""
        orders = {order.name: order for order in self._book.orders(self.metric) if order.places}
        return orders[next(name for name in _TELLING if name in orders)]

    def _shown(self, order: Order) -> str:
        count = min(SHOWN, len(order.places))
        kind = f"{_TELLING[order.name]} by {self.metric}"
        of = f" of {len(order.places)}" if len(order.places) > count else ""
        others = " `ScoreView(...).browse()` shows all." if len(self._book) > count else ""
        return f"{count}{of} rows that are {kind}, of {len(self._book)} in all.{others}"


def _losses(marks: tuple[Marks, ...], model: HoldsLoaded | None, exam: Exam | None) -> Losses | None:
    if model is None and exam is None:
        return None
    if model is None or exam is None:
        given, missing = ("model", "exam") if exam is None else ("exam", "model")
        raise ValueError(f"{given} is given without {missing}; losses need both: the model, and the rows it is asked.")
    if wrong := [one.name for one in marks if one.exam != exam.digest]:
        raise ValueError(f"The marks of {wrong[0]!r} are not of this exam; pass the one that was taken.")
    return Losses(model, exam)
