"""Marks of one model or two as rows to leaf through: which there are in each order, and what is shown of one.

Nothing here knows a model or how rows are drawn. What goes out are plain values, as they cross to a browser, and no
longer for long answers or many rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from tunebook.machine.inert import one_line

from .score_texts import first_line, parted, reason, shown

if TYPE_CHECKING:
    from tunebook.scores import Marks
    from tunebook.scores.marks import Answered

PAGE = 12  # rows of a list that are shown at a time
THOUGHTS = ("<think>", "</think>")

WORST, WRONG, TO_RIGHT, TO_WRONG = "worst first", "wrong", "flipped to right", "flipped to wrong"
BETTER, WORSE, CUT, NOT_SCORED, ALL = "better", "worse", "cut", "not scored", "all"
NOT_FOR = "not for this row"  # said of a metric that judges others


@dataclass(frozen=True)
class Order:
    """Rows of a kind, the most telling first."""

    name: str
    places: tuple[int, ...]  # of the rows


class ScoreBook:
    """The rows of one exam, answered by one model, or by two of which the second is the one that is looked at.

    `thoughts` are what stands before and behind thoughts. Raises ValueError for no marks and for more than two, for
    those of different exams, and for those without rows.
    """

    def __init__(self, marks: "Sequence[Marks]", thoughts: tuple[str, str] = THOUGHTS):
        _check(marks)
        self.marks = tuple(marks)
        names = [one_line(one.name) for one in marks]
        self.names = [f"{name} ({place + 1})" if names.count(name) > 1 else name for place, name in enumerate(names)]
        self.metrics = [metric.name for metric in marks[-1].metrics]
        self.numbers = [row.number for row in marks[-1].rows]
        self._rows = [{row.number: row for row in one.rows} for one in marks]
        self._thoughts = thoughts
        self._goodness = {metric: self._good(metric) for metric in self.metrics}
        self._sentences: dict[str, str] = {}
        self._orders: dict[str, list[Order]] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def orders(self, metric: str) -> list[Order]:
        """The orders there are for a metric, those without a row too."""
        if metric not in self._orders:
            self._orders[metric] = self._ordered(metric)
        return self._orders[metric]

    def _ordered(self, metric: str) -> list[Order]:
        before, now = self._goodness[metric]
        change = np.nan_to_num(now - before)
        scored = np.flatnonzero(~np.isnan(now))
        # Of those that are equally bad the ones that were better before come first.
        found = {WORST: scored[np.lexsort((scored, change[scored], now[scored]))]}
        if self._right_or_wrong[metric]:
            found[WRONG] = found[WORST][now[found[WORST]] == 0]
        if len(self.marks) > 1:
            up, down = (TO_RIGHT, TO_WRONG) if self._right_or_wrong[metric] else (BETTER, WORSE)
            by_change = np.argsort(-np.abs(change), kind="stable")
            found[up], found[down] = by_change[change[by_change] > 0], by_change[change[by_change] < 0]
        rows = [self._answered(place) for place in range(len(self))]
        found[CUT] = np.array([any(not one.ended for one in row) for row in rows]).nonzero()[0]
        found[NOT_SCORED] = np.array([any(_is_missing(one, metric) for one in row) for row in rows]).nonzero()[0]
        found[ALL] = np.arange(len(self))
        return [Order(name, tuple(places.tolist())) for name, places in found.items()]

    def sentence(self, metric: str) -> str:
        """What can and cannot be concluded in a metric; of one model its score, and how sure that is."""
        if metric not in self._sentences:  # a difference is drawn ten thousand times to know how sure it is
            self._sentences[metric] = self._sentence(metric)
        return self._sentences[metric]

    def said(self) -> list[str]:
        """What the marks have to say besides."""
        return [
            reason(f"{name}: {said}") for name, one in zip(self.names, self.marks, strict=True) for said in one.said
        ]

    def line(self, place: int, metric: str) -> list[Any]:
        """[number, what the metric says of it, how that is meant, how the prompt begins] of a row in a list."""
        answered = self._answered(place)
        values = [self._value(row, metric) for row in answered]
        same = len(set(values)) == 1 and (self._right_or_wrong[metric] or values[0] in (NOT_FOR, NOT_SCORED))
        told = values[0] if same else " → ".join(values)
        return [self.numbers[place], told, self._kind(place, metric), first_line(answered[-1].prompt)]

    def row(self, place: int, metric: str) -> dict[str, Any]:
        """All that is shown of a row, as JSON."""
        answered = self._answered(place)
        *_, last = answered
        return {
            "place": place,
            "number": last.number,
            "badge": self._badge(place, metric),
            "kind": self._kind(place, metric),
            "prompt": shown(last.prompt),
            "reference": None if last.reference is None else shown(last.reference),
            "answers": [self._answer(name, row) for name, row in zip(self.names, answered, strict=True)],
            "marks": [[name, *(self._cell(row, name) for row in answered)] for name in self.metrics],
            "notes": self._notes(answered),
        }

    def answer(self, place: int, which: int) -> str | None:
        """What the model `which` answered, whole."""
        return self._answered(place)[which].answer

    def _answered(self, place: int) -> "list[Answered]":
        return [rows[self.numbers[place]] for rows in self._rows]

    @cached_property
    def _right_or_wrong(self) -> dict[str, bool]:
        """By metric, whether every value is one of these, and nothing between."""
        found = {}
        for metric in self.metrics:
            values = [value for value in self._values(metric).ravel().tolist() if value == value]
            found[metric] = bool(values) and set(values) <= {0.0, 1.0}
        return found

    def _values(self, metric: str) -> np.ndarray:
        """(models, rows), NaN where a row is not scored."""
        marks = [[rows[number].marks.get(metric) for number in self.numbers] for rows in self._rows]
        values = [[None if mark is None else mark.value for mark in row] for row in marks]
        return np.array([[nan if value is None else value for value in row] for row in values], np.float64)

    def _good(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """((rows,) before, (rows,) now) where more is better; of one model both are the same."""
        higher = next(one.higher_is_better for one in self.marks[-1].metrics if one.name == metric)
        values = self._values(metric) * (1 if higher else -1)
        return values[0], values[-1]

    def _sentence(self, metric: str) -> str:
        *before, now = self.marks
        if not before:
            return reason(now.sentence(metric))
        found = now.against(before[0]).get(metric)
        return reason(found.sentence if found else f"{metric}: no row is scored for both.")

    def _value(self, row: "Answered", metric: str) -> str:
        if metric not in row.marks:
            return NOT_FOR
        value = row.marks[metric].value
        if value is None:
            return NOT_SCORED
        return ("wrong", "right")[int(value)] if self._right_or_wrong[metric] else f"{value:.3g}"

    def _cell(self, row: "Answered", metric: str) -> str:
        if _is_missing(row, metric):
            return f"{NOT_SCORED}: {reason(row.marks[metric].reason)}"
        return self._value(row, metric)

    def _kind(self, place: int, metric: str) -> str:
        """ "up", "down", "right", "wrong" or "" of a row, by its metric."""
        before, now = (float(one[place]) for one in self._goodness[metric])
        if before != now and before == before and now == now:
            return "up" if now > before else "down"
        if self._right_or_wrong[metric] and now == now:
            return "right" if now else "wrong"
        return ""

    def _badge(self, place: int, metric: str) -> str:
        kind = self._kind(place, metric)
        if all(metric not in row.marks for row in self._answered(place)):
            return ""
        if self._right_or_wrong[metric]:
            return {"up": TO_RIGHT, "down": TO_WRONG}.get(kind, kind) or NOT_SCORED
        return {"up": BETTER, "down": WORSE}.get(kind, "")

    def _answer(self, name: str, row: "Answered") -> dict[str, Any]:
        if row.answer is None:
            return {
                "name": name,
                "thoughts": "",
                "text": None,
                "note": "No answer: no metric asks for one, or it could not be asked.",
            }
        parts = parted(row.answer, self._thoughts)
        note = "" if row.ended else "✂ cut here: as long as an answer may be"
        if parts.open:
            note = "✂ cut in its thoughts: there is no answer" if not row.ended else "thoughts alone, and no answer"
        elif not parts.answer.strip():
            note = note or "an empty answer"
        return {"name": name, "thoughts": shown(parts.thoughts), "text": shown(parts.answer), "note": note}

    def _notes(self, answered: "list[Answered]") -> list[str]:
        digests = {row.asked for row in answered} - {""}
        if len(digests) < 2:
            return []
        return ["Both were asked other tokens: one has another tokenizer or chat template."]


def _is_missing(row: "Answered", metric: str) -> bool:
    """Whether a metric that is for a row could not judge it."""
    return metric in row.marks and row.marks[metric].value is None


def of_each(orders: Sequence[Order], name: str) -> Order:
    """The order of that name, or the first that has a row."""
    return next((order for order in orders if order.name == name and order.places), _first(orders))


def _first(orders: Sequence[Order]) -> Order:
    return next(order for order in orders if order.places)


def _check(marks: "Sequence[Marks]") -> None:
    if not 1 <= len(marks) <= 2:
        raise ValueError(f"{len(marks)} marks are given; pass those of one model, or of two to compare.")
    if len({one.exam for one in marks}) > 1:
        raise ValueError(f"The marks of {marks[0].name!r} and {marks[1].name!r} are of different exams; take the same.")
    if not marks[0].rows:
        raise ValueError("The marks have no rows to look at; give the Exam rows.")
