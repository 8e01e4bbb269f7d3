"""The processes of a job watched from beside them: they end by themselves, or are ended for their silence.

A step that takes long is no hang. Two things are looked at: the beats of a thread in the process, which stop only when
the whole process is stopped (it is woken once, for that loses nothing); and the events of its run, whose silence counts
once it is far longer than any was before. Of several processes the first gives the signs; they see to one another
(`train/ranks/`), and the last resort is here.
"""

import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..runs.folder import STOP_FILE
from ..runs.looked_after.state import PROCESS
from .causes import Silence
from .layout import ALIVE, Order
from .life import Beat, read_beat
from .processes import Child

SECONDS_BETWEEN_LOOKS = 0.1
LOOKS_PER_BEAT = 10  # so many looks for each at the sign of life
FIRST_BEAT_SECONDS = 300.0  # that a process may take to come up, at the least
TIMES_LONGER = 20  # than the longest silence so far, before a process that lives is taken to hang
SECONDS_AFTER_THE_FIRST = 60.0  # in which the other processes of a run are gone, or are ended


@dataclass(frozen=True)
class Watched:
    """What was seen of processes that are gone."""

    codes: Sequence[int | None]  # by rank; None: it was ended because of another
    last: Beat | None
    silence: Silence | None = None
    silent_seconds: float = 0.0


def forget_signs(folder: Path) -> None:
    """Take away what the process before gave as its last sign of life."""
    (folder / PROCESS / ALIVE).unlink(missing_ok=True)


def watch(children: Sequence[Child], folder: Path, order: Order) -> Watched:
    """Wait until all `children` are gone."""
    signs, first = _Signs(folder, order), children[0]
    ended: set[int] = set()  # here, and not by themselves
    looks, since_first = 0, 0.0
    while not all(child.is_gone for child in children):
        looks += 1
        if looks % LOOKS_PER_BEAT == 0 and not first.is_gone:
            silence, seconds = signs.too_long(SECONDS_BETWEEN_LOOKS * LOOKS_PER_BEAT)
            if silence == "stopped" and not signs.woken:
                signs.wake()
                _signalled(children, signal.SIGCONT)
            elif silence is not None:
                _end(children)
                return Watched([children[0].process.returncode], signs.last, silence, seconds)
        since_first += SECONDS_BETWEEN_LOOKS if first.is_gone else 0.0
        fell = any(child.process.poll() for child in children)  # with a code that is not 0
        if since_first > SECONDS_AFTER_THE_FIRST or (fell and not signs.began):
            left = {rank for rank, child in enumerate(children) if not child.is_gone}
            ended |= left
            _end([children[rank] for rank in left])
        time.sleep(SECONDS_BETWEEN_LOOKS)
    _signalled([child for child in children if child.launches], signal.SIGKILL)  # what it left, where it was killed
    codes = [None if rank in ended else child.process.returncode for rank, child in enumerate(children)]
    return Watched(codes, signs.look())


class _Signs:
    """The signs of life of a job. Time is what was waited here, so that a machine that slept counts for none."""

    def __init__(self, folder: Path, order: Order):
        self._folder, self._order = folder, order
        self.last: Beat | None = None
        self._counted: Beat | None = None  # the sign that silence was counted by
        self.woken = False
        self._without_beat = self._without_event = self._longest = 0.0

    @property
    def began(self) -> bool:
        """Whether the run has begun."""
        beat = self.look()
        return beat is not None and beat.began

    def look(self) -> Beat | None:
        beat = read_beat(self._folder)
        if beat is not None:
            self.last = beat
        return self.last

    def too_long(self, seconds: float) -> tuple[Silence | None, float]:
        """(which silence is too long, how long it is), `seconds` after it was asked last."""
        before, now = self._counted, self.look()
        self._counted = now
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
        """A process that was stopped is to go on."""
        self.woken, self._without_beat = True, 0.0


def _signalled(children: Iterable[Child], number: signal.Signals) -> None:
    """Send a signal to children and all they have started; each leads a session of its own."""
    for child in children:
        if child.launches or not child.is_gone:
            with suppress(ProcessLookupError):
                os.killpg(child.process.pid, number)


def _end(children: Sequence[Child]) -> None:
    _signalled(children, signal.SIGKILL)
    for child in children:
        child.process.wait()


def ask_to_end(children: Sequence[Child], folder: Path) -> None:
    """Have the run end with the step in progress, as `machine.interrupts.on_terminate` answers it in the first."""
    first = children[0]
    if first.launches:  # which would end the others at once
        (folder / STOP_FILE).touch()
    elif not first.is_gone:
        first.process.send_signal(signal.SIGTERM)
