"""One writer for each run folder: whoever trains in it holds it, and another is told who does.

A run folder goes in; the hold is the kernel's lock on a file in it, gone with the process however that ends, so a file
that was copied along with a folder holds nothing. It is not inherited by forked processes. Network file systems that
keep no locks, and folders that cannot be written to, are told of in a sentence and not held.
"""

import errno
import fcntl
import json
import os
import socket
import time
import weakref
from pathlib import Path
from typing import Any, final

from ..machine.private import FILE_MODE, make_private_folder

LOCK_FILE = "held.lock"
_MOST_BYTES = 4096  # of what the file says
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
# Seconds between asking again: whoever only looks whether a folder is held has its lock for that moment.
_ASK_AGAIN = (0.002, 0.02, 0.1)


class RunInUse(RuntimeError):
    """Another process, or another trainer of this one, is writing into the run folder."""


@final
class RunLock:
    """Holds a run folder until the block ends. Raises RunInUse where it is held already.

    What the file says of the holder is for people; whether it is held only the kernel knows.
    """

    def __init__(self, run_folder: Path):
        self.notice: str | None = None  # why the folder is not held, where it cannot be
        self._folder, self._handle = run_folder, None
        self._handle: int | None = self._taken()

    def hold_again(self) -> None:
        """Make the folder anew, and hold it, where it or the file in it was taken away in the meantime.

        Raises RunInUse where another run has been made in its place since.
        """
        if self._handle is not None:
            try:
                there = os.stat(self._folder / LOCK_FILE)
            except FileNotFoundError:
                pass
            else:
                if os.path.samestat(there, os.fstat(self._handle)):
                    return
                raise RunInUse(
                    f"{self._folder} was taken away, and another run has its place now; to keep what this one learns "
                    "call model.save_pretrained when it has ended."
                )
        elif self._folder.is_dir():
            return
        make_private_folder(self._folder)
        gone, self._handle = self._handle, self._taken()
        if gone is not None:
            os.close(gone)

    def _taken(self) -> int | None:
        """The open file that is locked; None where there can be none."""
        path = self._folder / LOCK_FILE
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, FILE_MODE)
        except OSError as error:
            self.notice = _not_held(self._folder, error)
            return None
        try:
            _take(handle)
        except OSError as error:
            said = os.pread(handle, _MOST_BYTES, 0)
            os.close(handle)
            if error.errno not in _HELD:
                self.notice = _not_held(self._folder, error)
                return None
            raise RunInUse(
                f"{self._folder} is being written to by {_holder(said)}. Wait for that run to end or stop it (its Stop "
                f"button, or a file called STOP in the folder), then resume; or start afresh without "
                "resume_from_checkpoint."
            ) from error
        _held.add(self)
        _say_who(handle)
        return handle

    def __enter__(self):
        return self

    def __exit__(self, *_: object):
        self.release()

    def release(self) -> None:
        """Let the folder go; the lock is the kernel's and goes with the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
            _held.discard(self)


def is_held(run_folder: Path) -> bool:
    """Whether a live writer holds a run folder. Nothing is made in it."""
    return Held(run_folder).now()


@final
class Held:
    """Looks again and again whether a live writer holds a run folder, also one that is moved in the meantime."""

    def __init__(self, run_folder: Path):
        self._path = run_folder / LOCK_FILE
        self._handle: int | None = None

    def __del__(self):
        if self._handle is not None:
            os.close(self._handle)

    def now(self) -> bool:
        """Nothing is made in the folder."""
        try:
            there = os.stat(self._path)
            if self._handle is None or not os.path.samestat(there, os.fstat(self._handle)):
                older, self._handle = self._handle, os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
                if older is not None:
                    os.close(older)
        except OSError:
            pass  # there is none, or none any more: the one that was there may have been moved with its folder
        if self._handle is None:
            return False
        try:
            fcntl.flock(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in _HELD
        fcntl.flock(self._handle, fcntl.LOCK_UN)
        return False


def _take(handle: int) -> None:
    """Lock an open file. Raises OSError where another has it, and keeps it."""
    for pause in _ASK_AGAIN:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD:
                raise
        time.sleep(pause)
    return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """A forked child is not the writer, and must not keep the lock when its parent dies."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go_in_child)


def _say_who(handle: int) -> None:
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, (json.dumps(who) + "\n").encode(), 0)
    except OSError:  # a full disk; the lock holds without the words
        return


def _holder(said: bytes) -> str:
    try:
        who: Any = json.loads(said)
        where = "" if who["host"] == socket.gethostname() else f" on {who['host']}"
        me = ", this one," if who["pid"] == os.getpid() and not where else ""
        return f"process {int(who['pid'])}{me}{where} since {who['since']}"
    except (ValueError, TypeError, KeyError):
        return "another process"


def _not_held(run_folder: Path, error: OSError) -> str:
    return f"{run_folder} cannot be held for this run alone ({error.strerror}); see that no other process trains in it."
