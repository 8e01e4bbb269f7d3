"""One training run: a generator of events that takes an optimizer step between two of them.

It decides what comes when; the numbers of a step are made in `step.py`. It draws nothing, writes nothing but its
checkpoints, and catches only what ends a run: whoever drains it decides who is told, and whether the caller waits or
awaits.
"""

import asyncio
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx

from ..events import Command, EndReason, Event, LearningRateChanged, Notice, Working
from ..machine import runtime
from ..machine.interrupts import held_back
from ..objectives.reference import Reference
from ..runs.controls import Controls
from ..runs.ending_interrupts import Interrupts
from ..tokens.feed import Portion
from .astray.divergence import Astray
from .astray.overoptimization import Overoptimization
from .commands import IN_WORDS, why_not
from .endings import STEPS_NOT_FINITE, TORN, explained
from .kept.checkpoint import Checkpoint
from .kept.runaway import Runaway
from .kept.saves import Saves
from .kept.saving import NOT_ON_THE_DISK, checkpoint_bytes, said_of_the_disk
from .kept.snapshots import NO_DISCARD, KeptWeights
from .looks.looks import Looks
from .looks.samples import Samples
from .owed import Owed
from .passes.first_step import settled_forms, take_up_forms
from .plan import RunPlan
from .progress import RunProgress
from .ranks.check import RanksDiffer
from .ranks.from_first import weights_of_first
from .ranks.group import ALONE, Ranks
from .ranks.steps import Steps
from .run_events import run_ended, run_started
from .step import Stepper

PAUSE_SECONDS = 0.05  # how long a paused run sleeps before it listens again
CACHE_STEPS = 50  # how often the memory MLX keeps for reuse is given back; batches of new shapes make it grow


@dataclass
class Run:
    """A run, how far it is, and what is asked of it."""

    plan: RunPlan
    notices: list[str] = field(default_factory=list)  # said at the start
    folder: Path | None = None  # where checkpoints go; None: there are none
    progress: RunProgress = field(default_factory=RunProgress)
    controls: Controls = field(default_factory=Controls)
    interrupts: Interrupts = field(default_factory=Interrupts)  # who drains the events enters it
    see_to_folder: Callable[[], None] = lambda: None  # before a checkpoint: make it anew where it was taken away
    ranks: Ranks = ALONE  # the processes that take part; the first alone has a folder

    def __post_init__(self):
        plan = self.plan
        self._config, self._module = plan.config, plan.loaded.module
        self.reference = Reference(self._module, plan.objective)
        self._stepper = Stepper(
            plan.loaded,
            plan.config,
            plan.feed.known,
            total_steps=plan.total_steps,
            max_seq_length=plan.max_seq_length,
            skip_unreadable=plan.skip_unreadable,
            objective=plan.objective,
            reference=self.reference,
            ranks=self.ranks,
        )
        self.notices += self._stepper.notices
        self._kept, self._owed = KeptWeights(self._module, start_fits=plan.start_fits), Owed()
        self.notices += [] if self._kept.keeps_start else [NO_DISCARD]
        self.saves = Saves(plan, self._stepper, self._kept, self._owed, self.reference)
        self._astray = Astray(self._module, self._stepper, self._kept, plan.config)
        self.samples = Samples(plan.prompts)
        self._awaited, self._runaway = False, Runaway(self._module)
        self.overoptimization = Overoptimization(plan.objective)
        shared = (plan, self._kept, self._owed, self.ranks, self._listen)
        self.looks = Looks(*shared, self.reference, self.samples, self.controls)
        self._steps = Steps(*shared, self._stepper, self._astray)

    @property
    def step(self) -> int:
        """Optimizer steps completed."""
        return self.progress.step

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`, in place; it belongs to this run, whose reference is taken up from it already."""
        self._module.load_weights(list(checkpoint.weights.items()), strict=False)
        self._stepper.optimizer.state = checkpoint.optimizer_state
        self._kept.best = checkpoint.best_weights
        self.progress = RunProgress.from_plain(checkpoint.progress)
        self.progress.best_step = self.progress.best_step if checkpoint.best_weights is not None else None
        take_up_forms(self._stepper, self.progress)
        self.saves.step = self.step

    def events(self, *, awaited: bool) -> Generator[Event, None, None]:
        """Everything that happens, in order, ending with RunEnded whatever ends the run.

        An interrupt, raised in here or thrown in by the drainer, ends the run; any other exception does too, and rises
        again after RunEnded.
        """
        failure: Exception | None = None
        self._awaited = awaited
        try:
            try:
                self.ranks.begin(lambda: self._save(may_be_astray=False))
                reason = yield from self._begin_and_train(awaited=awaited)
            except Exception as error:  # noqa: BLE001 - it rises again when the run is saved and has told its end
                reason, failure = EndReason.FAILED, explained(error, self._config)
                if failure is not error:
                    failure.__cause__ = error
                self.ranks.leave(f"{type(failure).__name__}: {failure}")
            self.interrupts.hold()
        except (KeyboardInterrupt, asyncio.CancelledError):
            self.interrupts.hold(ended_the_run=True)
            reason = EndReason.INTERRUPTED if failure is None else EndReason.FAILED
            self.ranks.leave("it was interrupted.")
        yield from self.interrupts.held_from(self._end(reason, failure))
        if failure is not None:
            raise failure

    def _begin_and_train(self, *, awaited: bool) -> Generator[Event, None, EndReason]:
        was_training = self._module.training
        with held_back():
            self._stepper.learning_rate = self.progress.learning_rate_in_force(self._config.learning_rate)
            self._kept.keep_start()
            self.reference.settle()
            runtime.reset_peak_memory()
            self.progress.start_clock()
            discards = self._kept.keeps_start
            begun = {"awaited": awaited, "folder": self.folder, "discards": discards, "ranks": self.ranks.size}
            self._owed.add(run_started(self.plan, self.step, **begun))
        size = checkpoint_bytes(self._module, self._stepper.optimizer, self._config, self.reference.kept)
        try:
            with runtime.memory_for_training():
                yield from self._owed.told()
                for text in [*self.notices, *said_of_the_disk(self.folder, size, self._config.save_total_limit)]:
                    yield Notice(step=self.step, text=text)
                return (yield from self._train())
        finally:
            self._module.train(was_training)

    def _end(self, reason: EndReason, failure: Exception | None) -> Generator[Event, None, None]:
        """Save what there is, leave the weights in the model that are wanted, and tell how it ended."""
        yield from self._owed.told()
        went_back = False
        if reason is EndReason.DISCARDED:
            yield Notice(step=self.step, text=self._kept.put_start_back())
        elif reason is EndReason.STOPPED and self.controls.going_back:
            text, went_back = self._runaway.put_back(self.progress, self.folder)
            went_back = weights_of_first(self.ranks, self._module, went_back)
            yield Notice(step=self.step, text=text)
        if reason is not EndReason.DISCARDED and not went_back and not isinstance(failure, RanksDiffer):
            yield from self._save(may_be_astray=reason is not EndReason.FAILED)
        if reason is EndReason.NOT_FINITE and self._is_astray() and (good := self._kept.put_good_back()) is not None:
            text = f"The weights of step {good}, the last that gave a finite loss, are in the model."
            yield Notice(step=self.step, text=text)
        ended_well = reason not in (EndReason.DISCARDED, EndReason.FAILED) and not went_back
        for said in (self.looks.past_the_best, self.looks.put_best_back) if ended_well else ():
            if (text := said(self.progress)) is not None:
                yield Notice(step=self.step, text=text)
        for text in self._stepper.closing_notices():
            yield Notice(step=self.step, text=text)
        if self.folder is None and reason is not EndReason.DISCARDED and self.step > 0:
            yield Notice(step=self.step, text=NOT_ON_THE_DISK)
        self.ranks.done()
        detail = f"{type(failure).__name__}: {failure}" if failure is not None else self._astray.cause
        kept_in = self.folder if self.saves.step == self.step > 0 else None
        yield run_ended(self.plan, self.progress, reason, detail, kept_in=kept_in, awaited=self._awaited)

    def _train(self) -> Generator[Event, None, EndReason]:
        self._stepper.optimizer.lay_out(self._module)
        yield from self.looks.ask_reference("held-out", self.step)
        # As the run that was not disturbed would: where it looks at no score, none may count here.
        if self.is_evaluation_step:
            yield from self._evaluate()
        if self.progress.is_due(self._config.sample_steps) or self.samples.were_begun(self.step):
            yield from self._sample()
        yield from self.looks.score(self.progress)
        portions = self.plan.feed.portions(self.progress.place)
        self.saves.schedule.start()
        while True:
            yield from self._between_steps()
            if self.controls.stopping:
                return self.controls.end_reason
            if self.looks.patience_is_lost(self.progress):
                yield from self.looks.score(self.progress, at_end=True)
                return EndReason.EARLY_STOPPED
            if self.step >= self.plan.total_steps:
                break
            portion = next(portions)
            yield from settled_forms(self.plan, self._stepper, self.progress, portion.batches[0])
            yield from self.looks.ask_reference("training", self.step, self._stepper.forms)
            self.controls.agree()
            if self.controls.stopping:
                continue
            yield from self._take_step(portion)
            if self.progress.not_finite == STEPS_NOT_FINITE:
                return EndReason.NOT_FINITE
            if self.progress.is_due(self._config.eval_steps):
                yield from self._evaluate()
            if self.progress.is_due(self._config.sample_steps):
                yield from self._sample()
            yield from self.looks.score(self.progress)
            if self.saves.schedule.is_due(self.step):
                yield from self._save()
            if self.progress.is_due(CACHE_STEPS):
                mx.clear_cache()
        yield from self._evaluate()
        if self._config.sample_steps is not None:
            yield from self._sample()
        self.controls.agree()
        return self.controls.end_reason if self.controls.stopping else EndReason.FINISHED

    @property
    def is_evaluation_step(self) -> bool:
        """Whether the held-out rows are scored after this step without anyone asking for it."""
        return self.step in (0, self.plan.total_steps) or self.progress.is_due(self._config.eval_steps)

    def _between_steps(self) -> Generator[Event, None, None]:
        """Do what was asked for, and wait while the run is paused."""
        yield from self._do_as_asked()
        while self.controls.paused and not self.controls.stopping:
            time.sleep(PAUSE_SECONDS)
            yield Working(step=self.step, what="paused", done=self.step, total=self.plan.total_steps)
            yield from self._do_as_asked()

    def _do_as_asked(self) -> Generator[Event, None, None]:
        yield from self._listen()
        self.controls.agree()
        yield from self._take_up_learning_rate()  # first: a checkpoint asked for with it holds it
        for command in self.controls.take_commands():
            saved = self.saves.step
            if reason := why_not(command, self.plan, self.progress, self.samples, folder=self.folder, saved_step=saved):
                yield Notice(step=self.step, text=f"Asked to {IN_WORDS.get(command, command)}, but {reason}.")
            elif command is Command.EVALUATE:
                yield from self._evaluate()
            elif command is Command.EXAM:
                yield from self.looks.score(self.progress, asked=True)
            elif command is Command.SAMPLE:
                yield from self._sample()
            elif command is Command.SAVE:
                yield from self._save()

    def _take_up_learning_rate(self) -> Generator[Event, None, None]:
        with held_back():
            if (asked := self.controls.take_learning_rate()) is not None:
                self.progress.learning_rates[self.step] = asked
            rate = self.progress.learning_rate_in_force(self._config.learning_rate)
            if rate != self._stepper.learning_rate:
                self._stepper.learning_rate = rate
                self._owed.add(LearningRateChanged(step=self.step, learning_rate=rate))
        yield from self._owed.told()

    def _take_step(self, portion: Portion) -> Generator[Event, None, None]:
        """One optimizer step over the micro-batches of `portion`."""
        outcome = yield from self._steps.take(portion, self.progress)
        rate, discards = self._stepper.learning_rate, self._kept.keeps_start
        yield from self._runaway.notices(outcome.loss, self.progress, self.folder, rate, discards=discards)
        yield from self.overoptimization.notices(self.step, outcome.metrics, rate)

    def _is_astray(self) -> bool:
        """Whether the weights give no finite loss any more; a score of this step that is finite says they do."""
        is_fine = self.progress.is_scored and math.isfinite(self.progress.evals[-1].loss)
        return not is_fine and self._astray.is_so()

    def _evaluate(self) -> Generator[Event, None, None]:
        yield from self.looks.evaluate(self.progress, counts=self.is_evaluation_step)

    def _sample(self) -> Generator[Event, None, None]:
        yield from self.looks.sample(self.step)

    def _listen(self) -> Generator[Event, None, None]:
        self.ranks.check()
        yield from self.controls.listen(self.step, self.folder)

    def _save(self, *, may_be_astray: bool = True) -> Generator[Event, None, None]:
        """Write a checkpoint, unless this step has one; a disk that will not take it is reported, not fatal."""
        if self._stepper.is_torn:
            yield Notice(step=self.step, text=TORN)
            return
        if self.folder is None or self.saves.step == self.step:
            return
        if may_be_astray and self._is_astray():
            text = (
                f"No checkpoint was written at step {self.step}: its weights give no finite loss. Those before it stay."
            )
            yield Notice(step=self.step, text=text)
            return
        yield from self.saves.write(self.progress, self.folder, self.see_to_folder)
