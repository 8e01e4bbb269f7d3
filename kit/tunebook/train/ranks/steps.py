"""One optimizer step of a run as its processes take it together: a portion of rows in, the events of the step out.

The rows of a step are dealt out, each process adds up the gradients of its own, and all make the same update of the
same sum. In one process the rows are all its own.
"""

import math
from collections.abc import Callable, Generator, Sequence
from itertools import zip_longest
from typing import final

from ...data.encoded import Encoded
from ...events import Event, Notice, Working
from ...machine.interrupts import held_back
from ...tokens.feed import Portion
from ..astray.divergence import Astray
from ..kept.snapshots import KeptWeights
from ..owed import Owed
from ..plan import RunPlan
from ..progress import RunProgress
from ..run_events import step_taken
from ..step import Outcome, Stepper
from .check import WEIGHTS_STEPS, check_weights
from .group import Ranks
from .lanes import Lanes
from .shares import shared_out

Listen = Callable[[], Generator[Event, None, None]]


@final
class Steps:
    """Takes the steps of one run, which `listen` hears of between two micro-batches."""

    def __init__(
        self,
        plan: RunPlan,
        kept: KeptWeights,
        owed: Owed,
        ranks: Ranks,
        listen: Listen,
        stepper: Stepper,
        astray: Astray,
    ):
        self._plan, self._stepper, self._kept, self._astray = plan, stepper, kept, astray
        self._owed, self._ranks, self._listen = owed, ranks, listen
        self._lanes = Lanes(ranks)

    def take(self, portion: Portion, progress: RunProgress) -> Generator[Event, None, Outcome]:
        """One optimizer step over the micro-batches of `portion`. Raises RanksDiffer where it was not one step."""
        step, said = progress.step + 1, []
        batches = self._own(portion.batches)
        self._stepper.begin(step, [row for rows in portion.batches for row in rows])
        for done, (rows, upcoming) in enumerate(zip_longest(batches, batches[1:], fillvalue=()), start=1):
            said += self._stepper.add(rows, alone=len(batches) == 1, upcoming=upcoming)
            yield Working(step=step, what="training", done=done, total=len(batches))
            yield from self._listen()
        self._astray.look_at(portion.batches)
        said = [*portion.notices, *(text for each in self._ranks.exchange(said) for text in each)]  # all wait here
        with held_back():
            before = self._kept.now()
            outcome = self._stepper.finish()
            progress.advance(outcome, portion.place)
            self._owed.add(step_taken(self._plan, progress, outcome))
            self._owed.add(*(Notice(step=step, text=text) for text in said))
            if math.isfinite(outcome.loss):
                self._kept.keep_good(step - 1, before)
        del before
        yield from self._owed.told()
        yield from self._told_of_ranks(step)
        if not outcome.applied and self._ranks.is_first:
            yield Notice(step=step, text=self._astray.why_not_applied(step, outcome))
        return outcome

    def _own(self, batches: Sequence[Sequence[Encoded]]) -> list[Sequence[Encoded]]:
        may_split = self._plan.objective.couples_rows is None
        return shared_out(batches, self._ranks.size, may_split=may_split)[self._ranks.rank]

    def _told_of_ranks(self, step: int) -> Generator[Event, None, None]:
        if self._ranks.is_alone:
            return
        is_last = step == self._plan.total_steps
        said = self._ranks.exchange(self._lanes.own(self._stepper.own_tokens))
        event = self._lanes.taken(step, said, is_last=is_last)
        if event is not None:
            yield event
        if step == 1 or step % WEIGHTS_STEPS == 0 or is_last:
            check_weights(self._ranks, self._plan.loaded.module, step)
