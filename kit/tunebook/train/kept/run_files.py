"""What lies in a run folder beside its log and its checkpoints: what the run was asked to do, and its learning rates.

They are written as a run begins, made anew where they are taken away while it goes on, and looked at before a resume.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config import TrainingConfig
from ...runs.folder import CONFIG_FILE, RATES_FILE, check_learning_rates, keep_config, keep_rates
from ..progress import RunProgress
from .checkpoint import Checkpoint, checkpoint_at, checkpoint_folders, step_of


def begin_run_files(
    run_folder: Path, config: TrainingConfig, identity: Mapping[str, Any], rates: dict[int, float]
) -> None:
    """Write what a run of `identity` is asked to do, and the learning rates that were asked for already."""
    keep_config(run_folder, config.as_plain(), identity)
    keep_rates(run_folder, rates)


def put_back_run_files(
    run_folder: Path, config: TrainingConfig, identity: Mapping[str, Any], progress: RunProgress
) -> None:
    """Make those files anew that were taken away in the middle of the run."""
    if not (run_folder / CONFIG_FILE).exists():
        keep_config(run_folder, config.as_plain(), identity)
    if not (run_folder / RATES_FILE).exists():
        keep_rates(run_folder, progress.learning_rates)


def keeps_rates(checkpoint: Checkpoint) -> bool:
    """Whether the run has had a file of its learning rates from the start; not of an earlier version."""
    return checkpoint.progress.get("rates_are_kept", False)


def check_rates(run_folder: Path, checkpoint: Checkpoint) -> None:
    """Raise LearningRatesLost where a rate asked for after that checkpoint of the run may be in no file any more."""
    step = checkpoint.progress["step"]
    check_learning_rates(
        run_folder,
        step,
        newest=step_of(checkpoint_folders(run_folder)[-1]),
        checkpoint=checkpoint_at(run_folder, step),
        is_kept=keeps_rates(checkpoint),
    )
