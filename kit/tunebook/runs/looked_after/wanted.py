"""Who wants a run: each process that started or watches it holds a lock on a file in its folder, for as long as it is.

The kernel gives a lock back with the process that had it, however that ends, so a notebook that died wants nothing any
more. Several may want the same run. Where a file system keeps no locks, a run is taken to be wanted.
"""

import errno
import fcntl
import os
from pathlib import Path

from ...machine.private import FILE_MODE, make_private_folder
from .state import PROCESS

WANTED = "wanted.lock"

_held: dict[Path, int] = {}  # open files of this process, by the run folders they want


def want(folder: Path) -> None:
    """Want the run in `folder` until `let_go`, or for as long as this process lives."""
    place = folder.resolve()
    if place in _held:
        return
    make_private_folder(folder / PROCESS)
    handle = os.open(folder / PROCESS / WANTED, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # whoever looks has it for that moment, or none can be had
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
        except OSError:
            os.close(handle)
            return
    _held[place] = handle


def let_go(folder: Path) -> None:
    """Want the run in `folder` no longer."""
    handle = _held.pop(folder.resolve(), None)
    if handle is not None:
        os.close(handle)


def is_wanted(folder: Path) -> bool:
    """Whether some process wants the run in `folder`."""
    try:
        handle = os.open(folder / PROCESS / WANTED, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES) or error.errno == errno.ENOLCK
    finally:
        os.close(handle)
    return False


def _let_go_in_child() -> None:
    """A forked child wants nothing: it may outlive the notebook."""
    for handle in _held.values():
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
