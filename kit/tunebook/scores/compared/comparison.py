"""Marks of several models side by side: a table, a picture and a frame, each difference with how sure it is.

The first is what the others are compared with.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, final

from ...export.table import as_html, as_text
from ..marks import Marks
from .difference import Difference, number, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@final
class Comparison:
    """What `compare` gives."""

    def __init__(self, marks: Sequence[Marks]):
        self.marks = tuple(marks)
        base, *others = self.marks
        self.differences: tuple[dict[str, Difference], ...] = tuple(one.against(base) for one in others)

    @property
    def sentences(self) -> list[str]:
        """What can and cannot be concluded, a sentence for each model and metric."""
        named = zip(self.marks[1:], self.differences, strict=True)
        return [f"{marks.name}: {one.sentence}" for marks, found in named for one in found.values()]

    def frame(self) -> Any:
        """A row for each model and metric: a pandas DataFrame where pandas is installed, else a list of dicts."""
        rows = [
            _row(marks, metric.name, found.get(metric.name))
            for marks, found in zip(self.marks, ({}, *self.differences), strict=True)
            for metric in marks.metrics
        ]
        if find_spec("pandas") is None:
            return rows
        import pandas  # not a requirement of the kit

        return pandas.DataFrame(rows)

    def picture(self, *, dark: bool = False) -> "Figure":
        """The differences with their intervals, a panel for each metric; to the right is better."""
        from .picture import picture  # brings matplotlib, half a second

        names = [marks.name for marks in self.marks[1:]]
        return picture(self.marks[0].name, names, self.differences, dark=dark)

    def headings(self) -> list[str]:
        """Of the table's columns: the metric, and a model each."""
        return ["metric", *(marks.name for marks in self.marks)]

    def cells(self) -> list[list[str]]:
        """The table's rows, a metric each."""
        base, *others = self.marks
        return [
            [
                metric.name,
                number(base[metric.name]),
                *(
                    _cell(marks, metric.name, found.get(metric.name))
                    for marks, found in zip(others, self.differences, strict=True)
                ),
            ]
            for metric in base.metrics
        ]

    def said(self) -> list[str]:
        """What stands below the table."""
        return [*self.sentences, *self.notices()]

    def notices(self) -> list[str]:
        """What is to be known beside the numbers: of the models' prompts, programs and rows that are not scored."""
        asked = [said for marks in self.marks[1:] for said in _asked_otherwise(self.marks[0], marks)]
        return [*asked, *(f"{marks.name}: {said}" for marks in self.marks for said in marks.said)]

    def __repr__(self):
        return as_text(self.headings(), self.cells(), self.said())

    def _repr_html_(self) -> str:
        return as_html(self.headings(), self.cells(), self.said())


def compare(*marks: Marks) -> Comparison:
    """Marks of one exam side by side, the first that of the model to compare with.

        >>> exam = scores.Exam(held_out_rows, metrics=["exact_match"], max_tokens=8)
        >>> comparison = scores.compare(exam.take(model, adapters=False), exam.take(model))

    `marks` are what `Exam.take` gives. Raises ValueError for fewer than two, and for those of different exams.
    """
    if len(marks) < 2:
        raise ValueError(f"{len(marks)} marks are given; two or more can be compared.")
    return Comparison(marks)


def _asked_otherwise(base: Marks, marks: Marks) -> list[str]:
    rows = marks.asked_otherwise(base)
    if not rows:
        return []
    return [
        f"{marks.name}: {len(rows)} of {len(marks.rows)} rows (first: row {rows[0]}) were asked as other tokens than "
        f"of {base.name}; its tokenizer or its chat template is another one."
    ]


def _cell(marks: Marks, metric: str, difference: Difference | None) -> str:
    score = number(marks[metric])
    if difference is None:
        return f"{score} (no row to compare)"
    told = {"better": "better", "worse": "worse", "undecided": "not told from chance"}[difference.verdict]
    return f"{score} ({signed(difference.change)}, {told})"


def _row(marks: Marks, metric: str, difference: Difference | None) -> dict[str, Any]:
    interval = marks.interval(metric)
    row = {
        "model": marks.name,
        "metric": metric,
        "score": marks[metric],
        "low": interval.low,
        "high": interval.high,
        "rows": len(marks.scored(metric)),
        "not_scored": len(marks.not_scored(metric)),
    }
    if difference is None:
        return row | dict.fromkeys(("change", "change_low", "change_high", "p", "verdict"))
    return row | {
        "change": difference.change,
        "change_low": difference.interval.low,
        "change_high": difference.interval.high,
        "p": difference.p,
        "verdict": difference.verdict,
    }
