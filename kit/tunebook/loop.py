"""One training run: a generator of events that takes an optimizer step between two of them.

It decides what comes when; the numbers of a step are made in `step.py`. It draws nothing, writes nothing but its
checkpoints, and catches only what ends a run: whoever drains it decides who is told, and whether the caller waits or
awaits.
"""

import asyncio
import time
import traceback
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx

from . import runtime
from .adapters import parameter_counts
from .batches import padding_share, total_steps
from .checkpoint import Checkpoint, save_checkpoint
from .config import TrainingConfig
from .encoded import lengths_of
from .endings import STEPS_NOT_FINITE, closing_sentence, explained
from .evaluation import best_of, patience_is_lost, score
from .events import (
    CheckpointSaved,
    Command,
    CommandReceived,
    EndReason,
    EvalEvent,
    Event,
    LearningRateChanged,
    Notice,
    Request,
    RunEnded,
    RunStarted,
    SampleEvent,
    StepEvent,
    Working,
)
from .families.base import Encoded
from .feed import Feed, Place, Portion
from .identity import identity_of
from .interrupts import held_back
from .loader import Loaded
from .runs import STOP_FILE
from .sampling import Prompt, write
from .step import Outcome, Stepper
from .tensors import flat

PAUSE_SECONDS = 0.05  # how long a paused run sleeps before it listens again

DISCARD_SHARE = 0.1  # up to which share of all parameters the trained ones are kept as they were, for a discard

CACHE_STEPS = 50  # how often the memory MLX keeps for reuse is given back; batches of new shapes make it grow


@dataclass
class Run:
    """What a run is made of, and how far it is."""

    loaded: Loaded
    config: TrainingConfig
    feed: Feed  # the rows to train on
    eval_rows: Sequence[Encoded]
    max_seq_length: int
    skip_unreadable: bool = False  # leave rows out that cannot be opened when they are needed
    prompts: list[Prompt] = field(default_factory=list)  # what samples are taken of
    folder: Path | None = None  # where checkpoints go; None: there are none
    notices: list[str] = field(default_factory=list)  # said at the start
    commands: deque[Request] = field(default_factory=deque)  # filled from outside, by any thread
    step: int = 0  # optimizer steps completed
    num_tokens: int = 0  # supervised tokens trained on
    total_tokens: int = 0  # tokens of all batches, padding included
    trainable_tokens: int = 0  # those of them with a label
    place: Place = field(default_factory=Place)  # how far the rows are read
    evals: list[EvalEvent] = field(default_factory=list)
    # Learning rates, past and to come, by the step they are taken up after; ahead only in a run that is resumed.
    learning_rates: dict[int, float] = field(default_factory=dict)

    def __post_init__(self):
        self.total_steps = total_steps(len(self.feed.known), self.config)
        self._stepper = Stepper(
            self.loaded,
            self.config,
            self.feed.known,
            total_steps=self.total_steps,
            max_seq_length=self.max_seq_length,
            skip_unreadable=self.skip_unreadable,
        )
        self.notices += self._stepper.notices
        self._began, self._elapsed_before = time.perf_counter(), 0.0
        self._not_finite = 0  # steps in a row
        self._best_weights: dict[str, mx.array] | None = None  # of the lowest held-out loss, if they will be wanted
        self._start_weights: dict[str, mx.array] | None = None  # to discard the run with
        self._stopping = self._discarding = self._paused = False
        self._asked: set[Command] = set()  # what is to be done before the next step
        self._new_learning_rate: float | None = None  # the same
        self._saved_step: int | None = None
        self._sampled_step: int | None = None

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must be of, to be resumed by this run."""
        return identity_of(self.loaded, self.config, self.feed, self.max_seq_length)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`, in place; that it belongs to this run has been checked."""
        module, progress = self.loaded.module, checkpoint.progress
        module.load_weights(list(checkpoint.weights.items()), strict=False)
        self._stepper.optimizer.state = checkpoint.optimizer_state
        self._best_weights = checkpoint.best_weights
        self.step = self._saved_step = progress["step"]
        self.num_tokens = progress["num_tokens"]
        self.total_tokens = progress.get("total_tokens", 0)  # none in the checkpoints of version 0.1
        self.trainable_tokens = progress.get("trainable_tokens", 0)
        self.place = Place(**progress.get("place", {"step": self.step}))
        self._not_finite = progress["not_finite"]
        self.evals = [EvalEvent(**fields) for fields in progress["evals"]]
        self._elapsed_before = progress["elapsed"]
        self.learning_rates = dict(progress.get("learning_rates", []))

    def events(self, *, awaited: bool) -> Generator[Event, None, None]:
        """Everything that happens, in order, ending with RunEnded whatever ends the run.

        An interrupt, raised in here or thrown in by the drainer, ends the run; any other exception does too, and rises
        again after RunEnded.
        """
        module = self.loaded.module
        was_training = module.training
        self._stepper.learning_rate = self._learning_rate_in_force()
        self._keep_start_weights()
        runtime.reset_peak_memory()
        self._began = time.perf_counter() - self._elapsed_before
        try:
            with runtime.memory_for_training():
                yield self._started(awaited)
                for text in self.notices:
                    yield Notice(step=self.step, text=text)
                reason = yield from self._train()
        except (KeyboardInterrupt, asyncio.CancelledError):
            reason = EndReason.INTERRUPTED
        except Exception as error:
            failure = explained(error, self.config)
            if isinstance(failure, MemoryError):
                # The frames the error came through hold the arrays of the step; saving needs their memory.
                traceback.clear_frames(error.__traceback__)
                mx.clear_cache()
            yield from self._save()
            yield self._ended(EndReason.FAILED, f"{type(failure).__name__}: {failure}")
            if failure is error:
                raise
            raise failure from error
        finally:
            module.train(was_training)
        if reason is EndReason.DISCARDED:
            yield from self._put_start_back()
        else:
            yield from self._save()
            yield from self._put_best_back()
        for text in self._stepper.closing_notices():
            yield Notice(step=self.step, text=text)
        yield self._ended(reason)

    def _train(self) -> Generator[Event, None, EndReason]:
        yield from self._evaluate()
        if self.config.sample_steps is not None and self.step == 0:
            yield from self._sample()
        portions = self.feed.portions(self.place)
        while True:
            yield from self._between_steps()
            if self._stopping:
                return self._why_stopped()
            if patience_is_lost(self.evals, self.config.early_stopping_patience):
                return EndReason.EARLY_STOPPED
            if self.step >= self.total_steps:
                break
            yield from self._take_step(next(portions))
            if self._not_finite == STEPS_NOT_FINITE:
                return EndReason.NOT_FINITE
            if _is_due(self.config.eval_steps, self.step):
                yield from self._evaluate()
            if _is_due(self.config.sample_steps, self.step):
                yield from self._sample()
            if _is_due(self.config.save_steps, self.step):
                yield from self._save()
            if _is_due(CACHE_STEPS, self.step):
                mx.clear_cache()
        yield from self._evaluate()
        if self.config.sample_steps is not None:
            yield from self._sample()
        return self._why_stopped() if self._stopping else EndReason.FINISHED

    def _why_stopped(self) -> EndReason:
        return EndReason.DISCARDED if self._discarding else EndReason.STOPPED

    def _between_steps(self) -> Generator[Event, None, None]:
        """Do what was asked for, and wait while the run is paused."""
        yield from self._listen()
        yield from self._do_as_asked()
        while self._paused and not self._stopping:
            time.sleep(PAUSE_SECONDS)
            yield Working(step=self.step, what="paused", done=self.step, total=self.total_steps)
            yield from self._listen()
            yield from self._do_as_asked()

    def _do_as_asked(self) -> Generator[Event, None, None]:
        yield from self._take_up_learning_rate()  # first: a checkpoint asked for with it holds it
        asked, self._asked = self._asked, set()
        for command in sorted(asked):  # evaluate, sample, save: a checkpoint holds the score asked for with it
            if (reason := self._cannot(command)) is not None:
                yield Notice(step=self.step, text=f"Asked to {command}, but {reason}.")
            elif command is Command.EVALUATE:
                yield from self._evaluate()
            elif command is Command.SAMPLE:
                yield from self._sample()
            elif command is Command.SAVE:
                yield from self._save()

    def _take_up_learning_rate(self) -> Generator[Event, None, None]:
        if self._new_learning_rate is not None:
            self.learning_rates[self.step] = self._new_learning_rate
            self._new_learning_rate = None
        rate = self._learning_rate_in_force()
        if rate != self._stepper.learning_rate:
            self._stepper.learning_rate = rate
            yield LearningRateChanged(step=self.step, learning_rate=rate)

    def _learning_rate_in_force(self) -> float:
        past = [step for step in self.learning_rates if step <= self.step]
        return self.learning_rates[max(past)] if past else self.config.learning_rate

    def _cannot(self, command: Command) -> str | None:
        """Why there is nothing to do for a command; None when there is."""
        if command is Command.EVALUATE and not self.eval_rows:
            return "there are no held-out rows; give the Trainer an eval_dataset"
        if command is Command.EVALUATE and self.evals and self.evals[-1].step == self.step:
            return f"step {self.step} was scored already"
        if command is Command.SAMPLE and self._sampled_step == self.step:
            return f"samples of step {self.step} were taken already"
        if command is Command.SAVE and self.folder is None:
            return "there is no folder to save in; set TrainingConfig.output_dir"
        if command is Command.SAVE and self._saved_step == self.step:
            return f"step {self.step} is saved already"
        return None

    def _take_step(self, portion: Portion) -> Generator[Event, None, None]:
        """One optimizer step over the micro-batches of `portion`."""
        step = self.step + 1
        said = list(portion.notices)
        self._stepper.begin(step)
        for done, rows in enumerate(portion.batches, start=1):
            said += self._stepper.add(rows, alone=len(portion.batches) == 1)
            yield Working(step=step, what="training", done=done, total=len(portion.batches))
            yield from self._listen()
        with held_back():
            outcome = self._stepper.finish()
            self.step, self.place = step, portion.place
            self.num_tokens += outcome.tokens
            self.total_tokens += outcome.total_tokens
            self.trainable_tokens += outcome.trainable_tokens
        self._not_finite = 0 if outcome.applied else self._not_finite + 1
        memory = runtime.memory()
        yield StepEvent(
            step=step,
            total_steps=self.total_steps,
            loss=outcome.loss,
            lr=outcome.rate,
            tokens_sec=outcome.tokens / outcome.seconds,
            peak_gb=memory.peak_gb,
            elapsed=self._elapsed(),
            num_tokens=self.num_tokens,
            grad_norm=outcome.grad_norm,
            active_gb=memory.active_gb,
            cache_gb=memory.cache_gb,
            total_tokens=self.total_tokens,
            trainable_tokens=self.trainable_tokens,
        )
        for text in said:
            yield Notice(step=step, text=text)
        if not outcome.applied:
            yield Notice(step=step, text=self._not_applied(outcome, portion))

    def _not_applied(self, outcome: Outcome, portion: Portion) -> str:
        """What is told of a step that is not finite: which of its rows are to blame, as far as their loss shows."""
        rows = [row for batch in portion.batches for row in batch]
        guilty = [row for row in rows if self._stepper.not_finite(row)]
        blame = (
            f"{len(guilty)} of its {len(rows)} rows alone give such a loss" if guilty else "None of its rows does alone"
        )
        return (
            f"Step {self.step} was not applied: its loss is {outcome.loss} and its gradient norm {outcome.grad_norm}. "
            f"{blame}; its training rows: {', '.join(map(str, sorted(row.number for row in guilty or rows)))}."
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
            skip_unreadable=self.skip_unreadable,
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
            if self.config.load_best_model_at_end and event is best_of(self.evals):
                self._best_weights = flat(self.loaded.module.trainable_parameters())
            yield event
        finally:
            scoring.close()

    def _sample(self) -> Generator[Event, None, None]:
        """Write an answer to every prompt, unless this step's were written; a stop ends it with what there is."""
        if self._stopping or self._sampled_step == self.step:
            return
        self._sampled_step = self.step
        longest = self.config.sample_max_tokens
        for prompt in self.prompts:
            began, pieces = time.perf_counter(), []
            writing = write(self.loaded, prompt.example, max_tokens=longest)
            for piece in writing:
                pieces.append(piece)
                yield Working(step=self.step, what="sampling", done=min(len(pieces), longest), total=longest)
                yield from self._listen()
                if self._stopping:
                    writing.close()
                    return
            seconds = time.perf_counter() - began
            yield SampleEvent(step=self.step, prompt=prompt.shown, text="".join(pieces), seconds=seconds)
        mx.clear_cache()

    def _listen(self) -> Generator[Event, None, None]:
        """Acknowledge the commands that have come in; only a stop and a pause change what happens by themselves."""
        if self.folder is not None and (self.folder / STOP_FILE).exists():
            (self.folder / STOP_FILE).unlink()
            self.commands.append(Request(Command.STOP))
        while self.commands:
            request = self.commands.popleft()
            match request:
                case Request(Command.STOP | Command.DISCARD):
                    self._stopping = True
                    self._discarding |= request.command is Command.DISCARD
                case Request(Command.PAUSE | Command.RESUME):
                    self._paused = request.command is Command.PAUSE
                case Request(Command.LEARNING_RATE, rate):
                    self._new_learning_rate = rate
                case _:
                    self._asked.add(request.command)
            yield CommandReceived(step=self.step, command=request.command, value=request.value)

    def _save(self) -> Generator[Event, None, None]:
        """Write a checkpoint, unless this step has one; a disk that will not take it is reported, not fatal."""
        if self.folder is None or self._saved_step == self.step:
            return
        checkpoint = Checkpoint(
            weights=flat(self.loaded.module.trainable_parameters()),
            optimizer_state=self._stepper.optimizer.state,
            best_weights=self._best_weights,
            identity=self.identity,
            progress={
                "step": self.step,
                "num_tokens": self.num_tokens,
                "total_tokens": self.total_tokens,
                "trainable_tokens": self.trainable_tokens,
                "place": asdict(self.place),
                "not_finite": self._not_finite,
                "evals": [asdict(event) for event in self.evals],
                "elapsed": self._elapsed(),
                "learning_rates": [[step, rate] for step, rate in self.learning_rates.items() if step <= self.step],
            },
        )
        try:
            path = save_checkpoint(self.folder, self.step, checkpoint, keep=self.config.save_total_limit)
        except (OSError, RuntimeError) as error:  # a full disk, or MLX out of memory
            yield Notice(step=self.step, text=f"No checkpoint was written at step {self.step}. {error}")
        else:
            self._saved_step = self.step
            yield CheckpointSaved(step=self.step, path=str(path))

    def _put_best_back(self) -> Generator[Event, None, None]:
        best = best_of(self.evals)
        if self._best_weights is not None and best is not None and best.step != self.step:
            self.loaded.module.load_weights(list(self._best_weights.items()), strict=False)
            lowest = f"with the lowest held-out loss ({best.loss:.4f})"
            yield Notice(step=self.step, text=f"The weights of step {best.step}, {lowest}, are in the model.")

    def _keep_start_weights(self) -> None:
        trainable, total = parameter_counts(self.loaded.module)
        if trainable <= DISCARD_SHARE * total:
            self._start_weights = flat(self.loaded.module.trainable_parameters())

    def _put_start_back(self) -> Generator[Event, None, None]:
        if self._start_weights is not None:
            self.loaded.module.load_weights(list(self._start_weights.items()), strict=False)
            text = "The weights are as they were before this run; checkpoints it wrote stay."
        else:
            text = "So many weights are trained that no copy was kept. To have the old ones back, load the model again."
        yield Notice(step=self.step, text=text)

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
            train_rows=len(self.feed.known) if self.feed.is_whole else None,
            eval_rows=len(self.eval_rows),
            padding_share=padding_share(lengths_of(self.feed.known), self.config, max_seq_length=self.max_seq_length),
            awaited=awaited,
            memory_limit_gb=runtime.memory().limit_gb,
            config=self.config.as_plain(),
        )

    def _ended(self, reason: EndReason, detail: str = "") -> RunEnded:
        return RunEnded(
            step=self.step,
            total_steps=self.total_steps,
            reason=reason,
            message=closing_sentence(reason, self.step, self.total_steps, self._elapsed(), self.evals, detail),
            elapsed=self._elapsed(),
        )


def _is_due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0
