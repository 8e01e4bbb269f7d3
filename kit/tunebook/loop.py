"""One training run: a generator of events that takes an optimizer step between two of them.

It reads only `tokens` and `loss_mask` of a batch, and asks the family for everything else, so it does not know what
kind of model it trains. It draws nothing, writes nothing but its checkpoints, and catches only what ends a run: whoever
drains it decides who is told, and whether the caller waits or awaits.

Everything a step does follows from the weights, the optimizer state, the step's number and the configuration. That is
what makes a resumed run the run that was interrupted, bit for bit.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from . import optim, runtime
from .adapters import parameter_counts
from .batches import Window, padded_width, total_steps, windows
from .checkpoint import Checkpoint, save_checkpoint
from .config import TrainingConfig
from .evaluation import score
from .events import (
    CheckpointSaved,
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
from .identity import identity_of
from .interrupts import held_back
from .loader import Loaded
from .loss import summed_loss, supervised_positions
from .recompute import recomputed_layers
from .runs import STOP_FILE
from .tensors import flat, number

# After this many steps in a row whose loss or gradients are not finite, waiting for a better one is hope.
STEPS_NOT_FINITE = 3

PAUSE_SECONDS = 0.05  # how long a paused run sleeps before it listens again


@dataclass
class Run:
    """What a run is made of, and how far it is."""

    loaded: Loaded
    config: TrainingConfig
    train_rows: list[Encoded]
    eval_rows: list[Encoded]
    max_seq_length: int
    folder: Path | None = None  # where checkpoints go; None: there are none
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
        self._began, self._elapsed_before = time.perf_counter(), 0.0
        self._not_finite = 0  # steps in a row
        self._best_weights: dict[str, mx.array] | None = None  # of the lowest held-out loss, if they will be wanted
        self._stopping = self._paused = False
        self._asked: set[Command] = set()  # what is to be done before the next step
        self._saved_step: int | None = None

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must be of, to be resumed by this run."""
        return identity_of(self.loaded, self.config, self.train_rows, self.max_seq_length)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`, in place; that it belongs to this run has been checked."""
        module, progress = self.loaded.module, checkpoint.progress
        module.load_weights(list(checkpoint.weights.items()), strict=False)
        self._optimizer.state = checkpoint.optimizer_state
        self._best_weights = checkpoint.best_weights
        self.step = self._saved_step = progress["step"]
        self.num_tokens = progress["num_tokens"]
        self._not_finite = progress["not_finite"]
        self.evals = [EvalEvent(**fields) for fields in progress["evals"]]
        self._elapsed_before = progress["elapsed"]

    def events(self, *, awaited: bool) -> Generator[Event, None, None]:
        """Everything that happens, in order, ending with RunEnded whatever ends the run.

        An interrupt, raised in here or thrown in by the drainer, ends the run; any other exception does too, and rises
        again after RunEnded.
        """
        module = self.loaded.module
        was_training = module.training
        runtime.reset_peak_memory()
        self._began = time.perf_counter() - self._elapsed_before
        try:
            yield self._started(awaited)
            for text in self.notices:
                yield Notice(step=self.step, text=text)
            reason = yield from self._train()
        except (KeyboardInterrupt, asyncio.CancelledError):
            reason = EndReason.INTERRUPTED
        except Exception as error:
            yield from self._save()
            yield self._ended(EndReason.FAILED, f"{type(error).__name__}: {error}")
            raise
        finally:
            module.train(was_training)
        yield from self._save()
        yield from self._put_best_back()
        yield self._ended(reason)

    def _train(self) -> Generator[Event, None, EndReason]:
        yield from self._evaluate()
        for window in islice(windows([len(row.tokens) for row in self.train_rows], self.config), self.step, None):
            yield from self._between_steps()
            if self._stopping:
                return EndReason.STOPPED
            if self._lost_patience():
                return EndReason.EARLY_STOPPED
            if self.step >= self.total_steps:
                break
            yield from self._take_step(window)
            if self._not_finite == STEPS_NOT_FINITE:
                return EndReason.NOT_FINITE
            if _is_due(self.config.eval_steps, self.step):
                yield from self._evaluate()
            if _is_due(self.config.save_steps, self.step):
                yield from self._save()
        yield from self._evaluate()
        return EndReason.STOPPED if self._stopping else EndReason.FINISHED

    def _between_steps(self) -> Generator[Event, None, None]:
        """Do what was asked for, and wait while the run is paused."""
        yield from self._listen()
        while self._paused and not self._stopping:
            time.sleep(PAUSE_SECONDS)
            yield Working(step=self.step, what="paused", done=self.step, total=self.total_steps)
            yield from self._listen()
        if Command.EVALUATE in self._asked:
            yield from self._evaluate()
        if Command.SAVE in self._asked:
            yield from self._save()
        self._asked.clear()

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
            with recomputed_layers(module) if config.gradient_checkpointing else nullcontext():
                more, new = self._value_and_grad(module, batch, positions)
            if len(window) > 1:  # a sum of many in half precision would lose the small ones
                new = tree_map(lambda gradient: gradient.astype(mx.float32), new)
            gradients = new if gradients is None else tree_map(mx.add, gradients, new)
            mx.eval(more, gradients)
            nats, tokens = nats + number(more), tokens + positions.size
            seconds += time.perf_counter() - began
            yield Working(step=step, what="training", done=done, total=len(window))
            yield from self._listen()

        began = time.perf_counter()
        # Sum first, divide once: a short row must not weigh more than a long one.
        gradients = tree_map(lambda gradient: gradient / tokens, gradients)
        gradients, norm = optim.clip(gradients, config)
        grad_norm, loss = number(norm), nats / tokens
        finite = math.isfinite(loss) and math.isfinite(grad_norm)
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
            if self.config.load_best_model_at_end and event is self._best_eval():
                self._best_weights = flat(self.loaded.module.trainable_parameters())
            yield event
        finally:
            scoring.close()

    def _listen(self) -> Generator[Event, None, None]:
        """Acknowledge the commands that have come in; only a stop and a pause change what happens by themselves."""
        if self.folder is not None and (self.folder / STOP_FILE).exists():
            (self.folder / STOP_FILE).unlink()
            self.commands.append(Command.STOP)
        while self.commands:
            command = self.commands.popleft()
            match command:
                case Command.STOP:
                    self._stopping = True
                case Command.PAUSE | Command.RESUME:
                    self._paused = command is Command.PAUSE
                case _:
                    self._asked.add(command)
            yield CommandReceived(step=self.step, command=command)

    def _save(self) -> Generator[Event, None, None]:
        """Write a checkpoint, unless this step has one; a disk that will not take it is reported, not fatal."""
        if self.folder is None or self._saved_step == self.step:
            return
        checkpoint = Checkpoint(
            weights=flat(self.loaded.module.trainable_parameters()),
            optimizer_state=self._optimizer.state,
            best_weights=self._best_weights,
            identity=self.identity(),
            progress={
                "step": self.step,
                "num_tokens": self.num_tokens,
                "not_finite": self._not_finite,
                "evals": [asdict(event) for event in self.evals],
                "elapsed": self._elapsed(),
            },
        )
        try:
            path = save_checkpoint(self.folder, self.step, checkpoint, keep=self.config.save_total_limit)
        except OSError as error:
            yield Notice(step=self.step, text=f"No checkpoint was written at step {self.step}. {error}")
        else:
            self._saved_step = self.step
            yield CheckpointSaved(step=self.step, path=str(path))

    def _best_eval(self) -> EvalEvent | None:
        """The earliest of the lowest held-out losses; one that is not finite is never it."""
        finite = [event for event in self.evals if math.isfinite(event.loss)]
        return min(finite, key=lambda event: event.loss, default=None)

    def _lost_patience(self) -> bool:
        """Whether the last `early_stopping_patience` evaluations brought no new lowest loss."""
        patience, best = self.config.early_stopping_patience, self._best_eval()
        if patience is None or best is None:
            return False
        return len(self.evals) - 1 - self.evals.index(best) >= patience

    def _put_best_back(self) -> Generator[Event, None, None]:
        best = self._best_eval()
        if self._best_weights is not None and best is not None and best.step != self.step:
            self.loaded.module.load_weights(list(self._best_weights.items()), strict=False)
            lowest = f"with the lowest held-out loss ({best.loss:.4f})"
            yield Notice(step=self.step, text=f"The weights of step {best.step}, {lowest}, are in the model.")

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began

    def _started(self, awaited: bool) -> RunStarted:
        trainable, total = parameter_counts(self.loaded.module)
        return RunStarted(
            total_steps=self.total_steps,
            step=self.step,
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


def _is_due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


def _closing_sentence(
    reason: EndReason, step: int, total: int, seconds: float, evals: list[EvalEvent], detail: str
) -> str:
    opening = {
        EndReason.FINISHED: f"Finished all {total} steps",
        EndReason.STOPPED: f"Stopped on request after step {step} of {total}",
        EndReason.EARLY_STOPPED: f"Stopped early, the held-out loss no longer falling, after step {step} of {total}",
        EndReason.INTERRUPTED: f"Interrupted after step {step} of {total}",
        EndReason.NOT_FINITE: f"Ended after step {step} of {total}, because {STEPS_NOT_FINITE} steps in a row were not "
        "finite and not applied",
        EndReason.FAILED: f"Failed after step {step} of {total} ({detail})",
    }[reason]
    minutes, rest = divmod(round(seconds), 60)
    took = f"{minutes} min {rest} s" if minutes else f"{rest} s"
    learned = f"; held-out loss {evals[0].loss:.3f} → {evals[-1].loss:.3f}" if len(evals) > 1 else ""
    return f"{opening} in {took}{learned}."
