"""How a run went, as a record: what was told of it in, a `TrainResult` out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..events import EndReason, EvalEvent, Event, RunEnded, SampleEvent, ScoreEvent, StepEvent
from ..machine.inert import one_line


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run went, as `Trainer.train` returns it. The weights are in the model.

        >>> result = trainer.train()
        >>> losses = [step.loss for step in result.steps]

    `reason` is how it ended and `message` says so in a sentence; `steps`, `evals`, `samples` and `scores` are what
    was told of it, in order; `seconds` is how long it took; `run_folder` is where events.jsonl is, None when
    TrainingConfig.output_dir is None.
    """

    reason: EndReason
    message: str
    steps: tuple[StepEvent, ...]
    evals: tuple[EvalEvent, ...]
    samples: tuple[SampleEvent, ...]
    seconds: float
    run_folder: Path | None
    scores: tuple[ScoreEvent, ...] = ()  # of the run's exam

    def __repr__(self):
        return one_line(self.message)


def result_of(told: Sequence[Event], run_folder: Path | None) -> TrainResult:
    """The result of the last run that `told` tells of."""
    ended = next(event for event in reversed(told) if isinstance(event, RunEnded))
    return TrainResult(
        reason=ended.reason,
        message=ended.message,
        steps=tuple(event for event in told if isinstance(event, StepEvent)),
        evals=tuple(event for event in told if isinstance(event, EvalEvent)),
        samples=tuple(event for event in told if isinstance(event, SampleEvent)),
        scores=tuple(event for event in told if isinstance(event, ScoreEvent)),
        seconds=ended.elapsed,
        run_folder=run_folder,
    )
