"""Two models' scores on the same rows: what became better or worse, how sure that is, and the sentence that says so.

A bare difference is never shown: where rows are few, most differences are chance.
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
    p: float  # of the exact sign test over these
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
        told = self.p < 1 - LEVEL if self.right_or_wrong else 0 not in self.interval
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
        sizes = (
            f"{number(self.before)} -> {number(self.after)}, {signed(self.change)} "
            f"({LEVEL:.0%} interval {signed(self.interval.low)} to {signed(self.interval.high)})"
        )
        if self.verdict != "undecided":
            return f"{self.verdict}, {p_value(self.p)}; {sizes}"
        more = ""
        if self.right_or_wrong and self.rose + self.fell < least_conclusive():
            more = f"; fewer than {least_conclusive()} changes prove nothing, so ask more rows"
        return f"cannot be told from chance, {p_value(self.p)}; {sizes}{more}"


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
    if right_or_wrong and not rose + fell:  # nothing to draw from, which does not mean that nothing can be
        interval = Interval(-most_unseen(len(before)), most_unseen(len(before)))
    return Difference(
        metric=metric,
        rows=len(before),
        before=float(total(then.sum(axis=0))),
        after=float(total(now.sum(axis=0))),
        interval=interval,
        rose=rose,
        fell=fell,
        p=sign_test(rose, fell),
        right_or_wrong=right_or_wrong,
        higher_is_better=higher_is_better,
    )


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
