"""Two models' scores on the same rows: what became better or worse, how sure that is, and the sentence that says so.

A bare difference is never shown: where rows are few, most differences are chance. What a verdict goes by is what the
sentence names: of right and wrong the exact sign test, of every other value the interval of the score's change. A sign
test of those would ask whether most rows change one way, which the sum of all changes need not follow.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..statistics import (
    LEVEL,
    Interval,
    Total,
    interval_of_difference,
    least_conclusive,
    mean_of_rows,
    most_unseen,
    sign_test,
)

Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What changed from one model to another in one metric."""

    metric: str
    rows: int  # that both have a score for
    before: float
    after: float
    interval: Interval  # of after - before
    rose: int  # rows whose value is higher afterwards
    fell: int
    p: float | None  # of the exact sign test over these; None: rows are not right or wrong, and the interval decides
    right_or_wrong: bool  # whether the value of a row is one of these, and nothing between
    higher_is_better: bool = True

    @property
    def change(self) -> float:
        """after - before."""
        return self.after - self.before

    @property
    def gain(self) -> float:
        """How much better, in the metric's own unit; below 0 where it is worse."""
        return self.change if self.higher_is_better else -self.change

    @property
    def verdict(self) -> Verdict:
        """What can be told from chance: by the sign test for right and wrong, else by the interval without 0."""
        told = 0 not in self.interval if self.p is None else self.p < 1 - LEVEL
        if not told or not self.gain:
            return "undecided"
        return "better" if self.gain > 0 else "worse"

    @property
    def sentence(self) -> str:
        """What can and cannot be concluded."""
        return f"{self.metric}: {self._counts()}: {self._conclusion()}."

    def __str__(self) -> str:
        return self.sentence

    def _counts(self) -> str:
        if not self.rose + self.fell:
            return f"none of {self.rows} rows changed"
        if self.right_or_wrong:
            return f"{self.rose} of {self.rows} flipped to right, {self.fell} to wrong"
        up, down = (self.rose, self.fell) if self.higher_is_better else (self.fell, self.rose)
        return f"{up} of {self.rows} rows are better, {down} worse"

    def _conclusion(self) -> str:
        if not self.rose + self.fell:
            return f"no difference, and at most {most_unseen(self.rows):.0%} of such rows would show one"
        decided = self.verdict != "undecided"
        said = self.verdict if decided else "cannot be told from chance"
        sizes = f"{number(self.before)} -> {number(self.after)}, {signed(self.change)}"
        interval = f"{LEVEL:.0%} interval {signed(self.interval.low)} to {signed(self.interval.high)}"
        if self.p is None:
            zero = "in which 0 is" if 0 in self.interval else "without 0"
            return f"{said}; {sizes} ({interval}, {zero}){self._few_outweigh()}"
        more = ""
        if not decided and self.rose + self.fell < least_conclusive():
            more = f"; fewer than {least_conclusive()} changes prove nothing, so ask more rows"
        return f"{said}, {p_value(self.p)}; {sizes} ({interval}){more}"

    def _few_outweigh(self) -> str:
        """What is to be said where a score changed one way and most rows the other."""
        up, down = (self.rose, self.fell) if self.higher_is_better else (self.fell, self.rose)
        most, few = (down, up) if self.verdict == "better" else (up, down)
        return "; the fewer rows outweigh the others" if self.verdict != "undecided" and few < most else ""


def difference(
    metric: str,
    before: np.ndarray,
    after: np.ndarray,
    *,
    terms: tuple[np.ndarray, np.ndarray] | None = None,
    total: Total = mean_of_rows,
    higher_is_better: bool = True,
    seed: int = 0,
) -> Difference:
    """From the values (N,) of the same N rows, N > 0.

    `terms` are the two (N, K) whose sums `total` makes a score of; without them it is the mean of the values.
    """
    then, now = terms or (_with_weight(before), _with_weight(after))
    right_or_wrong = bool(np.isin(np.concatenate([before, after]), (0, 1)).all())
    rose, fell = int((after > before).sum()), int((after < before).sum())
    interval = interval_of_difference(then, now, total, seed=seed)
    if right_or_wrong and len(before) in (rose, fell, len(before) - rose - fell):
        interval = _of_rows_all_alike(float(after[0] - before[0]), most_unseen(len(before)))
    return Difference(
        metric=metric,
        rows=len(before),
        before=float(total(then.sum(axis=0))),
        after=float(total(now.sum(axis=0))),
        interval=interval,
        rose=rose,
        fell=fell,
        p=sign_test(rose, fell) if right_or_wrong else None,
        right_or_wrong=right_or_wrong,
        higher_is_better=higher_is_better,
    )


def _of_rows_all_alike(change: float, unseen: float) -> Interval:
    """Where each row changed by `change`, there is nothing to draw from, and a share of `unseen` may do otherwise."""
    if not change:
        return Interval(-unseen, unseen)
    return Interval(1 - 2 * unseen, 1.0) if change > 0 else Interval(-1.0, 2 * unseen - 1)  # the others: the other way


def number(value: float) -> str:
    """A score to three digits."""
    return f"{value:.3g}"


def signed(value: float) -> str:
    """A difference to two digits, with its sign."""
    return "0" if abs(value) < 5e-13 else f"{value:+.2g}"


def p_value(p: float) -> str:
    """A p to two digits; below one in ten thousand nobody needs more."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def _with_weight(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], axis=1)
