"""What an exam came to for one model: its scores, each row's answer with what every metric says of it, and a gate.

Marks hold no model, so that those of a base, a tuned model and its exports can be held side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..export.table import as_html, as_text
from ..machine.inert import one_line
from .compared.difference import Difference, difference, number
from .metrics.metric import Mark, Metric
from .statistics import LEVEL, Interval, interval_of, mean_of_rows, most_unseen

HEADINGS = ("metric", "score", f"{LEVEL:.0%} interval", "rows")


class ScoreTooLow(Exception):
    """A model that is not as good as was required; the message says by how much, and how sure that is."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One row of an exam, answered."""

    number: int  # of the row among those of the exam
    prompt: str  # as a reader should see it
    reference: str | None  # the row's own answer
    answer: str | None  # as the model wrote it, with its thoughts; None: no metric asks for one, or none could be had
    ended: bool = True  # by itself; False: it was cut where it was as long as may be
    marks: dict[str, Mark]  # by metric, of those that are for this row
    asked: str = ""  # a digest of the token ids it was asked as; "": it holds images, or was not asked by an Exam


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What a model's answers are worth, metric by metric."""

    name: str  # of the model, as the tables have it
    exam: str  # a digest of the rows and metrics: what has the same can be compared
    metrics: tuple[Metric, ...]
    rows: tuple[Answered, ...]
    notices: tuple[str, ...] = ()

    def __getitem__(self, metric: str) -> float:
        """The score in one metric, over the rows it could judge; NaN where it could judge none."""
        terms = self._terms(metric, self.scored(metric))
        return float(self._metric(metric).total(terms.sum(axis=0))) if len(terms) else float("nan")

    @property
    def scores(self) -> dict[str, float]:
        """By metric."""
        return {metric.name: self[metric.name] for metric in self.metrics}

    def interval(self, metric: str) -> Interval:
        """How sure the score is: where those of other rows of this kind lie.

        Where all rows are right, or all wrong, there is nothing to draw from, and as many as `most_unseen` may not be.
        """
        scored = self.scored(metric)
        values, total = set(self._values(metric, scored)), self._metric(metric).total
        if total is mean_of_rows and values in ({0.0}, {1.0}):
            unseen = most_unseen(len(scored))
            return Interval(1 - unseen, 1.0) if 1.0 in values else Interval(0.0, unseen)
        return interval_of(total, self._terms(metric, scored))

    def scored(self, metric: str) -> list[int]:
        """The places in `rows` of those that are in a score."""
        self._metric(metric)
        judged = [(place, row.marks[metric]) for place, row in enumerate(self.rows) if metric in row.marks]
        return [place for place, mark in judged if mark.value is not None]

    def sentence(self, metric: str) -> str:
        """The score in one metric, over how many rows, and how sure it is."""
        rows = len(self.scored(metric))
        if not rows:
            return f"{metric}: no row is scored."
        over = "1 row" if rows == 1 else f"{rows} rows"
        return f"{metric}: {number(self[metric])} over {over}, {LEVEL:.0%} interval {self._interval_cell(metric)}."

    def not_scored(self, metric: str) -> dict[int, str]:
        """The numbers of the rows that a metric could not judge, and why. They are in no score."""
        marks = {row.number: row.marks[metric] for row in self.rows if metric in row.marks}
        return {at: mark.reason for at, mark in marks.items() if mark.value is None}

    def against(self, before: "Marks") -> dict[str, Difference]:
        """What is better or worse than in `before`, by metric, over the rows that both have a score for.

        Raises ValueError for marks of another exam. A metric without such rows is left out.
        """
        if before.exam != self.exam:
            raise ValueError(
                f"The marks of {before.name!r} and {self.name!r} are of different exams; take the same Exam with both."
            )
        found = {}
        for metric in self.metrics:
            both = sorted(set(self.scored(metric.name)) & set(before.scored(metric.name)))
            if both:
                found[metric.name] = difference(
                    metric.name,
                    before._values(metric.name, both),
                    self._values(metric.name, both),
                    terms=(before._terms(metric.name, both), self._terms(metric.name, both)),
                    total=metric.total,
                    higher_is_better=metric.higher_is_better,
                )
        return found

    def kept(self) -> list[Any]:
        """What `since` takes of these marks, as values for JSON: each row's number, then by metric value and terms."""
        return [[row.number, {name: [one.value, *one.terms] for name, one in row.marks.items()}] for row in self.rows]

    def since(self, kept: Sequence[Any]) -> dict[str, str]:
        """By metric, a sentence on what became better or worse since `kept`, of earlier marks of this exam."""
        rows = []
        for at, values in kept:
            marks = {name: Mark(value, tuple(terms)) for name, (value, *terms) in values.items()}
            rows.append(Answered(number=at, prompt="", reference=None, answer=None, marks=marks))
        return {name: found.sentence for name, found in self.against(replace(self, rows=tuple(rows))).items()}

    def asked_otherwise(self, before: "Marks") -> list[int]:
        """The numbers of the rows asked as other token ids than of `before`: its tokenizer or template differs."""
        known = {row.number: row.asked for row in before.rows}
        return [row.number for row in self.rows if row.asked and known.get(row.number) not in ("", None, row.asked)]

    def require(
        self,
        *,
        better_than: "Marks | None" = None,
        no_worse_than: "Marks | None" = None,
        by: float = 0.0,
        at_least: float | None = None,
        metric: str | None = None,
    ) -> None:
        """Raise ScoreTooLow where the model is not good enough in `metric`, None: the first.

        `better_than` asks for a difference of `by` or more that is no chance, `at_least` for a score (where less is
        better: at most that). `no_worse_than` takes all but a loss that is no chance, as of an export against the live
        model. Rows that a metric could not judge are no pass: they are told of, and raise too. Raises ValueError as
        `check_bounds`.
        """
        check_bounds(at_least=at_least, by=by, compared=better_than is not None)
        name = metric or self.metrics[0].name
        if missing := self.not_scored(name):
            row, reason = next(iter(missing.items()))
            asked = len(missing) + len(self.scored(name))
            raise ScoreTooLow(f"{name}: {len(missing)} of {asked} rows are not scored (row {row}: {reason})")
        if at_least is not None:
            self._require_score(name, at_least)
        if no_worse_than is not None:
            found = self._difference(no_worse_than, name)
            if found.verdict == "worse":
                raise ScoreTooLow(f"{self.name} is to be no worse than {no_worse_than.name}. {found.sentence}")
        if better_than is not None:
            found = self._difference(better_than, name)
            if found.verdict != "better" or not found.gain >= by:
                wanted = f"{self.name} is to be better than {better_than.name}" + (f" by {by:g}" if by else "")
                raise ScoreTooLow(f"{wanted}. {found.sentence}")

    def __repr__(self):
        return as_text((f"{self.name}: {HEADINGS[0]}", *HEADINGS[1:]), self._cells(), self.said)

    def _repr_html_(self) -> str:
        return as_html((f"{self.name}: {HEADINGS[0]}", *HEADINGS[1:]), self._cells(), self.said)

    def as_plain(self) -> dict[str, Any]:
        """Everything but the metrics' programs, as values for JSON."""
        return {
            "name": self.name,
            "exam": self.exam,
            "scores": {name: None if np.isnan(score) else score for name, score in self.scores.items()},
            "notices": list(self.notices),
            "rows": [
                {
                    "number": row.number,
                    "prompt": row.prompt,
                    "reference": row.reference,
                    "answer": row.answer,
                    "marks": {name: mark.reason or mark.value for name, mark in row.marks.items()},
                }
                for row in self.rows
            ],
        }

    def _require_score(self, name: str, bound: float) -> None:
        score, up = self[name], self._metric(name).higher_is_better
        if not (score >= bound if up else score <= bound):  # a score that is no number is no pass
            interval = self.interval(name)
            raise ScoreTooLow(
                f"{name} of {self.name} is {number(score)} over {len(self.scored(name))} rows ({LEVEL:.0%} interval "
                f"{number(interval.low)} to {number(interval.high)}), and {'at least' if up else 'at most'} {bound:g} "
                "is required."
            )

    def _difference(self, before: "Marks", name: str) -> Difference:
        """That in one metric. Raises ScoreTooLow where `before` has no score to compare with."""
        if (found := self.against(before).get(name)) is None:
            raise ScoreTooLow(f"{self.name} is to be compared with {before.name}, of which {before.sentence(name)}")
        return found

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (metric.name, number(self[metric.name]), self._interval_cell(metric.name), self._rows_cell(metric.name))
            for metric in self.metrics
        ]

    def _interval_cell(self, metric: str) -> str:
        if not self.scored(metric):
            return ""
        interval = self.interval(metric)
        return f"{number(interval.low)} to {number(interval.high)}"

    def _rows_cell(self, metric: str) -> str:
        missing = len(self.not_scored(metric))
        return f"{len(self.scored(metric))}" + (f", {missing} not scored" if missing else "")

    @property
    def said(self) -> list[str]:
        """Sentences that belong under every table of these marks."""
        said = list(self.notices)
        for metric in self.metrics:
            if missing := self.not_scored(metric.name):
                row, reason = next(iter(missing.items()))
                said.append(f"{metric.name}: {len(missing)} rows are not scored; row {row}: {one_line(reason)}")
        return said

    def _metric(self, name: str) -> Metric:
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(
            f"There is no metric {name!r} in this exam; there are {', '.join(m.name for m in self.metrics)}."
        )

    def _values(self, metric: str, places: Sequence[int]) -> np.ndarray:
        return np.array([self.rows[place].marks[metric].value for place in places], np.float64)

    def _terms(self, metric: str, places: Sequence[int]) -> np.ndarray:
        return np.array([self.rows[place].marks[metric].terms for place in places], np.float64)


def check_bounds(*, at_least: float | None, by: float, compared: bool) -> None:
    """Raise ValueError for bounds that no score could miss: one that is no number, a gain over nothing."""
    for name, bound in (("at_least", at_least), ("by", by)):
        if bound is not None and np.isnan(bound):
            raise ValueError(f"{name} is nan, which every score would pass; give a number.")
    if by and not compared:
        raise ValueError(f"by is {by:g}, and there is no model to be better by that than; pass better_than too.")
