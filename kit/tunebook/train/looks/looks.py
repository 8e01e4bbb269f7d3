"""Looks at a model in the middle of a run: its loss on the held-out rows, its exam, what it writes after the prompts.

Each is a generator that yields `Working` often, so that whoever drains it can listen in between, and close it when the
look is no longer wanted. The weights are only read.
"""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import TypeVar, final

import mlx.core as mx

from ...events import EvalEvent, Event, Notice, ScoreEvent, Working
from ...fast.forms import Forms
from ...machine.interrupts import held_back
from ...objectives.reference import Reference, SetOfRows
from ...runs.best import past_the_best
from ...runs.controls import Controls
from ..evaluation import score
from ..kept.snapshots import KeptWeights
from ..owed import Owed
from ..passes.beforehand import asked_beforehand
from ..plan import ExamMarks, RunExam, RunPlan
from ..progress import MarksKept, RunProgress
from ..ranks.from_first import event_of_first, take_said_of_first
from ..ranks.group import ALONE, Ranks
from .samples import Samples
from .watched import watched

T = TypeVar("T")


def held_out_score(
    plan: RunPlan, step: int, reference: Reference, ranks: Ranks = ALONE
) -> Generator[Working, None, EvalEvent]:
    """Score the held-out rows as the model is after `step`; the EvalEvent is the generator's return value."""
    began = time.perf_counter()
    scoring = score(
        plan.loaded.module,
        plan.loaded.family,
        plan.eval_rows,
        batch_size=plan.eval_batch_size,
        max_seq_length=plan.max_seq_length,
        skip_unreadable=plan.skip_unreadable,
        objective=plan.objective,
        reference=reference,
        are_held_out=True,
        ranks=ranks,
    )
    found = yield from watched(scoring, "evaluating", step)
    return EvalEvent(
        step=step,
        loss=found.loss,
        tokens=found.tokens,
        rows=len(plan.eval_rows),
        seconds=time.perf_counter() - began,
        metrics=found.metrics,
    )


def exam_marks(
    plan: RunPlan, exam: RunExam, step: int, first: MarksKept | None
) -> Generator[Working, None, tuple[ScoreEvent, ExamMarks]]:
    """Take `exam` with the model as it is after `step`; (the event, the marks) is what it returns.

    `first` are the first marks of the run, which these are held against where they are of this exam.
    """
    began = time.perf_counter()
    marks: ExamMarks = yield from watched(exam.taking(plan.loaded), "scoring", step)
    mx.clear_cache()
    scores = dict(marks.scores)
    missing = {metric: len(marks.not_scored(metric)) for metric in scores}
    event = ScoreEvent(
        step=step,
        scores=scores,
        not_scored={metric: count for metric, count in missing.items() if count},
        rows=len(exam),
        seconds=time.perf_counter() - began,
        exam=exam.digest,
        told={metric: marks.sentence(metric) for metric in scores},
        since_start=dict(marks.since(first.rows)) if first is not None and first.exam == exam.digest else {},
        lower_is_better=[metric.name for metric in exam.metrics if not metric.higher_is_better],
    )
    return event, marks


@final
class Looks:
    """The looks of one run, each broken off by a stop; `listen` hears of one while a look works."""

    def __init__(
        self,
        plan: RunPlan,
        kept: KeptWeights,
        owed: Owed,
        ranks: Ranks,
        listen: Callable[[], Generator[Event, None, None]],
        reference: Reference,
        samples: Samples,
        controls: Controls,
    ):
        """Of several `ranks` all score the held-out rows together; the first alone takes exams and samples."""
        self._ranks = ranks
        self._handed_on: set[SetOfRows] = set()  # by the first rank, which asked the reference of them
        self._plan, self._kept, self._owed, self._samples = plan, kept, owed, samples
        self._reference, self._controls, self._listen = reference, controls, listen
        self._last_marks: ExamMarks | None = None

    def ask_reference(self, of: SetOfRows, step: int, forms: Forms | None = None) -> Generator[Event, None, None]:
        """Ask the reference of a set of rows beforehand, where that is wanted; a stop leaves it to a run that resumes.

        That it has said all there is to train on is the last moment it may be the model as it is.
        """
        if self._ranks.is_first:
            yield from self._until_stopped(asked_beforehand(self._plan, self._reference, of, step, forms))
        if self._plan.objective.asks_beforehand and of not in self._handed_on:
            take_said_of_first(self._ranks, self._reference, of)
            self._handed_on.add(of)
        if "training" in self._reference.said:
            self._reference.let_go()

    def evaluate(self, progress: RunProgress, *, counts: bool) -> Generator[Event, None, None]:
        """Score the held-out rows, unless there are none or this step's score is known; a stop ends it unscored.

        One that `counts` may be the best there is, for early stopping and for the weights that are put back.
        """
        if not self._plan.eval_rows or progress.is_scored:
            return
        scoring = held_out_score(self._plan, progress.step, self._reference, self._ranks)
        event = yield from self._until_stopped(scoring, together=True)
        if event is not None:
            event = replace(event, asked=not counts)
            with held_back():
                self.count(event, progress, counts=counts)
                self._owed.add(event)
            yield from self._owed.told()

    def count(self, event: EvalEvent, progress: RunProgress, *, counts: bool) -> None:
        """Take up a held-out loss of the weights as they are."""
        progress.add_eval(event, counts=counts)
        self.keep_if_best(progress)

    def count_score(self, event: ScoreEvent, progress: RunProgress, marks: ExamMarks | None = None) -> None:
        """Take up a score of the weights as they are; without its `marks` nothing later is held against them."""
        progress.scores.append(event)
        self._last_marks = self._last_marks if event.asked else marks
        if marks is not None:
            progress.keep_marks(event, marks.kept(), self._plan.yardstick)
        self.keep_if_best(progress)

    def keep_if_best(self, progress: RunProgress) -> None:
        """Keep the weights as they are where they are the best so far, and will be wanted."""
        best = progress.best(self._plan.yardstick)
        is_new = best is not None and best.step == progress.step != progress.best_step
        if is_new and self._plan.config.load_best_model_at_end:
            self._kept.keep_best()
            progress.best_step = progress.step

    def put_best_back(self, progress: RunProgress) -> str | None:
        """Go back to the best weights where that is wanted; what there is to say of it."""
        if not self._plan.config.load_best_model_at_end:
            return None
        by = self._plan.yardstick
        return self._kept.put_best_back(progress.best(by), by, progress.step, kept_step=progress.best_step)

    def past_the_best(self, progress: RunProgress) -> str | None:
        """What there is to say of a run that went on beyond its best score."""
        by, config = self._plan.yardstick, self._plan.config
        said = past_the_best(by, progress.measured(by), [(event.step, event.loss) for event in progress.evals])
        if by.metric is None or said is None:
            return None
        kept, changes = progress.best_marks, {}
        if kept is not None and self._last_marks is not None and kept.is_of(progress.best(by), by):
            changes = self._last_marks.since(kept.rows)
        since = f" Since step {kept.step}, {changes[by.metric]}" if kept is not None and by.metric in changes else ""
        move = "" if config.load_best_model_at_end else " load_best_model_at_end=True ends with the best weights."
        return f"{said}.{since}{move}"

    def patience_is_lost(self, progress: RunProgress) -> bool:
        """Whether to end the run because nothing gets better any more."""
        by = self._plan.yardstick
        return by.patience_is_lost(progress.measured(by), self._plan.config.early_stopping_patience)

    def score(
        self, progress: RunProgress, *, at_end: bool = False, asked: bool = False
    ) -> Generator[Event, None, None]:
        """Take the exam at first, at the end and every `score_steps`, unless it was; a stop ends it unscored.

        One that is `asked` for is taken at once, and decides nothing. What marks say of rows that were cut or not
        scored is told with the first of them.
        """
        step, exam = progress.step, self._plan.exam
        if exam is None or progress.has_marks(exam.digest):
            return
        is_first = all(earlier.exam != exam.digest for earlier in progress.scores)
        is_last = at_end or step == self._plan.total_steps
        is_due = is_first or is_last or progress.is_due(self._plan.config.score_steps)
        if not (is_due or asked):
            return
        event, marks = None, None
        if self._ranks.is_first:
            found = yield from self._until_stopped(exam_marks(self._plan, exam, step, progress.first_marks))
            event, marks = (None, None) if found is None else (replace(found[0], asked=not is_due), found[1])
        event = event_of_first(self._ranks, event)
        if event is not None:
            with held_back():
                if is_first and marks is not None:
                    self._owed.add(*(Notice(step=step, text=f"The exam: {text}") for text in marks.said))
                self.count_score(event, progress, marks)
                passed_over = [] if event.asked or marks is None else self._passed_over(progress, marks)
                self._owed.add(event, *passed_over)
            yield from self._owed.told()

    def _passed_over(self, progress: RunProgress, marks: ExamMarks) -> list[Notice]:
        """Why the last score is not the best whatever it is, where the run goes by it."""
        by, config = self._plan.yardstick, self._plan.config
        waits = config.load_best_model_at_end or config.early_stopping_patience is not None
        if by.metric is None or not waits:
            return []
        why = by.passed_over(progress.measured(by))
        missing = marks.not_scored(by.metric)
        row = next((f"; row {number}: {reason}" for number, reason in missing.items()), "")
        return [] if why is None else [Notice(step=progress.step, text=f"{why}{row}")]

    def sample(self, step: int) -> Generator[Event, None, None]:
        """Write an answer to every prompt that has none of this step; a stop leaves the others to a run that resumes.

        Where one asked for them is not known any more then, but that there are some is: they are made whole.
        """
        if self._ranks.is_first:
            yield from self._until_stopped(self._samples.taken(self._plan, step))

    def _until_stopped(
        self, look: Generator[Event, None, T], *, together: bool = False
    ) -> Generator[Event, None, T | None]:
        """What `look` yields and returns, listening while it works; None when a stop ends it.

        One that all ranks take `together` they also break off together.
        """
        with closing(look):
            while not (self._controls.stopping if together else self._controls.asked_to_stop):
                try:
                    event = next(look)
                except StopIteration as end:
                    return end.value
                yield event
                if isinstance(event, Working):
                    yield from self._listen()
                    if together:
                        self._controls.agree()
        return None
