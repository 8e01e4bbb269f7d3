"""A run that is over, from its log: the folder or file, or what `load_run` or a Trainer gave back, in; a Progress out.

Only the kit's records and run folders are read, so it works where there is no MLX.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

from tunebook.events import EndReason, RunEnded
from tunebook.runs.folder import RunHistory, read_events
from tunebook.runs.lock import is_held

from .progress import Progress


@runtime_checkable
class HasRunFolder(Protocol):
    """What a Trainer returns."""

    @property
    def run_folder(self) -> Path | None: ...


Recorded = Path | str | RunHistory | HasRunFolder


def recorded_run(run: Recorded) -> Progress:
    """What the log of a run says, from its first event to its last.

    Raises FileNotFoundError where there is no log, ValueError for one that cannot be read or a run that kept none.
    """
    progress = Progress()
    for event in read_events(log_of(run)):
        progress.add(event)
    if progress.started is None:
        raise ValueError(
            f"{log_of(run)} does not say what run it is of: its start was cut off, or none has begun in it."
        )
    if progress.ended is None:
        progress.add(
            RunEnded(
                step=progress.last.step if progress.last else progress.started.step,
                total_steps=progress.total_steps,
                reason=EndReason.INTERRUPTED,
                message=_why_without_end(log_of(run)),
                elapsed=progress.last.elapsed if progress.last else 0.0,
            )
        )
    return progress


def _why_without_end(log: Path) -> str:
    folder = log if log.is_dir() else log.parent
    why = "the run still goes on" if is_held(folder) else "its process was killed"
    return f"The log has no end: {why}."


def log_of(run: Recorded) -> Path:
    """The folder or file the log of a run is in. Raises ValueError for a run that kept none."""
    if isinstance(run, RunHistory):
        return run.path
    if isinstance(run, HasRunFolder):
        if run.run_folder is None:
            raise ValueError(
                "This run kept no log. Set TrainingConfig.output_dir before the next one; the dashboard that watched "
                "this one brings it back with dashboard.thaw()."
            )
        return run.run_folder
    return Path(run)
