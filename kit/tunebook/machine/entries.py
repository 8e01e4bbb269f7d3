"""Folders of the cache that are each named by the key of what is in them; of many, those used longest ago go."""

import contextlib
import re
from pathlib import Path

from .atomic import remove_folder

KEY_DIGITS = 24
KEPT = 20  # entries

_KEY = re.compile(rf"[0-9a-f]{{{KEY_DIGITS}}}")  # the name of an entry; what is called otherwise is not ours to remove


def prune(used: Path) -> None:
    """Note that the entry `used` was used now, and remove all but the newest beside it."""
    used.touch()
    by_age = []
    for path in used.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process may be removing it too
            if _KEY.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                by_age.append((path.stat().st_mtime, path))
    for _, old in sorted(by_age)[:-KEPT]:
        with contextlib.suppress(OSError):
            remove_folder(old)
