"""Folders for what is needed on the way and never kept, below the system's temporary one.

Each is gone when its block ends, and where its process was killed, when the next one is made (`scratch.py`): a merge
that was being pushed takes gigabytes.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .runtime import private_temporary_folder
from .scratch import scratch_folder


@contextmanager
def working_folder(name: str) -> Iterator[Path]:
    """Yield an empty folder, for its owner alone, that is removed with all that is in it when the block ends.

    `name` says what for. Where another user has the kit's place, the folder is a plain temporary one.
    """
    try:
        place = private_temporary_folder() / name
    except OSError:
        with tempfile.TemporaryDirectory(prefix=f"tunebook-{name}-") as folder:
            yield Path(folder)
        return
    with scratch_folder(place) as scratch:
        folder = scratch.path / "work"
        folder.mkdir()
        yield folder
