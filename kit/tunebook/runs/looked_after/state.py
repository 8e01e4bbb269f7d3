"""How it stands with a run that is looked after, as its supervisor says in a small record; and whether there is one."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...machine.sealed import Damaged, unsealed
from ..log_lines import EVENTS_FILE
from .locked import is_locked

PROCESS = "process"  # the folder in a run's, in which those who run it leave what others read
STATE = "state.json"  # in it
LOCK = "supervisor.lock"  # the same, held by the supervisor for as long as it lives


@dataclass(frozen=True, kw_only=True)
class State:
    """How it stands with a job; written by its supervisor alone."""

    state: str = "waiting"  # "waiting", "running", "pausing" or "ended"
    supervisor: int = 0  # process ids
    child: int = 0
    others: list[int] = field(default_factory=list)  # that train together with the child
    begun: int = 0  # how many times a child was started
    again_at: float = 0.0  # while it pauses, when it is begun again, in seconds since 1970
    ended_well: bool = False  # the run came to an end of its own, and `result/` has it
    said: str = ""  # one sentence on the latest end of a child
    causes: list[str] = field(default_factory=list)  # the sentences of all ends that were not the last

    @property
    def in_words(self) -> str:
        """What there is to say of it now; empty while there is nothing."""
        if self.state != "pausing":
            return self.said
        return f"It begins again in {max(0.0, self.again_at - time.time()):.0f} s. {self.said}"


def read_state(folder: Path) -> State | None:
    """How it stands with the run in `folder`; None where nobody looks after it, or what was said is not whole."""
    plain = read_record(folder / PROCESS / STATE)
    return None if plain is None else State(**plain)


def last_said(folder: Path, *, is_there: bool) -> State | None:
    """The same; where nobody `is_there` any more, None for what was said before the log's last line."""
    said = read_state(folder)
    if said is None or is_there:
        return said
    try:
        is_older = os.stat(folder / PROCESS / STATE).st_mtime_ns < os.stat(folder / EVENTS_FILE).st_mtime_ns
    except OSError:
        return said  # there is no log
    return None if is_older else said


def is_supervised(folder: Path) -> bool:
    """Whether somebody looks after the run in `folder`."""
    return is_locked(folder / PROCESS / LOCK)


def read_record(file: Path) -> dict[str, Any] | None:
    """A record of the kit's; None where there is none, or none that is whole."""
    try:
        document, is_sealed = unsealed(file)
    except Damaged:
        return None
    return document if is_sealed else None
