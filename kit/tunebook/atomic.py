"""Files and folders that appear whole or not at all.

Everything the kit leaves on a disk is first written beside its final place, flushed to the disk and then renamed over
it, so that a full disk, a crash or an interrupt leaves whatever stood there before exactly as it was.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)  # what a rename over a folder or a file fails with


class DiskFull(OSError):
    """The disk ran out while something was being written; nothing that existed before was changed."""


@contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends, replacing what was there.

    If the block raises, the unfinished folder is removed and `path` is left as it was. A full disk is raised as
    DiskFull with the space that is free.
    """
    path = Path(path).absolute()
    with _beside(path) as partial, _full_disk_explained(path):
        partial.mkdir()
        yield partial
        for file in sorted(partial.rglob("*")):
            if file.is_file():
                _flush(file)
        _flush(partial)
        _swap_in(partial, path)


@contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """Yield the path of a file to write; it becomes `path` when the block ends. Fails as `new_folder` does."""
    path = Path(path).absolute()
    with _beside(path) as partial, _full_disk_explained(path):
        yield partial
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name in a scratch folder next to `path` (renames work only within one file system), gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    try:
        yield scratch / path.name
    finally:
        shutil.rmtree(scratch)


@contextmanager
def _full_disk_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(path.parent).free
        raise DiskFull(
            error.errno,
            f"The disk (or your share of it) filled up while writing {path.name}; {free / 1e9:.2f} GB were left in "
            f"{path.parent}. "
            "What was there before is unchanged. Free some space or choose another folder, then run this again",
        ) from error


def _swap_in(partial: Path, path: Path) -> None:
    """Rename a finished folder to its final place; what stands there is moved into the scratch folder first.

    Another process may do the same at the same time: whoever renames last has the place.
    """
    old: Path | None = None
    while True:
        try:
            os.replace(partial, path)
            break
        except OSError as error:
            if error.errno not in _TAKEN:
                if old is not None:
                    os.replace(old, path)
                raise
        aside = Path(tempfile.mkdtemp(dir=partial.parent)) / path.name
        with suppress(FileNotFoundError):  # another process has just taken it away
            os.replace(path, aside)
            old = aside
    _flush(path.parent)


def _flush(path: Path) -> None:
    """fsync a file or folder, so that a rename is never on the disk before what it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
