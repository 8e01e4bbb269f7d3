"""The dashboard where there is no notebook: a line of plain text at most once a second, and one for each rare event."""

import math
import time
from collections.abc import Callable

from tunebook.events import (
    CommandReceived,
    EvalEvent,
    Event,
    LearningRateChanged,
    Notice,
    RunEnded,
    RunStarted,
    SampleEvent,
    ScoreEvent,
    StepEvent,
)
from tunebook.machine.inert import one_line, visible

from .freeze import frozen_table
from .progress import Progress
from .wording import about, duration, figures, headline, loss, rate, reported, rows_to_train, tokens_sec, verdict

_SECONDS_BETWEEN_LINES = 1.0


class TerminalScreen:
    """Prints a run. The last step of a run is always printed."""

    def __init__(self, write: Callable[[str], object] = print, clock: Callable[[], float] = time.monotonic):
        self._write = write
        self._clock = clock
        self._last_line = float("-inf")

    def show(self, run: Progress) -> None:
        """Where a run in another process stands or how it ended; of any other nothing: a log begins with the run."""
        if run.attached_to is not None and run.ended is not None:
            self._write(frozen_table(run)["text/plain"])
        elif run.attached_to is not None and run.running:
            self._write(headline(run))

    def begin(self, run: Progress) -> None:
        """Nothing: the first event says it."""

    def bring_back(self, run: Progress, mode: str) -> None:
        """Print what is kept of a run that is over."""
        del mode
        self._write(frozen_table(run)["text/plain"])

    def retire(self, run: Progress) -> None:
        """Nothing: what is printed stays."""

    @property
    def picks(self) -> list[dict[str, str]]:
        return []

    def update(self, run: Progress, event: Event) -> None:
        match event:
            case StepEvent():
                now = self._clock()
                if now - self._last_line >= _SECONDS_BETWEEN_LINES or event.step == event.total_steps:
                    self._last_line = now
                    self._write(log_line(run, event))
            case EvalEvent():
                said = f"; {told}" if (told := reported(event.metrics)) else ""
                self._write(f"step {event.step}: held-out loss {loss(event.loss)} over {event.rows:,} rows{said}")
            case ScoreEvent():
                self._write(f"step {event.step}: {visible(event.sentence)}")
            case SampleEvent():
                self._write(f"step {event.step}: {event.prompt!r} → {event.text!r}")
            case Notice():
                self._write(f"step {event.step}: {visible(event.text)}")
            case LearningRateChanged():
                self._write(f"step {event.step}: learning_rate is {rate(event.learning_rate)} from now on")
            case RunStarted():
                self._write(f"Training {one_line(event.model)}: {event.total_steps:,} steps, {rows_to_train(event)}.")
            case CommandReceived():
                self._write(headline(run))
            case RunEnded():
                self._write(verdict(run))


def log_line(run: Progress, event: StepEvent) -> str:
    """'step 12/40  loss 1.823  grad 0.41  lr 2.00e-04  1,203 of 2,310 tok/s  1.23 GB  38 s  about 3 min left'."""
    width = len(str(event.total_steps))
    norm = f"  grad {event.grad_norm:.2f}" if math.isfinite(event.grad_norm) else ""
    left = "" if run.seconds_left is None else f"  {about(run.seconds_left)} left"
    return (
        f"step {event.step:>{width}}/{event.total_steps}  loss {loss(event.loss)}{figures(event.metrics)}{norm}  "
        f"lr {rate(event.lr)}  {tokens_sec(run)} tok/s  {event.peak_gb:.2f} GB  {duration(event.elapsed)}{left}"
    )
