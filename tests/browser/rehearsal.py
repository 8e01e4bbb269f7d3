"""A trainer that trains nothing: it emits the events of a run on a timetable, so a dashboard can be watched at work.

It keeps the contract of a real trainer: events in order on the calling thread, commands heard between two steps, and a
RunEnded however the run ends. It is copied beside the notebooks of the browser tests and imported there.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator

from tunebook.events import (
    CheckpointSaved,
    Command,
    CommandReceived,
    EndReason,
    EvalEvent,
    Event,
    LearningRateChanged,
    Notice,
    RunEnded,
    RunStarted,
    SampleEvent,
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
        self._reason = EndReason.FINISHED
        self._asked: deque[tuple[Command, float | None]] = deque()

    def subscribe(self, fn: Callable[[Event], None], *, shows_progress: bool = False) -> None:
        self._listeners.append(fn)

    def send(self, command: Command, value: float | None = None) -> None:
        self._asked.append((command, value))

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
        self._began, self._step, self._rate = time.monotonic(), 0, 2e-4
        self._ending: EndReason | None = None
        self._paused = False
        self._asked.clear()
        yield RunStarted(
            total_steps=self.steps,
            model="example/rehearsal-135M",
            trainable_parameters=4_884_480,
            total_parameters=139_400_000,
            train_rows=400,
            eval_rows=40,
            awaited=awaited,
            memory_limit_gb=4.0,
            folder="runs/run-001",
            config={"max_grad_norm": 1.0, "learning_rate": 2e-4, "output_dir": "runs"},
        )
        yield self._evaluated(0)
        yield self._sampled(0)
        if self.notice:
            yield Notice(step=0, text=self.notice)
        for step in range(1, self.steps + 1):
            for half in (1, 2):
                time.sleep(self.seconds / 2)
                yield Working(step=step, what="training", done=half, total=2)
                yield from self._listen()
            self._step = step
            if step in self.broken:
                yield Notice(step=step, text=f"The loss of step {step} is not finite; the step was not applied.")
            yield self._stepped(step)
            if step % self.eval_steps == 0:
                yield self._evaluated(step)
                yield self._sampled(step)
            while self._paused and self._ending is None:
                time.sleep(0.02)
                yield Working(step=step, what="paused", done=step, total=self.steps)
                yield from self._listen()
            if self._ending is not None:
                yield self._ended(self._ending)
                return
        yield self._ended(EndReason.FINISHED)

    def _listen(self) -> Iterator[Event]:
        """Acknowledge what was asked for, and do at once what a trainer does after the step."""
        while self._asked:
            command, value = self._asked.popleft()
            yield CommandReceived(step=self._step, command=command, value=value)
            match command:
                case Command.STOP:
                    self._ending = EndReason.STOPPED
                case Command.DISCARD:
                    self._ending = EndReason.DISCARDED
                case Command.PAUSE | Command.RESUME:
                    self._paused = command is Command.PAUSE
                case Command.EVALUATE:
                    yield self._evaluated(self._step)
                case Command.SAMPLE:
                    yield self._sampled(self._step)
                case Command.SAVE:
                    yield CheckpointSaved(step=self._step, path=f"runs/run-001/checkpoints/step-{self._step:05d}")
                case Command.LEARNING_RATE:
                    self._rate = value or self._rate
                    yield LearningRateChanged(step=self._step, learning_rate=self._rate)

    def _stepped(self, step: int) -> StepEvent:
        wobble = math.sin(7.3 * step) * math.cos(2.1 * step)  # noise, the same in every run
        broken = step in self.broken
        return StepEvent(
            step=step,
            total_steps=self.steps,
            loss=math.nan if broken else _loss_at(step / self.steps) + 0.12 * wobble,
            lr=self._rate * (1 - (step - 1) / self.steps),
            tokens_sec=1200 + 60 * wobble,
            peak_gb=1.23,
            elapsed=time.monotonic() - self._began,
            num_tokens=960 * step,
            total_tokens=2400 * step,
            grad_norm=math.nan if broken else 0.62 + 0.3 * wobble + (1.4 if step % 23 == 0 else 0),
            active_gb=1.05 + 0.1 * wobble,
            cache_gb=0.2 - 0.1 * wobble,
        )

    def _evaluated(self, step: int) -> EvalEvent:
        return EvalEvent(step=step, loss=_loss_at(step / self.steps) + 0.07, rows=40, tokens=3000, seconds=0.1)

    def _sampled(self, step: int) -> SampleEvent:
        babble = "is Paris the the of of is " * (2 - 2 * step // self.steps)
        text = f"The capital of France {babble}is{'' if step == 0 else ' Paris.'}"
        return SampleEvent(step=step, prompt="What is the capital of France?", text=text, seconds=0.1)

    def _ended(self, reason: EndReason) -> RunEnded:
        messages = {
            EndReason.FINISHED: "All planned steps were taken.",
            EndReason.DISCARDED: "Discarded on request; the adapter is as it was before the run.",
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
