"""A run in another process, as a dashboard needs it: its record so far, what comes, and a way to ask for things.

A handle (`tunebook.attach`, `trainer.start()`) or the folder of a run that goes on comes in. The kit's records and run
folders are all that is read.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from tunebook.events import Command, Event
from tunebook.runs.attached import AttachedRun, attach
from tunebook.runs.log_lines import EVENTS_FILE
from tunebook.runs.run_state import RunState

from .progress import Progress


@runtime_checkable
class RunLike(Protocol):
    """A run that is trained in another process, held from here. It must be hashable and weakly referable."""

    @property
    def run_folder(self) -> Path:
        """Where it is kept, as it was typed."""
        ...

    @property
    def events(self) -> Sequence[Event]:
        """What its log says now, from the first; an event that is told stands in it, but for those of the moment."""
        ...

    def subscribe(self, fn: Callable[[Event], None], /, *, shows_progress: bool) -> object:
        """Call `fn` with every event from now on, in order, on the main thread.

        A run that went on after it broke off begins again with its RunStarted, what was before being in `events`.
        """
        ...

    def send(self, command: Command, value: float | None = None, /) -> object:
        """Leave a command for it; returns at once. Raises RuntimeError where nobody hears it, OSError for no room."""
        ...


def run_at(place: Path | str) -> AttachedRun | None:
    """The run in a folder, or of an events.jsonl, that goes on there or is to begin; None where it is over, or none."""
    path = Path(place).expanduser()
    if not path.is_dir() and path.name != EVENTS_FILE:
        return None
    try:
        run = attach(path)
    except FileNotFoundError:
        return None
    is_to_come = run.state is RunState.WAITING and not run.events
    return run if run.state in (RunState.RUNNING, RunState.PAUSING) or is_to_come else None


def progress_of(run: RunLike, but: Event | None = None) -> Progress:
    """All that a run has said, `but` for an event that is to be added yet."""
    progress = Progress()
    progress.attached_to = str(run.run_folder)
    for event in run.events:
        if event is not but:
            progress.add(event)
    return progress
