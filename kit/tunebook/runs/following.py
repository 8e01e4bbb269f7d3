"""The log of a run, followed while another process writes it: what was said so far, then what is said as it comes.

A run folder goes in, in which a run may not have begun yet and which may be moved; events come out, each when its line
is whole. A run that is resumed cuts its log back: what comes then begins with how it went on. Nothing waits here, and
nothing is written.
"""

import hashlib
import io
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from ..events import Event, RunStarted
from .log_lines import EVENTS_FILE, OddLines, lines_from


@dataclass(frozen=True)
class News:
    """What a log says that it did not say before."""

    events: list[Event] = field(default_factory=list)
    before: list[Event] | None = None  # where the log is another now: what it has in front of them
    odd: str | None = None  # a sentence on lines that were passed over


@final
class Following:
    """Reads on in a log where it has left off, whenever it is asked."""

    def __init__(self, run_folder: Path):
        self._path = run_folder / EVENTS_FILE
        self._file: int | None = None  # open, so that it is read on where it is moved, and no other gets its inode
        self._begin()

    def __del__(self):
        self._close()

    def look(self) -> News:
        """What came since the last look; of a log that is another one, what came since its run went on."""
        is_another = self._open()
        if self._file is None:
            return News()
        before = None
        if is_another or os.fstat(self._file).st_size < self._at:
            lines = _whole_lines(self._file, 0)
            if hashlib.blake2b(lines[: self._at]).digest() == self._digest.digest():
                lines = lines[self._at :]  # the same log, written anew
            else:
                before = []
                self._begin()
        else:
            lines = _whole_lines(self._file, self._at)
        events = self._read(lines)
        if before is not None:
            starts = [at for at, event in enumerate(events) if isinstance(event, RunStarted)]
            start = starts[-1] if starts else len(events)
            before, events = events[:start], events[start:]
        said, self._said = self._said, self._odd.sentence(self._path)
        return News(events, before, self._said if self._said != said else None)

    def _begin(self) -> None:
        self._at, self._digest = 0, hashlib.blake2b()  # of the lines that were read
        self._odd, self._said = OddLines(), None

    def _read(self, lines: bytes) -> list[Event]:
        self._at += len(lines)
        self._digest.update(lines)
        return [event for _, event in lines_from(io.BytesIO(lines), self._odd) if event is not None]

    def _open(self) -> bool:
        """Have the log open that is at its place; whether it is another than before."""
        try:
            there = os.stat(self._path)
            if self._file is not None and os.path.samestat(there, os.fstat(self._file)):
                return False
            if not stat.S_ISREG(there.st_mode):
                return False
            file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False  # none yet, or none any more
        self._close()
        self._file = file
        return True

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _whole_lines(file: int, at: int) -> bytes:
    """What an open file has from `at` on, up to its last newline."""
    pieces = []
    size = os.fstat(file).st_size
    while at < size and (piece := os.pread(file, size - at, at)):
        pieces.append(piece)
        at += len(piece)
    content = b"".join(pieces)
    return content[: content.rfind(b"\n") + 1]
