"""What one run is to do: the model, the rows and the settings, none of which changes while it goes on.

The trainer makes it, the loop and what serves the loop read it. How far the run is stands in `progress.py`.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from ..config import TrainingConfig
from ..data.encoded import Encoded
from ..models.generation import Prompt
from ..models.loaded import Loaded
from ..objectives.base import Objective
from ..objectives.next_token import NextToken
from ..runs.best import BY_LOSS, Yardstick
from ..tokens.batch_order import total_steps
from ..tokens.feed import Feed
from .kept.identity import identity_of


class ExamMarks(Protocol):
    """What is asked of the marks an exam comes to: `scores.Marks` are such."""

    @property
    def scores(self) -> Mapping[str, float]:
        """By metric; NaN where it could judge no row."""
        ...

    @property
    def said(self) -> Sequence[str]:
        """Sentences on rows that were cut or not scored."""
        ...

    def not_scored(self, metric: str) -> Mapping[int, str]:
        """The rows a metric could not judge, and why."""
        ...

    def sentence(self, metric: str) -> str:
        """The score, over how many rows, and how sure it is."""
        ...

    def kept(self) -> list[Any]:
        """What `since` takes of these, as values that JSON keeps as they are."""
        ...

    def since(self, kept: Sequence[Any]) -> Mapping[str, str]:
        """By metric, a sentence on what became better or worse since earlier marks, and how sure that is."""
        ...


class ExamMetric(Protocol):
    """What is asked of a metric of an exam."""

    @property
    def name(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...


class RunExam(Protocol):
    """What is asked of an exam that is taken in the middle of a run: `scores.Exam` is one."""

    digest: str  # the same for the same rows and metrics

    @property
    def metrics(self) -> Sequence[ExamMetric]:
        """What it scores."""
        ...

    def __len__(self) -> int:
        """Rows."""
        ...

    def taking(self, loaded: Loaded) -> Generator[tuple[int, int], None, ExamMarks]:
        """Yield (replies had, replies), the model then as it was found, and return the marks."""
        ...

    def shared_with(self, loaded: Loaded, rows: Sequence[Encoded]) -> list[str]:
        """Sentences on rows of the exam that are among the training `rows`. Raises ValueError: some cannot be asked."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class RunPlan:
    """What is trained, on what, and how."""

    loaded: Loaded
    config: TrainingConfig
    objective: Objective = field(default_factory=NextToken)
    feed: Feed  # the rows to train on
    eval_rows: Sequence[Encoded]  # held out to measure with; may be none
    max_seq_length: int
    skip_unreadable: bool = False  # leave rows out that cannot be opened when they are needed
    start_fits: bool = True  # whether the weights it finds can be kept beside it, to be put back by a discard
    prompts: Sequence[Prompt] = ()  # what samples are taken of
    exam: RunExam | None = None  # what is scored beside the loss
    base: Callable[[], str]  # `identity.base_of` the model; asked for where the run is kept, and dear

    @cached_property
    def total_steps(self) -> int:
        """Optimizer steps from the first to the last, those before a resume included."""
        return total_steps(len(self.feed.known), self.config)

    @cached_property
    def yardstick(self) -> Yardstick:
        """What tells the best weights, and when to stop early: the held-out loss, or a score of the exam."""
        wanted = self.config.metric_for_best_model
        if self.exam is None or wanted is None:
            return BY_LOSS
        is_higher = {metric.name: metric.higher_is_better for metric in self.exam.metrics}
        return Yardstick(metric=wanted, exam=self.exam.digest, higher_is_better=is_higher[wanted])

    @property
    def eval_batch_size(self) -> int:
        """Rows that are measured together."""
        return self.config.per_device_eval_batch_size or self.config.per_device_train_batch_size

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must be of, to be resumed by a run of this plan."""
        return identity_of(self.loaded, self.config, self.feed, self.max_seq_length, self.objective, base=self.base())
