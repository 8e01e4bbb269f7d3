"""The records a run emits: what a dashboard draws, what `events.jsonl` keeps, what a callback is fed.

They hold plain Python numbers and strings, never an MLX array: a recorded run can be replayed where there is no MLX.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EndReason(StrEnum):
    """Why a run ended. Every run ends with exactly one of these."""

    FINISHED = "finished"  # all planned steps were taken
    STOPPED = "stopped"  # someone asked: the Stop button, `trainer.stop()`
    DISCARDED = "discarded"  # someone asked to stop and keep nothing of it
    INTERRUPTED = "interrupted"  # the kernel was interrupted (KeyboardInterrupt, asyncio.CancelledError)
    EARLY_STOPPED = "early_stopped"  # the held-out loss, or the score that was followed, got no better any more
    NOT_FINITE = "not_finite"  # loss or gradients stayed NaN or infinite; the last good weights are in the model
    FAILED = "failed"  # an exception rose inside a step


class Command(StrEnum):
    """What someone watching a run may ask of it; carried out between two steps."""

    STOP = "stop"  # end the run with the step in progress
    DISCARD = "discard"  # the same, with no checkpoint, and the weights back as the run found them
    GO_BACK = "go_back"  # the same, and the weights of the last checkpoint before the loss ran away
    PAUSE = "pause"  # take no further step until RESUME
    RESUME = "resume"
    SAVE = "save"  # write a checkpoint now
    EVALUATE = "evaluate"  # score the held-out rows now
    EXAM = "exam"  # take the exam now
    SAMPLE = "sample"  # answer the sample prompts now
    LEARNING_RATE = "learning_rate"  # go on as if `TrainingConfig.learning_rate` were this value


@dataclass(frozen=True)
class Request:
    """A command and what it needs. Raises ValueError for a learning rate that is none, or a value nobody asked for."""

    command: Command
    value: float | None = None  # the new learning rate

    def __post_init__(self):
        if self.command is not Command.LEARNING_RATE and self.value is not None:
            raise ValueError(f"{self.command} takes no value, and was given {self.value!r}.")
        if self.command is Command.LEARNING_RATE and (self.value is None or not 0 < self.value < math.inf):
            raise ValueError(f"learning_rate is {self.value!r}; it must be a finite number above 0, such as 1e-4.")


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """The first event of a run: what is about to be trained, and on what."""

    total_steps: int
    step: int = 0  # optimizer steps completed before; above 0 in a run that was resumed
    model: str  # the hub id or path the user named
    trainable_parameters: int
    total_parameters: int
    train_rows: int | None  # None: a stream, whose end nobody knows
    eval_rows: int
    padding_share: float = 0.0  # of the tokens in the first epoch's batches
    awaited: bool  # True under train_async, where a button pressed in the browser is heard between two steps
    loss_unit: str = "nats per trained token"  # what its losses are in, to stand behind "Loss"
    memory_limit_gb: float | None = None  # 1e9 bytes the device can use well; None where it names no limit
    discards: bool = True  # whether a discard can put the weights back; False: no copy of them fits
    folder: str | None = None  # what it keeps on the disk, its path as it is typed here; None: nothing is kept
    config: dict[str, Any] = field(default_factory=dict)  # the TrainingConfig, as plain values
    exam_rows: int = 0  # of the exam it takes; 0: it takes none
    objective: dict[str, Any] = field(default_factory=dict)  # its name and settings; of the next token nothing
    ranks: int = 1  # processes that train it together


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """One optimizer step: the nine values of the step callback, under their names, and the memory after it."""

    step: int  # 1-based; counts optimizer steps, not micro-batches
    total_steps: int
    loss: float  # nats per supervised token, over the whole step; NaN or infinite: the step was not applied
    lr: float  # the rate used for this step
    tokens_sec: float  # supervised tokens per second of training time, this step
    peak_gb: float  # 1e9 bytes, the highest since the run began
    elapsed: float  # seconds since the run began, evaluation included
    num_tokens: int  # supervised tokens since the run began
    grad_norm: float  # global L2 norm before clipping
    active_gb: float | None = None  # 1e9 bytes held by live arrays; None from a trainer that does not say
    cache_gb: float | None = None  # 1e9 bytes freed and kept for reuse
    total_tokens: int = 0  # tokens of all batches since the run began, padding included
    trainable_tokens: int = 0  # of those the ones with a label; num_tokens leaves out a row's first, never predicted
    metrics: dict[str, float] = field(default_factory=dict, hash=False)  # what an objective reports beside its loss


@dataclass(frozen=True, kw_only=True)
class EvalEvent:
    """The loss on the held-out rows, measured after `step` optimizer steps (0 is before training)."""

    step: int
    loss: float  # nats per supervised token, over all held-out rows together
    rows: int
    tokens: int  # supervised tokens scored
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict, hash=False)  # as those of a step
    asked: bool = False  # someone asked for it in between: it decides nothing

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that overflows a float."""
        return math.inf if self.loss > 709.78 else math.exp(self.loss)


@dataclass(frozen=True, kw_only=True)
class ScoreEvent:
    """What the exam of a run came to after `step` optimizer steps (0 is before training)."""

    step: int
    scores: dict[str, float] = field(hash=False)  # by metric; NaN where it could judge no row
    not_scored: dict[str, int] = field(default_factory=dict, hash=False)  # rows a metric could not judge, where any
    rows: int  # of the exam
    seconds: float
    exam: str  # a digest of its rows and metrics: scores of the same are comparable
    told: dict[str, str] = field(default_factory=dict, hash=False)  # by metric, the score with its rows and interval
    since_start: dict[str, str] = field(default_factory=dict, hash=False)  # by metric, what changed since the first one
    lower_is_better: list[str] = field(default_factory=list, hash=False)  # the metrics of which less is better
    asked: bool = False  # someone asked for it in between: it decides nothing

    @property
    def sentence(self) -> str:
        """'exam of 40 rows: exact_match 0.65, numeric 0.4 (3 rows not scored)'."""
        rows = {metric: f" ({count} rows not scored)" for metric, count in self.not_scored.items()}
        told = ", ".join(f"{metric} {score:.4g}{rows.get(metric, '')}" for metric, score in self.scores.items())
        return f"exam of {self.rows:,} rows: {told}"


@dataclass(frozen=True, kw_only=True)
class SampleEvent:
    """What the model wrote after `step` optimizer steps, always taking the likeliest token."""

    step: int
    prompt: str
    text: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A sentence the person watching should read: a skipped row, a truncated one, a callback that was switched off."""

    step: int
    text: str
    go_back_to: int | None = None  # of a loss that runs away: the step whose weights Command.GO_BACK brings
    alarm: bool = False  # what is learnt goes astray and a setting should change: pages show it above all else


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved:
    """A checkpoint was written, from which the run can be resumed."""

    step: int
    path: str


@dataclass(frozen=True, kw_only=True)
class LearningRateChanged:
    """The steps after `step` follow the schedule as if `TrainingConfig.learning_rate` were this."""

    step: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Working:
    """What is being computed right now and how far it is: a line to watch, not a fact to keep."""

    step: int  # the optimizer step in progress, or the one an evaluation follows
    what: str  # "testing", "precomputing", "training", "evaluating", "scoring", "sampling" or "paused"
    done: int  # micro-batches; of a sample, tokens; of an exam, replies; of a test, ways to compute a pass
    total: int


@dataclass(frozen=True, kw_only=True)
class CommandReceived:
    """A command was heard; it is carried out when the step in progress is done."""

    step: int  # the last step completed when it was heard
    command: Command
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class RanksEvent:
    """How each process of a run fared since the last of these; there are none in a run of one process. By rank."""

    step: int
    names: list[str] = field(hash=False)  # the machine, and the rank on it
    tokens_sec: list[float] = field(hash=False)  # supervised tokens it trained on, per second
    waiting: list[float] = field(hash=False)  # share of the time it waited for the others
    exchanging: list[float] = field(hash=False)  # and the share in which gradients were exchanged
    active_gb: list[float] = field(hash=False)  # 1e9 bytes held by live arrays
    peak_gb: list[float] = field(hash=False)  # the highest since the run began


@dataclass(frozen=True, kw_only=True)
class RunEnded:
    """The last event of a run, however it ended."""

    step: int  # optimizer steps completed
    total_steps: int
    reason: EndReason
    message: str  # one sentence for people
    elapsed: float  # seconds


Event = (
    RunStarted
    | StepEvent
    | EvalEvent
    | ScoreEvent
    | SampleEvent
    | Notice
    | CheckpointSaved
    | LearningRateChanged
    | Working
    | CommandReceived
    | RanksEvent
    | RunEnded
)
