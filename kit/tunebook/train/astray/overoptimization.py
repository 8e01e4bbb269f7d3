"""A preference that is learnt too far: the chosen answers become unlikely too, or the model leaves its reference.

What an objective reports of each step comes in, by TRL's names. Out goes a notice, once for each of the two, with what
of the settings to change. The weights are not looked at: margin and loss go on getting better meanwhile.
"""

import math
from collections.abc import Iterator, Mapping
from typing import final

import numpy as np

from ...events import Notice
from ...objectives.base import Objective

CHOSEN, MARGINS, KL = "rewards/chosen", "rewards/margins", "kl"

BLOCK = 20  # steps that are looked at together, and held against those a run began with
# Times the standard error of a difference. Noise alone comes so far in fewer than one block of twenty thousand
# (Student's t with 19 degrees of freedom), and here two quantities have to at once.
SURE = 5.0
# Of rewards. At the usual beta of 0.1 the chosen answers have then lost a nat: they are 1/e as likely as they were.
LEAST = 0.1
# Of what the rejected reward fell. Most runs push the chosen answers down a little, and their margin is made by the
# rejected ones; from a quarter on it is bought with the chosen answers.
SHARE = 0.25
MOST_NATS = 10.0  # of KL: an answer of the model is then e^10, or 22,000, times as likely as it was to its reference


@final
class Overoptimization:
    """Watches what the objective of one run reports."""

    def __init__(self, objective: Objective):
        self._objective = objective
        self._rewards, self._kl = Blocks(CHOSEN, MARGINS), Blocks(KL)
        if objective.needs_reference:  # a run begins as its own reference, so with rewards and a KL of 0
            self._rewards.first, self._kl.first = np.zeros((BLOCK, 2)), np.zeros((BLOCK, 1))
        self._said: set[str] = set()

    def look_at(self, metrics: Mapping[str, float]) -> list[str]:
        """Take in what a step reported; what is to be said now, and was not yet."""
        found = {}
        if self._rewards.add(metrics) and is_displaced(self._rewards.first, self._rewards.last):
            found["displaced"] = self._displacement()
        if self._kl.add(metrics) and has_run_off(self._kl.first, self._kl.last):
            found["run off"] = self._divergence()
        new = [text for name, text in found.items() if name not in self._said]
        self._said |= found.keys()
        return new

    def notices(self, step: int, metrics: Mapping[str, float], rate: float) -> Iterator[Notice]:
        """`look_at` as notices with the next move; `rate` is the learning rate in force."""
        for text in self.look_at(metrics):
            moves = [f"lower learning_rate (now {rate:g})", *self._objective.held_nearer_by]
            yield Notice(step=step, text=f"{text} What helps: {'; '.join(moves)}.", alarm=True)

    def _displacement(self) -> str:
        (chosen_before, margin_before), (chosen, margin) = self._rewards.first.mean(0), self._rewards.last.mean(0)
        return (
            f"The margin grows while the chosen answers become less likely: over the last {BLOCK} steps {CHOSEN} is "
            f"{chosen:.2f} and {MARGINS} {margin:.2f}, and they began at {chosen_before:.2f} and "
            f"{margin_before:.2f}. What both answers lose goes to others, which nobody chose (likelihood displacement, "
            "arXiv 2410.08847)."
        )

    def _divergence(self) -> str:
        return (
            f"The KL runs off: over the last {BLOCK} steps it is {np.median(self._kl.last):.1f} nats, and it "
            f"began at {np.median(self._kl.first):.1f}. The model writes what it hardly ever wrote before, and "
            "answers that no row is about change with it."
        )


@final
class Blocks:
    """Values of some metrics over BLOCK steps that reported all of them: those a run began with, and the last."""

    def __init__(self, *names: str):
        self._names, self._rows = names, []
        self.first = self.last = np.empty((0, len(names)))  # (BLOCK, metrics), once there are so many

    def add(self, metrics: Mapping[str, float]) -> bool:
        """Take in a step; True where it completes a block that there is one to hold against."""
        values = [metrics.get(name, math.nan) for name in self._names]
        if all(map(math.isfinite, values)):
            self._rows.append(values)
        if len(self._rows) < BLOCK:
            return False
        self.last, self._rows = np.array(self._rows), []
        if len(self.first):
            return True
        self.first = self.last
        return False


def is_displaced(first: np.ndarray, last: np.ndarray) -> bool:
    """Whether between two blocks (BLOCK, 2) the chosen reward fell for good and the margin beside it grew."""
    changes = last.mean(axis=0) - first.mean(axis=0)
    errors = np.sqrt((first.var(axis=0, ddof=1) + last.var(axis=0, ddof=1)) / BLOCK)
    fall, growth = -changes[0], changes[1]
    is_sure = fall > SURE * errors[0] and growth > SURE * errors[1]
    return bool(is_sure and min(fall, growth) >= LEAST and fall >= SHARE * (fall + growth))


def has_run_off(first: np.ndarray, last: np.ndarray) -> bool:
    """Whether the KL (BLOCK, 1) is beyond MOST_NATS, and was less than half of that before; by medians, as one batch
    of a KL is a rough estimate that may be far too high."""
    return bool(np.median(last) >= MOST_NATS > 2 * np.median(first))
