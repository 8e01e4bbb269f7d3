"""The best moment of a run: that of its lowest held-out loss, or of its best score in one metric of its exam.

What was measured comes in, in order; which of it is the best goes out, and whether to wait for something better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..events import EvalEvent, ScoreEvent


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found after `step` optimizer steps."""

    step: int
    value: float  # a loss or a score; NaN or infinite: it is never the best
    not_scored: int = 0  # rows of the exam the metric could not judge


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """What tells which weights of a run are the best: the held-out loss, unless a metric of the exam is named."""

    metric: str | None = None
    exam: str = ""  # the digest of the exam the metric is one of: scores of another are not compared
    higher_is_better: bool = False

    @property
    def name(self) -> str:
        """What is measured, in words."""
        return self.metric or "held-out loss"

    @property
    def best_is(self) -> str:
        """'highest' or 'lowest'."""
        return "highest" if self.higher_is_better else "lowest"

    def number(self, value: float) -> str:
        """A value as it is told: a loss to four decimals, a score to four digits."""
        return f"{value:.4f}" if self.metric is None else f"{value:.4g}"

    def measured(self, evals: Sequence[EvalEvent], scores: Sequence[ScoreEvent]) -> list[Measured]:
        """What of it counts, in order: what someone asked for in between does not."""
        if self.metric is None:
            return [Measured(step=event.step, value=event.loss) for event in evals if not event.asked]
        return [
            Measured(
                step=event.step,
                value=event.scores[self.metric],
                not_scored=event.not_scored.get(self.metric, 0),
            )
            for event in scores
            if event.exam == self.exam and not event.asked and self.metric in event.scores
        ]

    def best(self, measured: Sequence[Measured]) -> Measured | None:
        """The earliest of the best, of those that judged the most rows; None where nothing is finite.

        A score over fewer rows is of other rows, and would be the best where just the hard ones cannot be judged.
        """
        finite = [one for one in measured if math.isfinite(one.value)]
        fewest = min((one.not_scored for one in finite), default=0)
        fullest = [one for one in finite if one.not_scored == fewest]
        sign = -1 if self.higher_is_better else 1
        return min(fullest, key=lambda one: sign * one.value, default=None)

    def patience_is_lost(self, measured: Sequence[Measured], patience: int | None) -> bool:
        """Whether the last `patience` times brought nothing better; None has no end."""
        best = self.best(measured)
        if patience is None or best is None:
            return False
        return len(measured) - 1 - measured.index(best) >= patience

    def passed_over(self, measured: Sequence[Measured]) -> str | None:
        """Why the last of `measured` cannot be the best whatever its value; None where it can."""
        last, best = measured[-1], self.best(measured)
        if not math.isfinite(last.value):
            return f"{self.name} has no finite value at step {last.step}, so it is not the best"
        if best is None or last.not_scored <= best.not_scored:
            return None
        return (
            f"{self.name} could not judge {last.not_scored} rows at step {last.step} and {best.not_scored} at step "
            f"{best.step}, so it is not the best"
        )


BY_LOSS = Yardstick()


def past_the_best(
    by: Yardstick, measured: Sequence[Measured], losses: Sequence[tuple[int, float]], name: str = "the held-out loss"
) -> str | None:
    """'exact_match was 0.65 at step 30 and is 0.4 at step 60', where the last is worse than the best; else None.

    And that a loss still fell from the one to the other, where `losses`, (step, value) in order, say so.
    """
    best, last = by.best(measured), measured[-1] if measured else None
    if best is None or last is None:
        return None
    if not (last.value < best.value if by.higher_is_better else last.value > best.value):
        return None
    then, now = (_up_to(one.step, losses) for one in (best, last))
    fell = then is not None and now is not None and now < then
    still = f", though {name} still fell ({then:.3f} → {now:.3f})" if fell else ""
    values = f"was {by.number(best.value)} at step {best.step} and is {by.number(last.value)} at step {last.step}"
    return f"{by.name} {values}{still}"


def _up_to(step: int, losses: Sequence[tuple[int, float]]) -> float | None:
    return next((loss for at, loss in reversed(losses) if at <= step), None)
