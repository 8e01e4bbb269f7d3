"""What interrupted runs left is said when the next one starts in their place: how far they came, and how to go on.

A folder of runs and the new run's identity come in, sentences go out. An earlier run broke off where its log does not
tell of an end, or tells of an interrupt or an error, and nobody holds its folder. What a run that was begun after it
has said already is not said again; nothing is written, and of hundreds of folders a few logs' ends are read.
"""

import heapq
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...events import CheckpointSaved, EndReason, Event, RunEnded, RunStarted, StepEvent
from ...machine.sealed import MOST_JSON_BYTES, Damaged, read_bytes
from ...runs.folder import CONFIG_FILE, EVENTS_FILE, last_events, run_folders
from ...runs.lock import is_held
from .checkpoint import checkpoint_folders, step_of

MOST_RUNS = 8  # whose logs are looked at, those written to last
BROKEN_OFF = (EndReason.INTERRUPTED, EndReason.FAILED)


def said_of_earlier_runs(new: Path, differs: Callable[[Mapping[str, Any]], Sequence[str]]) -> list[str]:
    """A sentence for each run beside `new`, the folder of one that starts, that broke off since another one began.

    `differs` gives a line for each value in which another identity differs from the new run's.
    """
    others = [folder for folder in run_folders(new.parent) if folder != new]
    last_said = {folder: when for folder in others if (when := _last_written(folder / EVENTS_FILE)) is not None}
    begun = {folder: _last_written(folder / CONFIG_FILE) or 0 for folder in last_said}
    newest = heapq.nlargest(MOST_RUNS, last_said, key=last_said.__getitem__)
    since = [
        folder
        for folder in reversed(newest)
        if not any(when > last_said[folder] for other, when in begun.items() if other != folder)
    ]
    left = [_left_by(folder, last_said[folder]) for folder in since if not is_held(folder)]
    return [_sentence(one, differs(_identity_of(one.folder))) for one in left if one is not None]


@dataclass(frozen=True)
class _Left:
    """What a run that broke off has left."""

    folder: Path
    step: int | None  # the last completed; None where its log does not say
    total_steps: int | None
    checkpoint: Path | None  # the newest
    silent_since: int  # nanoseconds


def _left_by(folder: Path, silent_since: int) -> _Left | None:
    """None for a run that ended as it was meant to, or that never began."""
    try:
        events = last_events(folder)
    except OSError:
        events = []
    if any(isinstance(event, RunEnded) and event.reason not in BROKEN_OFF for event in events):
        return None
    checkpoints = checkpoint_folders(folder)
    if not events and not checkpoints:
        return None
    steps = [event.step for event in events if isinstance(event, RunStarted | StepEvent | CheckpointSaved | RunEnded)]
    return _Left(
        folder=folder,
        step=max([*steps, *map(step_of, checkpoints[-1:])], default=None),
        total_steps=_total(events),
        checkpoint=checkpoints[-1] if checkpoints else None,
        silent_since=silent_since,
    )


def _sentence(left: _Left, different: Sequence[str]) -> str:
    total = "" if left.total_steps is None else f" of {left.total_steps}"
    place = "before its first step was done" if not left.step else f"at step {left.step}{total}"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(left.silent_since / 1e9))
    opening = f"{left.folder.name} broke off {place} (nothing was heard of it after {when})"
    if left.checkpoint is None or not step_of(left.checkpoint):
        return (
            f"{opening}, and left no checkpoint to go on from; save_steps and save_minutes in TrainingConfig say when "
            "one is written."
        )
    saved = step_of(left.checkpoint)
    point = "" if saved == left.step else f" from step {saved}, its last checkpoint,"
    call = f'trainer.train(resume_from_checkpoint="{_from_here(left.folder)}")'
    if different:
        names = ", ".join(line.strip().partition(":")[0] for line in different)
        return (
            f"{opening}; to go on with it{point} set what differs from this run as it was ({names}), and call {call}."
        )
    return f"{opening}; to go on with it{point} in place of this run, stop this one and call {call}."


def _from_here(folder: Path) -> str:
    """The path as it is typed in this notebook."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _total(events: Sequence[Event]) -> int | None:
    totals = [event.total_steps for event in events if isinstance(event, RunStarted | StepEvent | RunEnded)]
    return totals[-1] if totals else None


def _identity_of(folder: Path) -> dict[str, Any]:
    """What a run is a run of; empty where its config.json does not say."""
    try:
        document = json.loads(read_bytes(folder / CONFIG_FILE, most=MOST_JSON_BYTES))
    except (Damaged, ValueError, RecursionError):
        return {}
    identity = document.get("identity") if isinstance(document, dict) else None
    return identity if isinstance(identity, dict) else {}


def _last_written(file: Path) -> int | None:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return None
