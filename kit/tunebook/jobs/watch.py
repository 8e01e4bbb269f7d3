"""A job's process watched from beside it: it ends by itself, or shows no sign of life for too long and is ended.

A step that takes long is no hang. Two things are looked at: the beats of a thread in the process, which stop only when
the whole process is stopped (it is woken once, for that loses nothing); and the events of its run, whose silence counts
once it is far longer than any was before.
"""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .causes import Silence
from .layout import Order
from .life import Beat, read_beat

SECONDS_BETWEEN_LOOKS = 0.1
LOOKS_PER_BEAT = 10  # so many looks for each at the sign of life
FIRST_BEAT_SECONDS = 300.0  # that a process may take to come up, at the least
TIMES_LONGER = 20  # than the longest silence so far, before a process that lives is taken to hang


@dataclass(frozen=True)
class Watched:
    """What was seen of a process that is gone."""

    code: int
    last: Beat | None
    silence: Silence | None = None
    silent_seconds: float = 0.0


def watch(child: "subprocess.Popen[bytes]", folder: Path, order: Order) -> Watched:
    """Wait until `child` is gone."""
    signs = _Signs(child.pid, folder, order)
    looks = 0
    while child.poll() is None:
        looks += 1
        if looks % LOOKS_PER_BEAT == 0:
            silence, seconds = signs.too_long(SECONDS_BETWEEN_LOOKS * LOOKS_PER_BEAT)
            if silence == "stopped" and not signs.woken:
                signs.wake()
            elif silence is not None:
                _signalled(child.pid, signal.SIGKILL)
                child.wait()
                return Watched(child.returncode, signs.last, silence, seconds)
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return Watched(child.returncode, signs.look())


class _Signs:
    """The signs of life of one process. Time is what was waited here, so that a machine that slept counts for none."""

    def __init__(self, pid: int, folder: Path, order: Order):
        self._pid, self._folder, self._order = pid, folder, order
        self.last: Beat | None = None
        self.woken = False
        self._without_beat = self._without_event = self._longest = 0.0

    def look(self) -> Beat | None:
        beat = read_beat(self._folder)
        if beat is not None and beat.pid == self._pid:
            self.last = beat
        return self.last

    def too_long(self, seconds: float) -> tuple[Silence | None, float]:
        """(which silence is too long, how long it is), `seconds` after it was asked last."""
        before, now = self.last, self.look()
        self._without_beat += seconds
        self._without_event += seconds
        if now is not None and (before is None or now.beats != before.beats):
            self._without_beat = 0.0
            self.woken = False
        if now is not None and (before is None or now.events != before.events):
            self._longest = max(self._longest, self._without_event) if now.began else 0.0
            self._without_event = 0.0
        silent, idle = self._order.silent_seconds, 60 * self._order.idle_minutes
        if self._without_beat >= (silent if now is not None else max(silent, FIRST_BEAT_SECONDS)):
            return "stopped", self._without_beat
        if now is not None and now.began and self._without_event >= max(idle, TIMES_LONGER * self._longest):
            return "idle", self._without_event
        return None, 0.0

    def wake(self) -> None:
        """Have a process that was stopped go on."""
        self.woken, self._without_beat = True, 0.0
        _signalled(self._pid, signal.SIGCONT)


def _signalled(pid: int, number: signal.Signals) -> None:
    """Send a signal to a child and all it has started; it leads a session of its own."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def ask_to_end(child: "subprocess.Popen[bytes]") -> None:
    """Have a child end with the step in progress, as `machine.interrupts.on_terminate` answers it."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
