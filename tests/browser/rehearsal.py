"""A trainer that trains nothing: it emits the events of a run on a timetable, so a dashboard can be watched at work.

It keeps the contract of a real trainer: events in order on the calling thread, a stop heard between two steps, and a
RunEnded however the run ends. It is copied beside the notebooks of the browser tests and imported there.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator

from tunebook.events import (
    Command,
    CommandReceived,
    EndReason,
    EvalEvent,
    Event,
    Notice,
    RunEnded,
    RunStarted,
    StepEvent,
    Working,
)


class Rehearsal:
    """`steps` steps of `seconds` each, in two micro-batches.

    A step in `broken` has a loss that is not finite and a notice saying so.
    """

    def __init__(
        self,
        *,
        steps: int = 40,
        seconds: float = 0.2,
        eval_steps: int = 10,
        broken: tuple[int, ...] = (),
        notice: str = "",
    ):
        self.steps = steps
        self.seconds = seconds
        self.eval_steps = eval_steps
        self.broken = broken
        self.notice = notice
        self.events: list[Event] = []  # all that was emitted
        self.ended_at = 0.0  # when the last run ended, seconds since 1970
        self._listeners: list[Callable[[Event], None]] = []
        self._stop = False
        self._reason = EndReason.FINISHED

    def subscribe(self, fn: Callable[[Event], None], *, shows_progress: bool = False) -> None:
        self._listeners.append(fn)

    def send(self, command: Command) -> None:
        self._stop = command is Command.STOP

    def train(self) -> EndReason:
        try:
            for event in self._run(awaited=False):
                self._emit(event)
        except KeyboardInterrupt:
            self._emit(self._ended(EndReason.INTERRUPTED))
        return self._reason

    async def train_async(self) -> EndReason:
        try:
            for event in self._run(awaited=True):
                self._emit(event)
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._emit(self._ended(EndReason.INTERRUPTED))
        return self._reason

    def _emit(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, RunEnded):
            self.ended_at = time.time()
            self._reason = event.reason
        for listener in self._listeners:
            listener(event)

    def _run(self, *, awaited: bool) -> Iterator[Event]:
        self._stop, self._began, self._step = False, time.monotonic(), 0
        yield RunStarted(
            total_steps=self.steps,
            model="example/rehearsal-135M",
            trainable_parameters=4_884_480,
            total_parameters=139_400_000,
            train_rows=400,
            eval_rows=40,
            awaited=awaited,
            config={"max_grad_norm": 1.0, "learning_rate": 2e-4},
        )
        yield self._evaluated(0)
        if self.notice:
            yield Notice(step=0, text=self.notice)
        for step in range(1, self.steps + 1):
            stopping = False
            for half in (1, 2):
                time.sleep(self.seconds / 2)
                yield Working(step=step, what="training", done=half, total=2)
                if self._stop and not stopping:
                    stopping = True
                    yield CommandReceived(step=step - 1, command=Command.STOP)
            self._step = step
            if step in self.broken:
                yield Notice(step=step, text=f"The loss of step {step} is not finite; the step was not applied.")
            yield self._stepped(step)
            if step % self.eval_steps == 0:
                yield self._evaluated(step)
            if stopping:
                yield self._ended(EndReason.STOPPED)
                return
        yield self._ended(EndReason.FINISHED)

    def _stepped(self, step: int) -> StepEvent:
        wobble = math.sin(7.3 * step) * math.cos(2.1 * step)  # noise, the same in every run
        broken = step in self.broken
        return StepEvent(
            step=step,
            total_steps=self.steps,
            loss=math.nan if broken else _loss_at(step / self.steps) + 0.12 * wobble,
            lr=2e-4 * (1 - (step - 1) / self.steps),
            tokens_sec=1200 + 60 * wobble,
            peak_gb=1.23,
            elapsed=time.monotonic() - self._began,
            num_tokens=960 * step,
            grad_norm=math.nan if broken else 0.62 + 0.3 * wobble + (1.4 if step % 23 == 0 else 0),
        )

    def _evaluated(self, step: int) -> EvalEvent:
        return EvalEvent(step=step, loss=_loss_at(step / self.steps) + 0.07, rows=40, tokens=3000, seconds=0.1)

    def _ended(self, reason: EndReason) -> RunEnded:
        messages = {
            EndReason.FINISHED: "All planned steps were taken.",
            EndReason.STOPPED: "Stopped on request; the adapter is as it was after the last step.",
            EndReason.INTERRUPTED: "The kernel was interrupted; the adapter is as it was after the last step.",
        }
        elapsed = time.monotonic() - self._began
        return RunEnded(
            step=self._step, total_steps=self.steps, reason=reason, message=messages[reason], elapsed=elapsed
        )


def _loss_at(share: float) -> float:
    """A believable loss after this share of the run, in nats."""
    return 1.38 + 1.25 * math.exp(-3.2 * share)
