"""What a person asks of a run that there is no reason to do, and the reason."""

from pathlib import Path

from ..events import Command
from .looks.samples import Samples
from .plan import RunPlan
from .progress import RunProgress

IN_WORDS = {Command.EXAM: "take the exam"}  # behind "asked to"; the others are words by themselves


def why_not(
    command: Command,
    plan: RunPlan,
    progress: RunProgress,
    samples: Samples,
    *,
    folder: Path | None,
    saved_step: int | None,
) -> str | None:
    """Why there is nothing to do for a command, to end a sentence with; None when there is.

    `folder` is where checkpoints go, `saved_step` the step of the last one.
    """
    step = progress.step
    if command is Command.EVALUATE and not plan.eval_rows:
        return "there are no held-out rows; give the Trainer an eval_dataset"
    if command is Command.EVALUATE and progress.is_scored:
        return f"step {step} was scored already"
    if command is Command.EXAM and plan.exam is None:
        return "there is no exam; give the Trainer one: exam=scores.Exam(rows, metrics=[...])"
    if command is Command.EXAM and plan.exam is not None and progress.has_marks(plan.exam.digest):
        return f"the exam was taken after step {step} already"
    if command is Command.SAMPLE and not plan.prompts:
        return "there is nothing to write after; set TrainingConfig.sample_prompts"
    if command is Command.SAMPLE and not samples.left(step):
        return f"samples of step {step} were taken already"
    if command is Command.SAVE and folder is None:
        return "there is no folder to save in; set TrainingConfig.output_dir"
    if command is Command.SAVE and saved_step == step:
        return f"step {step} is saved already"
    return None
