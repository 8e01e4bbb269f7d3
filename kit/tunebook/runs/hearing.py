"""A run heard and seen from elsewhere while it computes: its mailbox is emptied by a thread beside it.

Commands go to the run's `Controls`, which are carried out between two steps as those of its own process are; that they
were heard, and what is being computed, is written down for those who watch. The thread touches no array. What cannot be
read or written is tried again, for no run may end over it.
"""

import threading
from contextlib import suppress
from pathlib import Path
from typing import final

from ..events import Command, CommandReceived, Event, RunStarted, Working
from .controls import Controls
from .lock import LOCK_FILE
from .mailbox import Mailbox, Now, nothing_more, say_now

SECONDS_BETWEEN_LOOKS = 0.2


@final
class Hearing:
    """Listens for the run in a folder, from when it is entered to when it is left; it is told every event of it."""

    def __init__(self, controls: Controls, run_folder: Path):
        self._controls, self._folder, self._mailbox = controls, run_folder, Mailbox(run_folder)
        self._since = _written(run_folder / LOCK_FILE)
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._listen, name="tunebook-hearing", daemon=True)
        self._events = 0
        self._working: Working | None = None
        self._heard: list[tuple[int, Command, float | None]] = []
        self._numbered = 0
        self._said: Now | None = None

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object):
        self._over.set()
        self._thread.join()
        with suppress(OSError):
            self._mailbox.take()  # the run is over: there is nothing to be done about them
        self._mailbox.close()
        nothing_more(self._folder)

    def __repr__(self):
        return "what is told of this run to those who watch it from elsewhere"

    def __call__(self, event: Event) -> None:
        """Take note of an event of the run."""
        with self._lock:
            if isinstance(event, Working):
                self._working = event
                return
            self._working = None
            self._events = 1 if isinstance(event, RunStarted) else self._events + 1
            if isinstance(event, CommandReceived):
                told = (event.command, event.value)
                known = next((heard for heard in self._heard if heard[1:] == told), None)
                if known is not None:
                    self._heard.remove(known)

    def _listen(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN_LOOKS):
            try:
                self._look()
            except OSError:
                continue  # no room, or the folder is gone; the next checkpoint makes it anew

    def _look(self) -> None:
        requests, said = self._mailbox.take(self._since)
        with self._lock:
            for request in requests:
                self._numbered += 1
                self._heard.append((self._numbered, request.command, request.value))
        try:
            self._say()  # first: who reads that it was done has read that it was heard
        finally:
            for text in said:
                self._controls.say(text)
            for request in requests:
                self._controls.ask(request)

    def _say(self) -> None:
        with self._lock:
            now = Now(self._events, self._working, tuple(self._heard))
        if now != self._said:
            say_now(self._folder, now)
            self._said = now


def _written(lock: Path) -> float:
    """When the folder was taken to train in, by the clock that dates the commands; 0 where that is not known."""
    try:
        return lock.stat().st_mtime
    except OSError:
        return 0.0
