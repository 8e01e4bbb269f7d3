"""Whether somebody holds the lock on a file: it is the kernel's, and goes with the process that has it."""

import fcntl
import os
from pathlib import Path


def is_locked(file: Path) -> bool:
    """Whether another open file has all of `file` for itself; False where there is none. Nothing is made."""
    try:
        handle = os.open(file, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
