"""One training run: a generator of events that takes an optimizer step between two of them.

It reads only `tokens` and `loss_mask` of a batch, and asks the family for everything else, so it does not know what
kind of model it trains. It draws nothing, writes nothing and catches only what ends a run: whoever drains it decides
who is told, and whether the caller waits or awaits.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Generator
from dataclasses import asdict, dataclass, field

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from . import optim, runtime
from .adapters import parameter_counts
from .batches import Window, padded_width, total_steps, windows
from .config import TrainingConfig
from .evaluation import score
from .events import (
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
from .families.base import Encoded
from .interrupts import held_back
from .loader import Loaded
from .loss import summed_loss, supervised_positions
from .tensors import number

# After this many steps in a row whose loss or gradients are not finite, waiting for a better one is hope.
STEPS_NOT_FINITE = 3


@dataclass
class Run:
    """What a run is made of, and how far it is."""

    loaded: Loaded
    config: TrainingConfig
    train_rows: list[Encoded]
    eval_rows: list[Encoded]
    max_seq_length: int
    notices: list[str] = field(default_factory=list)  # said at the start
    commands: deque[Command] = field(default_factory=deque)  # filled from outside, by any thread
    step: int = 0  # optimizer steps completed
    num_tokens: int = 0  # supervised tokens trained on
    evals: list[EvalEvent] = field(default_factory=list)

    def __post_init__(self):
        self.total_steps = total_steps(len(self.train_rows), self.config)
        self._rate = optim.learning_rate(self.config, self.total_steps)
        self._optimizer = optim.make_optimizer(self.config, self.loaded.module)
        self._value_and_grad = nn.value_and_grad(self.loaded.module, summed_loss(self.loaded.family))
        self._began = time.perf_counter()
        self._stopping = False
        self._not_finite = 0  # steps in a row

    def events(self, *, awaited: bool) -> Generator[Event, None, None]:
        """Everything that happens, in order, ending with RunEnded whatever ends the run.

        An interrupt, raised in here or thrown in by the drainer, ends the run; any other exception does too, and rises
        again after RunEnded.
        """
        module = self.loaded.module
        was_training = module.training
        runtime.reset_peak_memory()
        self._began = time.perf_counter()
        try:
            yield self._started(awaited)
            for text in self.notices:
                yield Notice(step=self.step, text=text)
            reason = yield from self._train()
        except (KeyboardInterrupt, asyncio.CancelledError):
            reason = EndReason.INTERRUPTED
        except Exception as error:
            yield self._ended(EndReason.FAILED, f"{type(error).__name__}: {error}")
            raise
        finally:
            module.train(was_training)
        yield self._ended(reason)

    def _train(self) -> Generator[Event, None, EndReason]:
        yield from self._evaluate()
        for window in windows(len(self.train_rows), self.config):
            yield from self._listen()
            if self._stopping:
                return EndReason.STOPPED
            if self.step == self.total_steps:
                break
            yield from self._take_step(window)
            if self._not_finite == STEPS_NOT_FINITE:
                return EndReason.NOT_FINITE
            if self.config.eval_steps and self.step % self.config.eval_steps == 0:
                yield from self._evaluate()
        yield from self._evaluate()
        return EndReason.STOPPED if self._stopping else EndReason.FINISHED

    def _take_step(self, window: Window) -> Generator[Event, None, None]:
        """One optimizer step over the micro-batches of `window`."""
        module, config, step = self.loaded.module, self.config, self.step + 1
        # Seeded by the step, so that dropout at step n is the same in a run that was resumed.
        mx.random.seed(int(np.random.SeedSequence([config.seed, step]).generate_state(1)[0]))
        module.train()
        nats, tokens, gradients, seconds = 0.0, 0, None, 0.0
        for done, row_numbers in enumerate(window, start=1):
            began = time.perf_counter()
            rows = [self.train_rows[number] for number in row_numbers]
            batch = self.loaded.family.collate(
                rows, padded_width(max(len(row.tokens) for row in rows), self.max_seq_length)
            )
            positions = supervised_positions(batch)
            more, new = self._value_and_grad(module, batch, positions)
            gradients = new if gradients is None else tree_map(mx.add, gradients, new)
            mx.eval(more, gradients)
            nats, tokens = nats + number(more), tokens + positions.size
            seconds += time.perf_counter() - began
            yield Working(step=step, what="training", done=done, total=len(window))
            yield from self._listen()

        began = time.perf_counter()
        # Sum first, divide once: a short row must not weigh more than a long one.
        gradients = tree_map(lambda gradient: gradient / tokens, gradients)
        norm = optim.global_norm(gradients)
        grad_norm, loss = number(norm), nats / tokens
        finite = math.isfinite(loss) and math.isfinite(grad_norm)
        if config.max_grad_norm:
            gradients = optim.clip_by_global_norm(gradients, norm, config.max_grad_norm)
        with held_back():
            if finite:
                optim.update(
                    module, gradients, self._optimizer, rate=self._rate(step), weight_decay=config.weight_decay
                )
                mx.eval(module.trainable_parameters(), self._optimizer.state)
            self.step, self.num_tokens = step, self.num_tokens + tokens
        self._not_finite = 0 if finite else self._not_finite + 1
        seconds += time.perf_counter() - began
        yield StepEvent(
            step=step,
            total_steps=self.total_steps,
            loss=loss,
            lr=self._rate(step),
            tokens_sec=tokens / seconds,
            peak_gb=runtime.memory().peak_gb,
            elapsed=self._elapsed(),
            num_tokens=self.num_tokens,
            grad_norm=grad_norm,
        )
        if not finite:
            numbers = sorted(number for row_numbers in window for number in row_numbers)
            yield Notice(
                step=step,
                text=f"Step {step} was not applied: its loss is {loss} and its gradient norm {grad_norm}. Its training "
                f"rows: {', '.join(map(str, numbers))}.",
            )

    def _evaluate(self) -> Generator[Event, None, None]:
        """Score the held-out rows, unless there are none or this step's score is known; a stop ends it unscored."""
        if not self.eval_rows or (self.evals and self.evals[-1].step == self.step):
            return
        began = time.perf_counter()
        scoring = score(
            self.loaded.module,
            self.loaded.family,
            self.eval_rows,
            batch_size=self.config.per_device_eval_batch_size or self.config.per_device_train_batch_size,
            max_seq_length=self.max_seq_length,
        )
        try:
            while not self._stopping:
                done, total = next(scoring)
                yield Working(step=self.step, what="evaluating", done=done, total=total)
                yield from self._listen()
        except StopIteration as end:
            event = EvalEvent(
                step=self.step,
                loss=end.value.loss,
                tokens=end.value.tokens,
                rows=len(self.eval_rows),
                seconds=time.perf_counter() - began,
            )
            self.evals.append(event)
            yield event
        finally:
            scoring.close()

    def _listen(self) -> Generator[Event, None, None]:
        """Acknowledge the commands that have come in."""
        while self.commands:
            command = self.commands.popleft()
            self._stopping = self._stopping or command is Command.STOP
            yield CommandReceived(step=self.step, command=command)

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began

    def _started(self, awaited: bool) -> RunStarted:
        trainable, total = parameter_counts(self.loaded.module)
        return RunStarted(
            total_steps=self.total_steps,
            model=self.loaded.name,
            trainable_parameters=trainable,
            total_parameters=total,
            train_rows=len(self.train_rows),
            eval_rows=len(self.eval_rows),
            awaited=awaited,
            config=asdict(self.config),
        )

    def _ended(self, reason: EndReason, detail: str = "") -> RunEnded:
        return RunEnded(
            step=self.step,
            total_steps=self.total_steps,
            reason=reason,
            message=_closing_sentence(reason, self.step, self.total_steps, self._elapsed(), self.evals, detail),
            elapsed=self._elapsed(),
        )


def _closing_sentence(
    reason: EndReason, step: int, total: int, seconds: float, evals: list[EvalEvent], detail: str
) -> str:
    opening = {
        EndReason.FINISHED: f"Finished all {total} steps",
        EndReason.STOPPED: f"Stopped on request after step {step} of {total}",
        EndReason.INTERRUPTED: f"Interrupted after step {step} of {total}",
        EndReason.NOT_FINITE: f"Ended after step {step} of {total}, because {STEPS_NOT_FINITE} steps in a row were not "
        "finite and not applied",
        EndReason.FAILED: f"Failed after step {step} of {total} ({detail})",
    }[reason]
    minutes, rest = divmod(round(seconds), 60)
    took = f"{minutes} min {rest} s" if minutes else f"{rest} s"
    learned = f"; held-out loss {evals[0].loss:.3f} → {evals[-1].loss:.3f}" if len(evals) > 1 else ""
    return f"{opening} in {took}{learned}."
