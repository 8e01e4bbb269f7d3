"""How it stands with a run that is watched from elsewhere, and the last words of one that cannot say them itself.

Its events, whether somebody trains it and what those who look after it say go in; a word or an end comes out.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from ..events import CheckpointSaved, EndReason, Event, RunEnded, RunStarted, StepEvent
from .looked_after.state import State


class RunState(StrEnum):
    """How it stands with a run."""

    WAITING = "waiting"  # none has begun in the folder
    RUNNING = "running"
    PAUSING = "pausing"  # it is begun again in a moment by those who look after it
    FINISHED = "finished"  # with all its steps, or because it got no better
    STOPPED = "stopped"  # someone asked, or interrupted it
    FAILED = "failed"  # an error rose, nothing was finite any more, or its process was lost while it was looked after
    DIED = "died"  # it has not ended, and nobody trains it


ENDED_AS = {
    EndReason.FINISHED: RunState.FINISHED,
    EndReason.EARLY_STOPPED: RunState.FINISHED,
    EndReason.STOPPED: RunState.STOPPED,
    EndReason.DISCARDED: RunState.STOPPED,
    EndReason.INTERRUPTED: RunState.STOPPED,
    EndReason.NOT_FINITE: RunState.FAILED,
    EndReason.FAILED: RunState.FAILED,
}


def state_while_there(is_held: bool, said: State | None, begun: bool) -> RunState:
    """How it stands with a run that somebody trains, or looks after."""
    if is_held or said is None or said.state == "running":
        return RunState.RUNNING
    if said.state == "pausing":
        return RunState.PAUSING
    return RunState.RUNNING if begun and said.state != "waiting" else RunState.WAITING


def last_words(events: Sequence[Event], started: RunStarted, folder: Path, said: State | None) -> RunEnded:
    """The end of a run whose process is gone without one; those who looked after it may have said why."""
    steps = [event for event in events if isinstance(event, StepEvent)]
    explained = said is not None and said.state == "ended" and bool(said.said)
    return RunEnded(
        step=steps[-1].step if steps else started.step,
        total_steps=started.total_steps,
        reason=EndReason.FAILED if explained else EndReason.INTERRUPTED,
        message=said.said if said is not None and explained else _gone(events, folder),
        elapsed=steps[-1].elapsed if steps else 0.0,
    )


def _gone(events: Sequence[Event], folder: Path) -> str:
    saved = [event.step for event in events if isinstance(event, CheckpointSaved)]
    goes_on = f"train(resume_from_checkpoint={str(folder)!r}) goes on from step"
    kept = f"{goes_on} {saved[-1]}, its last checkpoint." if saved else "It had written no checkpoint."
    return f"The process that trained it is gone without a word: killed, or the machine went down. {kept}"
