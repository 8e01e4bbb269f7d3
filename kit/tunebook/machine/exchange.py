"""Two names on a disk that change places in a single step, so that neither is ever missing.

Linux calls it RENAME_EXCHANGE, macOS RENAME_SWAP. Which of them there is is asked of the C library; network drives and
older file systems have neither.
"""

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Linux, fcntl.h and stdio.h
_RENAME_SWAP = 2  # macOS, sys/stdio.h
_NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EBUSY)


def exchange(one: Path, other: Path) -> bool:
    """Let two paths change places; False where that is not offered.

    Raises OSError, FileNotFoundError among them, when the system would but cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    one_name, other_name = os.fsencode(one), os.fsencode(other)
    try:
        failed = libc.renameat2(_AT_FDCWD, one_name, _AT_FDCWD, other_name, _RENAME_EXCHANGE)
    except AttributeError:
        try:
            failed = libc.renamex_np(one_name, other_name, _RENAME_SWAP)
        except AttributeError:
            return False
    if not failed:
        return True
    if (number := ctypes.get_errno()) in _NOT_OFFERED:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))
