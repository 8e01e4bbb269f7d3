"""What `trainer.train()` returns in notebooks: how the run went, with the numbers they print."""

from dataclasses import dataclass
from typing import Any

from ... import TrainResult


@dataclass(frozen=True, kw_only=True)
class TrainOutput(TrainResult):
    """How a run went; beside what `tunebook.TrainResult` has, what transformers' trainer returns."""

    rows_per_step: int

    @property
    def global_step(self) -> int:
        """The last optimizer step."""
        return self.steps[-1].step if self.steps else 0

    @property
    def training_loss(self) -> float:
        """The mean of the steps' losses, as the trainer of transformers has it."""
        return sum(step.loss for step in self.steps) / len(self.steps) if self.steps else float("nan")

    @property
    def metrics(self) -> dict[str, float]:
        """train_runtime in seconds, train_samples_per_second, train_steps_per_second and train_loss."""
        steps_per_second = len(self.steps) / self.seconds if self.seconds else float("nan")
        return {
            "train_runtime": self.seconds,
            "train_samples_per_second": steps_per_second * self.rows_per_step,
            "train_steps_per_second": steps_per_second,
            "train_loss": self.training_loss,
        }


def output_of(result: TrainResult, rows_per_step: int) -> TrainOutput:
    """`result` with those numbers."""
    told: dict[str, Any] = vars(result)
    return TrainOutput(**told, rows_per_step=rows_per_step)
