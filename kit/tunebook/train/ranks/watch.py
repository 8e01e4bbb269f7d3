"""Sees to it that no process of a run waits for one that is gone: a thread of each of them, and a line between them.

Every process has a connection to the first, apart from the engine's own, and says once a second that it lives. One
that ends, is stopped or loses its machine is found out within seconds and named to all; the engine's connections are
then closed, which ends the exchange that the others wait in. One that is stopped on this machine is ended: it would
keep the run's folder for itself.
"""

import json
import os
import selectors
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, final

BEAT_SECONDS = 1.0  # between two signs of life
SILENT_SECONDS = 12.0  # after which one that gives none is lost
STUCK_SECONDS = 20.0  # that all wait in the same exchange: MLX's engine has lost it (mlx#4475)
GRACE_SECONDS = 5.0  # in which an exchange ends whose connections were closed; other engines than the ring may not
EXIT_CODE = 70  # of a process that had to end itself in the middle of an exchange; sysexits.h, EX_SOFTWARE


@dataclass(frozen=True)
class Peer:
    """A process of the run, as it introduced itself."""

    rank: int
    host: str
    pid: int
    space: str  # of process ids; the same for processes that may signal one another

    @property
    def name(self) -> str:
        """'rank 1 (studio.local, process 4711)'."""
        return f"rank {self.rank} ({self.host}, process {self.pid})"


@dataclass
class _Line:
    """The connection to a peer, and what was heard over it."""

    peer: Peer
    socket: socket.socket
    heard_at: float
    unread: bytes = b""
    done: int = 0  # the last run it said it was done with
    exchange: tuple[int, float] | None = None  # the number of the one it waits in, and for how many seconds
    is_open: bool = True


@final
class Watch:
    """Watches over the processes of one run after another, until this one ends."""

    def __init__(self, me: Peer, lines: Sequence[tuple[Peer, socket.socket]], engine: Iterable[tuple[int, int]]):
        """`lines` are those to all others for the first process, and to the first for each of them; `engine` are the
        engine's connections, as `open_sockets` has them.
        """
        self.lost: str | None = None  # the sentence on what was lost
        self.last_resort: Callable[[], Iterable[Any]] = (
            lambda: ()
        )  # drained: what to save where this process has to end itself
        self._me, self._engine = me, list(engine)
        now = time.monotonic()
        self._lines = [_Line(peer, connection, now) for peer, connection in lines]
        self._run = self._done = self._number = 0
        self._inside_since: float | None = None
        self._found_out = threading.Event()
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        for line in self._lines:
            line.socket.setblocking(False)
            self._selector.register(line.socket, selectors.EVENT_READ, line)
        threading.Thread(target=self._watching, name="tunebook-ranks", daemon=True).start()

    def begin(self) -> None:
        """A run begins, for which all are needed."""
        self._run += 1
        for line in self._lines:
            if not line.is_open:
                self._lose(f"{_upper(line.peer.name)} has ended already.")

    def done(self) -> None:
        """The run has ended here as it has everywhere; from now on nobody is needed."""
        self._done = self._run
        self._say({"done": self._run})

    def leave(self, why: str) -> None:
        """The run ends here alone, `why` being told to the others."""
        self._done = self._run
        self._say({"left": why})

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Around an exchange of the engine's, in which this process may wait for others."""
        self._number += 1
        self._inside_since = time.monotonic()
        try:
            yield
        finally:
            self._inside_since = None

    def found_out(self, seconds: float) -> str | None:
        """What was lost, waiting for it so long: the engine may notice before the line does."""
        self._found_out.wait(seconds)
        return self.lost

    def _watching(self) -> None:
        last_beat = looked_at = 0.0
        while True:
            for key, _ in self._selector.select(timeout=BEAT_SECONDS / 2):
                self._hear(key.data)
            now = time.monotonic()
            if now - looked_at > 4 * BEAT_SECONDS:  # it was this process that slept: nobody was silent meanwhile
                for line in self._lines:
                    line.heard_at = now
            looked_at = now
            if now - last_beat >= BEAT_SECONDS:
                last_beat = now
                since = self._inside_since
                self._say({"beat": None if since is None else [self._number, now - since]})
            if self._is_running:
                self._look_for_the_silent(now)
                self._look_for_the_stuck(now)

    @property
    def _is_running(self) -> bool:
        return self._run > self._done and self.lost is None

    def _hear(self, line: _Line) -> None:
        try:
            received = line.socket.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            received = b""
        if not received:
            line.is_open = False
            self._selector.unregister(line.socket)
            if self._is_running and line.done < self._run:
                gone = "ended without a word: it was killed, or its machine cannot be reached any more"
                self._lose(f"{_upper(line.peer.name)} {gone}.")
            return
        line.heard_at = time.monotonic()
        *messages, line.unread = (line.unread + received).split(b"\n")
        for message in messages:
            self._take(line, json.loads(message))

    def _take(self, line: _Line, message: dict[str, Any]) -> None:
        if "beat" in message:
            line.exchange = None if message["beat"] is None else tuple(message["beat"])
        elif "done" in message:
            line.done = message["done"]
        elif "lost" in message and self._is_running:
            self._lose(message["lost"])
        elif "left" in message and self._is_running:
            self._lose(f"{_upper(line.peer.name)} left the run: {message['left']}")

    def _look_for_the_silent(self, now: float) -> None:
        for line in self._lines:
            if line.is_open and line.done < self._run and now - line.heard_at > SILENT_SECONDS:
                if line.peer.space == self._me.space:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(line.peer.pid, signal.SIGKILL)
                self._lose(
                    f"{_upper(line.peer.name)} has given no sign of life for {SILENT_SECONDS:.0f} seconds: it is "
                    "stopped, or its machine sleeps or cannot be reached."
                )
                return

    def _look_for_the_stuck(self, now: float) -> None:
        since = self._inside_since
        if self._me.rank or since is None or now - since < STUCK_SECONDS:
            return
        others = [line.exchange for line in self._lines]
        if all(other is not None and other[0] == self._number and other[1] > STUCK_SECONDS for other in others):
            self._lose(
                f"All ranks have waited in the same exchange for {STUCK_SECONDS:.0f} seconds: the engine has lost it. "
                "It is not known to happen with MLX 0.32.4 or newer on every rank."
            )

    def _lose(self, sentence: str) -> None:
        if self.lost is not None:
            return
        self.lost = sentence
        self._say({"lost": sentence})
        self._found_out.set()
        for descriptor, inode in self._engine:
            _sever(descriptor, inode)
        threading.Thread(target=self._end_if_stuck, name="tunebook-ranks-end", daemon=True).start()

    def _end_if_stuck(self) -> None:
        """End this process where it still waits in an exchange that cannot end."""
        number = self._number
        time.sleep(GRACE_SECONDS)
        if self._inside_since is None or self._number != number:
            return
        try:
            sys.stderr.write(f"{self.lost} This process ends itself: MLX's engine does not let go of it.\n")
            for _ in self.last_resort():
                pass
        finally:
            os._exit(EXIT_CODE)

    def _say(self, message: dict[str, Any]) -> None:
        content = json.dumps(message).encode() + b"\n"
        with self._lock:
            for line in self._lines:
                if line.is_open:
                    # What does not fit into the buffer of a connection nobody reads is not worth waiting for.
                    with suppress(OSError):
                        line.socket.send(content)


def open_sockets() -> set[tuple[int, int]]:
    """(descriptor, inode) of each socket this process has open; the engine's are those that are new after it began."""
    found = set()
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                found.add((int(name), status.st_ino))
    return found


def _sever(descriptor: int, inode: int) -> None:
    """Close a connection for both sides, if the descriptor is still the one it was."""
    with suppress(OSError):
        if os.fstat(descriptor).st_ino == inode:
            with socket.socket(fileno=os.dup(descriptor)) as ours:
                ours.shutdown(socket.SHUT_RDWR)


def _upper(name: str) -> str:
    return name[0].upper() + name[1:]
