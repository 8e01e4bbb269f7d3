"""What one run has said so far: events come in one by one, columns, numbers and an estimate of the time left go out.

Nothing here knows how it is shown; the live view, the frozen picture and the log line all read a `Progress`.
"""

import math
from collections import deque
from collections.abc import Mapping

import numpy as np

from tunebook.events import (
    CheckpointSaved,
    Command,
    CommandReceived,
    EvalEvent,
    Event,
    LearningRateChanged,
    Notice,
    RanksEvent,
    RunEnded,
    RunStarted,
    SampleEvent,
    ScoreEvent,
    StepEvent,
    Working,
)
from tunebook.runs.best import BY_LOSS, Yardstick, past_the_best

from .metric_charts import EXAM, MetricChart, metric_charts

# One column for each field of a StepEvent that changes from step to step, and for what follows from them, in the order
# `Progress.rows` has them.
COLUMNS = (
    "step",
    "loss",
    "lr",
    "tokens_sec",
    "peak_gb",
    "elapsed",
    "num_tokens",
    "grad_norm",
    "active_gb",  # NaN, as the next, from a trainer that does not say
    "cache_gb",
    "all_tokens_sec",  # of all tokens of the step's batches, padding included; NaN from a trainer that does not say
)

METRIC = "metric:"  # in front of the name of a column of what an objective reports beside its loss

_RECENT_STEPS = 32  # the time left is estimated from the durations of this many steps


class Progress:
    """One run, from its first event to its last. `add` every event in the order it was emitted."""

    def __init__(self):
        self.trainer = "trainer"  # what the notebook calls it
        self.attached_to: str | None = None  # of a run in another process its folder, as it was typed here
        self.started: RunStarted | None = None  # None too when the trainer only speaks the step callback
        self.last: StepEvent | None = None
        self.evals: list[EvalEvent] = []
        self.samples: list[SampleEvent] = []
        self.scores: list[ScoreEvent] = []
        self.notices: list[Notice] = []
        self.checkpoints: list[CheckpointSaved] = []
        self.rates: list[LearningRateChanged] = []
        self.ranks: RanksEvent | None = None  # how each process fares; None: there is one
        self.told = 0  # events
        self.working: Working | None = None  # what is being computed now, as far as is known
        self.paused = False
        self.waiting = False  # paused, and the step that was in progress is over
        self.pending: set[Command] = set()  # heard, and not yet done
        self.stop_heard_at: int | None = None  # the last step completed when a stop was heard
        self.ended: RunEnded | None = None
        self.total_steps = 0
        self.steps = 0  # steps seen; fewer than `last.step` when a run was resumed
        self.columns = COLUMNS  # and one for each metric that was reported so far, METRIC before its name
        self._table = np.empty((256, len(COLUMNS)))
        self._durations: deque[float] = deque(maxlen=_RECENT_STEPS)  # seconds

    def add(self, event: Event) -> None:
        self.told += 1
        match event:
            case RunStarted():
                self.started = event
                self.total_steps = event.total_steps
            case StepEvent():
                self._add_step(event)
            case EvalEvent():
                self.evals.append(event)
                self._add_columns(event.metrics)
                self.pending.discard(Command.EVALUATE)
                self.working = None
            case ScoreEvent():
                self.scores.append(event)
                self._add_columns({EXAM + name: score for name, score in event.scores.items()})
                self.pending.discard(Command.EXAM)
                self.working = None
            case SampleEvent():
                self.samples.append(event)
                self.pending.discard(Command.SAMPLE)
                self.working = None
            case Notice():
                self.notices.append(event)
                self.pending.clear()  # it may say why what was asked for is not done
            case Working():
                self.working = event
                self.waiting |= event.what == "paused"
            case CheckpointSaved():
                self.checkpoints.append(event)
                self.pending.discard(Command.SAVE)
            case LearningRateChanged():
                self.rates.append(event)
                self.pending.discard(Command.LEARNING_RATE)
            case RanksEvent():
                self.ranks = event
            case CommandReceived(command=Command.STOP | Command.DISCARD | Command.GO_BACK):
                self.stop_heard_at = event.step
            case CommandReceived(command=Command.PAUSE | Command.RESUME):
                self.paused, self.waiting = event.command is Command.PAUSE, False
            case CommandReceived():
                self.pending.add(event.command)
            case RunEnded():
                self.ended = event

    def rows(self, first: int = 0) -> np.ndarray:
        """The steps from the `first` seen on, one row each.  # (steps - first, len(self.columns)) float64"""
        return self._table[first : self.steps]

    def column(self, name: str) -> np.ndarray:
        """One column over every step seen.  # (steps,) float64"""
        return self.rows()[:, self.columns.index(name)]

    @property
    def metrics(self) -> list[str]:
        """What the objective reports beside its loss, by the names it has for it; EXAM before those of the exam."""
        return [name.removeprefix(METRIC) for name in self.columns[len(COLUMNS) :]]

    @property
    def charts(self) -> list[MetricChart]:
        """The charts of `metrics`."""
        return metric_charts(self.metrics)

    def curve(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of a metric where it was reported, and finite.  # (n,), (n,) float64"""
        values = self.column(METRIC + metric)
        known = np.isfinite(values)
        return self.column("step")[known], values[known]

    def held_out(self, metric: str) -> list[tuple[int, float]]:
        """(step, value) of a metric on the held-out rows, or of the exam, wherever they were scored."""
        if metric.startswith(EXAM):
            name = metric.removeprefix(EXAM)
            return [(event.step, event.scores[name]) for event in self.comparable if name in event.scores]
        return [(event.step, event.metrics[metric]) for event in self.evals if metric in event.metrics]

    @property
    def running(self) -> bool:
        return self.ended is None and (self.started is not None or self.last is not None)

    @property
    def learning_rate(self) -> float | None:
        """What the schedule follows: the configuration's rate, or the last one asked for; None when nobody said."""
        if self.rates:
            return self.rates[-1].learning_rate
        return self.started.config.get("learning_rate") if self.started else None

    @property
    def ran_away(self) -> Notice | None:
        """What was said of a loss that runs away, where there is a step to go back to; the last time it was."""
        return next((notice for notice in reversed(self.notices) if notice.go_back_to is not None), None)

    @property
    def last_samples(self) -> list[SampleEvent]:
        """What the model wrote when it was last asked, one for each prompt."""
        return list({sample.prompt: sample for sample in self.samples}.values())

    @property
    def best_eval(self) -> EvalEvent | None:
        """The lowest finite held-out loss so far, of those that nobody asked for: the run goes by no other."""
        counted = (event for event in self.evals if math.isfinite(event.loss) and not event.asked)
        return min(counted, key=lambda event: event.loss, default=None)

    @property
    def comparable(self) -> list[ScoreEvent]:
        """The scores of the exam that was taken last: a run that is resumed may have another than before."""
        return [event for event in self.scores if event.exam == self.scores[-1].exam]

    @property
    def yardstick(self) -> Yardstick:
        """What tells the best weights: the held-out loss, unless the run goes by a score of its exam."""
        metric = self.started.config.get("metric_for_best_model") if self.started else None
        if metric is None or not self.scores:
            return BY_LOSS
        last = self.scores[-1]
        return Yardstick(metric=metric, exam=last.exam, higher_is_better=metric not in last.lower_is_better)

    @property
    def best_score(self) -> ScoreEvent | None:
        """The best score so far, where the run goes by one."""
        by = self.yardstick
        best = by.best(by.measured(self.evals, self.scores)) if by.metric is not None else None
        return next((event for event in self.comparable if best is not None and event.step == best.step), None)

    @property
    def best_scores(self) -> list[tuple[int, int, float]]:
        """After each score that counts (its step, the step of the best by then, that one's value)."""
        by = self.yardstick
        measured = by.measured(self.evals, self.scores) if by.metric is not None else []
        known = [(one.step, by.best(measured[:end])) for end, one in enumerate(measured, start=1)]
        return [(step, best.step, best.value) for step, best in known if best is not None]

    @property
    def past_the_best(self) -> str | None:
        """What to say of a run whose score got worse after its best, and of the loss in the meantime."""
        by, held_out = self.yardstick, [(event.step, event.loss) for event in self.evals]
        if by.metric is None:
            return None
        steps = [(int(step), loss) for step, loss in zip(self.column("step"), self.column("loss"), strict=True)]
        losses, name = (held_out, "the held-out loss") if held_out else (steps, "the training loss")
        return past_the_best(by, by.measured(self.evals, self.scores), losses, name)

    @property
    def seconds_left(self) -> float | None:
        """Steps to go times the median of recent step durations; None before the second step.

        The median, because the first step compiles and some steps are followed by an evaluation: a mean of the whole
        run carries those to its end.
        """
        if not self._durations or self.last is None:
            return None
        return float(np.median(self._durations)) * max(self.total_steps - self.last.step, 0)

    @property
    def clip_norm(self) -> float | None:
        """The global gradient norm above which gradients are scaled down; None when that is off."""
        norm = self.started.config.get("max_grad_norm") if self.started else None
        return norm or None

    def _add_step(self, event: StepEvent) -> None:
        if self.last is not None:
            self._durations.append(event.elapsed - self.last.elapsed)
        self._add_columns(event.metrics)
        if self.steps == len(self._table):
            self._table = np.concatenate([self._table, np.empty_like(self._table)])
        self._table[self.steps] = (
            event.step,
            event.loss,
            event.lr,
            event.tokens_sec,
            event.peak_gb,
            event.elapsed,
            event.num_tokens,
            event.grad_norm,
            math.nan if event.active_gb is None else event.active_gb,
            math.nan if event.cache_gb is None else event.cache_gb,
            self._all_tokens_sec(event),
            *(event.metrics.get(metric, math.nan) for metric in self.metrics),
        )
        self.steps += 1
        self.last = event
        self.working = None
        self.pending.discard(Command.LEARNING_RATE)  # one that is no other than before is in force without a word
        self.total_steps = event.total_steps

    def _add_columns(self, metrics: Mapping[str, float]) -> None:
        """A column for each metric that was not reported before; NaN in the steps that had none."""
        names = [METRIC + metric for metric in metrics if METRIC + metric not in self.columns]
        if names:
            self.columns = (*self.columns, *names)
            none = np.full((len(self._table), len(names)), math.nan)
            self._table = np.concatenate([self._table, none], axis=1)

    def _all_tokens_sec(self, event: StepEvent) -> float:
        """Tokens of a step's batches per second of training time, from what is counted since the run began."""
        before = (self.last.total_tokens, self.last.num_tokens) if self.last is not None else (0, 0)
        every, trained = event.total_tokens - before[0], event.num_tokens - before[1]
        return event.tokens_sec * every / trained if every > 0 and trained > 0 else math.nan
