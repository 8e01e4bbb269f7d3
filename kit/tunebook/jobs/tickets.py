"""Whose turn it is: the runs of this user that wait for one another, each with a ticket in a folder of the cache.

A ticket is held by the supervisor of its run, by a lock that goes with that process; what a dead one left is taken away
by whoever comes next. Turns are taken in the order of the tickets. A run begins when no other goes on, or when it fits
beside those that do by what all of them will need of memory.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final

from ..machine import runtime
from ..machine.private import FILE_MODE, make_private_folder, new_private_file
from ..runs.looked_after.locked import is_locked

FOLDER, LOCK = "jobs", "queue.lock"


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A place in the queue."""

    number: int
    folder: str  # of the run
    model: str
    estimate_gb: float  # 1e9 bytes; 0: not known, and then nothing fits beside it
    limit_gb: float  # what there is for all that go on side by side
    supervisor: int  # process id
    runs: bool = False  # its turn has come


@final
class Place:
    """The place of one run in the queue, until the block ends."""

    def __init__(self, folder: Path, *, model: str, estimate_gb: float, limit_gb: float):
        self._home = _queue_folder()
        with _alone():
            number = 1 + max((ticket.number for ticket in _living(self._home)), default=0)
            self._ticket = Ticket(
                number=number,
                folder=str(folder),
                model=model,
                estimate_gb=estimate_gb,
                limit_gb=limit_gb,
                supervisor=os.getpid(),
            )
            self._handle = os.open(_lock_of(self._home, number), os.O_RDWR | os.O_CREAT, FILE_MODE)
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            _write(self._home, self._ticket)

    def __enter__(self):
        return self

    def __exit__(self, *_: object):
        with _alone():
            _take_away(self._home, self._ticket.number)
            os.close(self._handle)

    def its_turn(self) -> bool:
        """Whether the run may begin; from then on others wait for it."""
        with _alone():
            tickets = _living(self._home)
            own = self._ticket
            if any(not other.runs and other.number < own.number for other in tickets):
                return False
            beside = [other for other in tickets if other.runs and other.number != own.number]
            if not _fits(own, beside):
                return False
            self._ticket = replace(own, runs=True)
            _write(self._home, self._ticket)
            return True


def tickets() -> list[Ticket]:
    """The runs that go on or wait, in their order."""
    with _alone():
        return _living(_queue_folder())


def _fits(own: Ticket, beside: list[Ticket]) -> bool:
    if not beside:
        return True
    if not all(ticket.estimate_gb for ticket in (own, *beside)):
        return False
    return own.estimate_gb + sum(other.estimate_gb for other in beside) <= own.limit_gb


def _living(home: Path) -> list[Ticket]:
    """The tickets that are held; the others are taken away. Only inside `_alone`."""
    found = []
    for file in home.glob("*.json"):
        try:
            ticket = Ticket(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            continue  # none of ours, or of another version
        if is_locked(_lock_of(home, ticket.number)):
            found.append(ticket)
        else:
            _take_away(home, ticket.number)
    return sorted(found, key=lambda ticket: ticket.number)


@contextmanager
def _alone() -> Iterator[None]:
    """Within the block no other process looks at the queue."""
    handle = os.open(_queue_folder() / LOCK, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _queue_folder() -> Path:
    folder = runtime.cache_folder() / FOLDER
    make_private_folder(folder)
    return folder


def _write(home: Path, ticket: Ticket) -> None:
    with new_private_file(home / f"{ticket.number:06d}.json") as partial:
        partial.write_text(json.dumps(asdict(ticket)))


def _lock_of(home: Path, number: int) -> Path:
    return home / f"{number:06d}.lock"


def _take_away(home: Path, number: int) -> None:
    (home / f"{number:06d}.json").unlink(missing_ok=True)
    _lock_of(home, number).unlink(missing_ok=True)
