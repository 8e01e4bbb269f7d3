"""What `trainer.train()` returns in notebooks, and `trainer.state` after it: how the run went, with the numbers they
print and draw.
"""

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


@dataclass(frozen=True, kw_only=True)
class TrainerState:
    """How far a trainer has come: what notebooks ask of `trainer.state` in transformers."""

    global_step: int  # of the last run; 0 before one
    log_history: list[dict[str, float]]  # a line for each step and each look at held-out rows, in order, and one behind


def state_of(output: TrainOutput | None) -> TrainerState:
    """The state after a run, or before any (None)."""
    if output is None:
        return TrainerState(global_step=0, log_history=[])
    steps = [
        {"loss": told.loss, "grad_norm": told.grad_norm, "learning_rate": told.lr, **told.metrics, "step": told.step}
        for told in output.steps
    ]
    looks = [
        {"eval_loss": told.loss, **{f"eval_{name}": value for name, value in told.metrics.items()}, "step": told.step}
        for told in output.evals
    ]
    log = sorted([*steps, *looks], key=lambda line: line["step"])
    return TrainerState(
        global_step=output.global_step, log_history=[*log, {**output.metrics, "step": output.global_step}]
    )


def output_of(result: TrainResult, rows_per_step: int) -> TrainOutput:
    """`result` with those numbers."""
    told: dict[str, Any] = vars(result)
    return TrainOutput(**told, rows_per_step=rows_per_step)
