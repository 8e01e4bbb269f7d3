"""A job's process says that it lives, and notices when nobody wants what it does.

A thread beside the run writes a small file every second; the events of the run are counted in it, so that a process
that lives and computes nothing is told from one that works. It asks the run to stop when whoever started it is gone and
did not ask to keep it. It touches no array.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from ..events import Event, RunStarted
from ..runs.looked_after.state import PROCESS
from ..runs.looked_after.wanted import is_wanted
from .layout import ALIVE

SECONDS_BETWEEN_BEATS = 1.0


@dataclass(frozen=True)
class Beat:
    """The last sign of life of a job's process."""

    pid: int
    beats: int
    events: int = 0  # of its run so far, what is going on counted too
    step: int = 0  # optimizer steps completed
    began: bool = False  # the run has begun: its model is loaded


def read_beat(folder: Path) -> Beat | None:
    """The last sign of life of the job in `folder`; None where there is none that can be read."""
    try:
        plain = json.loads((folder / PROCESS / ALIVE).read_text())
        return Beat(**plain)
    except (OSError, ValueError, TypeError):
        return None


@final
class Life:
    """Beats while the block lasts; it is told every event of the run, and calls `stop` once nobody wants the run."""

    def __init__(self, folder: Path, stop: Callable[[], None], *, keep: bool):
        self._folder, self._stop, self._keep = folder, stop, keep
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="tunebook-life", daemon=True)
        self._events = self._step = 0
        self._began = False

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object):
        self._over.set()
        self._thread.join()

    def __call__(self, event: Event) -> None:
        """Count an event of the run."""
        self._events += 1
        self._step = event.step
        self._began = self._began or isinstance(event, RunStarted)

    def _beat(self) -> None:
        beats, asked = 0, False
        while True:
            beats += 1
            self._write(Beat(os.getpid(), beats, self._events, self._step, self._began))
            if not self._keep and not asked and not is_wanted(self._folder):
                asked = True
                self._stop()
            if self._over.wait(SECONDS_BETWEEN_BEATS):
                return

    def _write(self, beat: Beat) -> None:
        file = self._folder / PROCESS / ALIVE
        partial = file.with_name(f".{ALIVE}-{os.getpid()}-{time.monotonic_ns()}")
        try:
            partial.write_text(json.dumps(asdict(beat)))
            os.replace(partial, file)
        except OSError:  # a full disk, or the folder was moved: no run ends for that
            return
