"""The run of a job, in the process that is for it: begun where nothing was done yet, else gone on with.

The same from a shell and below a supervisor: `python -m tunebook train JOB`. What it leaves is in the folder.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import final

from ..events import Command, Event, Request, RunEnded
from ..machine.interrupts import on_terminate
from ..models.tensors import flat
from ..runs.hearing import Hearing
from ..runs.listeners import Audience, Listener, drain
from ..runs.lock import RunLock
from ..runs.looked_after.state import read_state
from ..runs.progress_bar import run_bar
from ..runs.result import TrainResult, result_of
from ..train.loop import Run
from ..train.ranks.group import joined
from .layout import Ended, read_description, read_order
from .life import Life
from .opened import open_job
from .results import write_result
from .work import begun_in


@final
class Stopping:
    """A wish to stop, from any moment on: before there is a run it waits for one."""

    def __init__(self):
        self._run: Run | None = None
        self._asked = False

    def __call__(self) -> None:
        """Have the run end with the step in progress, or with none where it has not begun."""
        self._asked = True
        if self._run is not None:
            self._run.controls.ask(Request(Command.STOP))

    def heard_by(self, run: Run) -> None:
        """From now on it is this run that is asked."""
        self._run = run
        if self._asked:
            run.controls.ask(Request(Command.STOP))


def train_job(folder: Path, *, supervised: bool = False, listeners: Sequence[tuple[str, Listener]] = ()) -> TrainResult:
    """Train the job in `folder`, from its newest whole checkpoint where it was begun before.

    One of several processes that `mlx.launch` started trains it together with the others.
    `supervised` where another process looks after this one: it then ends when nobody wants the run. Raises NoJob,
    RunInUse where another process trains it, and what the run raises.
    """
    folder = folder.absolute()
    read_description(folder)  # raises NoJob: nothing is made in a folder that is none
    with ExitStack() as held:
        ranks = joined()
        lock = held.enter_context(RunLock(folder)) if ranks.is_first else None
        stop = Stopping()
        held.enter_context(on_terminate(stop))
        told: list[tuple[str, Listener]] = [("The progress bar", run_bar()), *listeners] if ranks.is_first else []
        if supervised and ranks.is_first:
            life = held.enter_context(Life(folder, stop, keep=read_order(folder).keep))
            told.append(("The sign of life", life))
        work = open_job(folder)
        run, earlier = begun_in(work, folder, lock)
        if ranks.is_first:  # of several processes one tells, writes and is asked
            told.append(("What others see", held.enter_context(Hearing(run.controls, folder))))
            run.notices += _said_before(folder) if supervised else []
        stop.heard_by(run)
        audience = Audience(told, run.folder, earlier)
        try:
            with run.interrupts:
                drain(run.events(awaited=False), audience)
        finally:
            _leave(folder, run, audience.told)
    return result_of(audience.told, folder)


def _leave(folder: Path, run: Run, told: Sequence[Event]) -> None:
    """Write what came of a run that told its end."""
    ended = next((event for event in reversed(told) if isinstance(event, RunEnded)), None)
    if ended is not None and run.ranks.is_first:
        weights = flat(run.plan.loaded.module.trainable_parameters())
        write_result(folder, Ended(ended.reason.value, ended.message, ended.step), weights)


def _said_before(folder: Path) -> list[str]:
    """Why the job was begun again, where it was."""
    state = read_state(folder)
    return [f"This run was begun again by itself: {state.causes[-1]}"] if state is not None and state.causes else []
