"""How far a run is: what it has counted, measured and been told, as a checkpoint holds it and a resumed run goes on.

Plain numbers and records go in and out. The weights and the optimizer's state are not here; `kept/checkpoint.py` has
them beside it.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..events import EvalEvent, ScoreEvent
from ..runs.best import BY_LOSS, Measured, Yardstick
from ..tokens.feed import Place
from .step import Outcome


@dataclass(frozen=True)
class MarksKept:
    """What is kept of an exam's marks, so that later ones can be held against them."""

    exam: str  # its digest
    step: int
    rows: list[Any]  # as the marks give it, plain

    def is_of(self, measured: Measured | None, by: Yardstick) -> bool:
        """Whether they are those of what was measured."""
        return measured is not None and (self.step, self.exam) == (measured.step, by.exam)


@dataclass
class RunProgress:
    """What changes from step to step, and the clock."""

    step: int = 0  # optimizer steps completed
    num_tokens: int = 0  # supervised tokens trained on
    total_tokens: int = 0  # tokens of all batches, padding included
    trainable_tokens: int = 0  # those of them with a label
    place: Place = field(default_factory=Place)  # how far the rows are read
    not_finite: int = 0  # steps in a row, up to the last, that were not applied
    evals: list[EvalEvent] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)  # steps of evaluations that someone asked for, and decide nothing
    scores: list[ScoreEvent] = field(default_factory=list)  # of the run's exam
    best_step: int | None = None  # of the weights that are kept as the best
    first_marks: MarksKept | None = None  # of the run's exam
    best_marks: MarksKept | None = None  # where the run goes by one of its scores
    # Learning rates, past and to come, by the step they are taken up after; ahead only in a run that is resumed.
    learning_rates: dict[int, float] = field(default_factory=dict)
    forms: dict[str, Any] | None = None  # those its passes are computed in, as `candidates.as_plain` has them
    elapsed_before: float = 0.0  # seconds, up to the checkpoint this run goes on from
    _began: float = field(default_factory=time.perf_counter, init=False, repr=False, compare=False)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "RunProgress":
        """What `as_plain` gave. Checkpoints of version 0.1 lack what came later, and are of rows that are no stream."""
        progress = cls(
            step=plain["step"],
            num_tokens=plain["num_tokens"],
            total_tokens=plain.get("total_tokens", 0),
            trainable_tokens=plain.get("trainable_tokens", 0),
            place=Place(**plain.get("place", {"step": plain["step"]})),
            not_finite=plain["not_finite"],
            evals=[EvalEvent(**fields) for fields in plain["evals"]],
            looks=list(plain.get("looks", [])),
            scores=[ScoreEvent(**fields) for fields in plain.get("scores", [])],
            first_marks=_marks_kept(plain.get("first_marks")),
            best_marks=_marks_kept(plain.get("best_marks")),
            learning_rates=dict(plain.get("learning_rates", [])),
            forms=plain.get("forms"),
            elapsed_before=plain["elapsed"],
        )
        best = progress.best(BY_LOSS)  # when that was not written, only the loss told which it was
        progress.best_step = plain.get("best_step", best.step if best is not None else None)
        return progress

    def as_plain(self) -> dict[str, Any]:
        """Values that JSON keeps as they are; learning rates to come are left out."""
        return {
            "step": self.step,
            "num_tokens": self.num_tokens,
            "total_tokens": self.total_tokens,
            "trainable_tokens": self.trainable_tokens,
            "place": asdict(self.place),
            "not_finite": self.not_finite,
            "evals": [asdict(event) for event in self.evals],
            "looks": self.looks,
            "scores": [asdict(event) for event in self.scores],
            "best_step": self.best_step,
            "first_marks": None if self.first_marks is None else asdict(self.first_marks),
            "best_marks": None if self.best_marks is None else asdict(self.best_marks),
            "forms": self.forms,
            "elapsed": self.elapsed,
            "rates_are_kept": True,
            "learning_rates": [[step, rate] for step, rate in self.learning_rates.items() if step <= self.step],
        }

    @property
    def elapsed(self) -> float:
        """Seconds the run has taken, those before it was resumed included."""
        return time.perf_counter() - self._began + self.elapsed_before

    def start_clock(self) -> None:
        """Count `elapsed` from now on, after `elapsed_before`."""
        self._began = time.perf_counter()

    def advance(self, outcome: Outcome, place: Place) -> None:
        """Count one optimizer step more, after which the rows are read up to `place`."""
        self.step += 1
        self.place = place
        self.num_tokens += outcome.tokens
        self.total_tokens += outcome.total_tokens
        self.trainable_tokens += outcome.trainable_tokens
        self.not_finite = 0 if outcome.applied else self.not_finite + 1

    def add_eval(self, event: EvalEvent, *, counts: bool) -> None:
        """Keep a score. One that was asked for does not count: a resumed run is not asked for it once more."""
        self.evals.append(event)
        if not counts:
            self.looks.append(event.step)

    @property
    def counted_evals(self) -> list[EvalEvent]:
        """The scores that decide which weights are the best, and when to stop early."""
        return [event for event in self.evals if event.step not in self.looks]

    def keep_marks(self, event: ScoreEvent, rows: list[Any], by: Yardstick) -> None:
        """Keep what the last of the scores is made of, where it is the first of its exam, or the best."""
        marks, best = MarksKept(event.exam, event.step, rows), self.best(by)
        if self.first_marks is None or self.first_marks.exam != event.exam:
            self.first_marks = marks
        if marks.is_of(best, by):
            self.best_marks = marks

    def measured(self, by: Yardstick) -> list[Measured]:
        """What decides which weights are the best, and when to stop early."""
        return by.measured(self.counted_evals, self.scores)

    def best(self, by: Yardstick) -> Measured | None:
        """The best of that so far."""
        return by.best(self.measured(by))

    @property
    def is_scored(self) -> bool:
        """Whether the held-out rows were scored after the last step."""
        return bool(self.evals) and self.evals[-1].step == self.step

    def has_marks(self, exam: str) -> bool:
        """Whether the exam of this digest was taken after the last step."""
        return bool(self.scores) and (self.scores[-1].step, self.scores[-1].exam) == (self.step, exam)

    def is_due(self, every: int | None) -> bool:
        """Whether what is done after `every` so many steps, None never, is to be done after the last."""
        return every is not None and self.step % every == 0

    def learning_rate_in_force(self, configured: float) -> float:
        """The latest change up to now; `configured` where there was none."""
        past = [step for step in self.learning_rates if step <= self.step]
        return self.learning_rates[max(past)] if past else configured


def _marks_kept(plain: Mapping[str, Any] | None) -> MarksKept | None:
    return None if plain is None else MarksKept(**plain)
