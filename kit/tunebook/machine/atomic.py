"""Files and folders that appear whole or not at all, whatever ends the writing: an error, a full disk, a kill.

Everything is written into a scratch folder (`scratch.py`), flushed to the disk and put in its place in one step. There
are three kinds of places:

- a file: one rename, which replaces what stood there;
- a folder that is all ours: the new and the old change places (`exchange.py`), so there is no moment without one.
  Where a file system offers no exchange it takes two renames, and the second is made up for after a kill;
- files of ours among those of others: no system swaps several files at once. A folder in which nothing but these files
  stands is exchanged all the same; else the files are moved one by one from a list written down before, and what a kill
  leaves undone the next writer or reader does first (`scratch.recover`). Swapping the whole folder with the others'
  files carried over would take it away under a notebook that works in it, and with it whatever is saved meanwhile.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .exchange import exchange
from .interrupts import held_back
from .scratch import NEW, OLD, Moves, Scratch, alone_in, carry_out, flush, scratch_folder

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)  # what a rename over a folder or a file fails with


class DiskFull(OSError):
    """The disk ran out while something was being written; nothing that existed before was changed."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Where the files of a set are written before they are put in their place."""

    new: Path  # an empty folder for them
    aside: Path  # an empty folder for what is needed on the way


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a set of files does to a folder: name -> sha256 of what stands there, None where nothing does."""

    replaces: dict[str, str | None]
    removes: dict[str, str]


@contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends, in place of whatever was there.

    For places that are the kit's own: nothing of what stood there is kept. At any moment, also after a kill, `path` is
    the whole old folder or the whole new one; a symbolic link stays one and its target is replaced. If the block
    raises, the unfinished folder is removed and `path` is left as it was. A full disk is raised as DiskFull with the
    space that is free. What killed writers left beside `path` is removed before.
    """
    path = _followed(Path(path))
    with full_disk_explained(path), scratch_folder(path) as scratch:
        partial = scratch.path / NEW / path.name
        partial.mkdir(parents=True)
        yield partial
        flush_all(partial)
        with held_back():
            _put(partial, path, scratch)
            flush(path.parent)


@contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """Yield the path of a file to write; it becomes `path` when the block ends. Fails as `new_folder` does."""
    path = _followed(Path(path))
    with full_disk_explained(path), scratch_folder(path) as scratch:
        partial = scratch.path / path.name
        yield partial
        flush(partial)
        os.replace(partial, path)
        flush(path.parent)


@contextmanager
def added_files(folder: Path, plan: Callable[[Path], Changes]) -> Iterator[Draft]:
    """Yield a Draft whose new files are put into `folder`, all of them or none, when the block ends; the rest stays.

    `plan(new)` says then what they replace and remove, while no other writer of ours is at work there; it may take
    files out of `new` and put others in, and what it raises leaves `folder` as it was.
    """
    with full_disk_explained(folder), scratch_folder(folder) as scratch:
        draft = Draft(new=scratch.path / NEW, aside=scratch.path / "aside")
        draft.new.mkdir(mode=0o777)
        draft.aside.mkdir()
        yield draft
        flush_all(draft.new)
        with alone_in(scratch.home):
            changes = plan(draft.new)
            flush_all(draft.new)
            with held_back():
                if not _renamed(draft.new, folder) and not _exchanged(draft.new, folder, changes, scratch):
                    into = "." if scratch.home == folder else folder.name
                    carry_out(scratch, Moves(into=into, replaces=changes.replaces, removes=changes.removes))
                flush(folder.parent)


def remove_folder(path: Path) -> None:
    """Take away a folder that is the kit's own: at any moment, also after a kill, all of it is at `path` or nothing."""
    with scratch_folder(path) as scratch, held_back():
        os.rename(path, scratch.path / path.name)


@contextmanager
def full_disk_explained(path: Path) -> Iterator[None]:
    """Raise an error of a full disk as DiskFull, with what is left and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or isinstance(error, DiskFull):
            raise
        free = shutil.disk_usage(path.parent).free
        raise DiskFull(
            error.errno,
            f"The disk (or your share of it) filled up while writing {path.name}; {free / 1e9:.2f} GB were left in "
            f"{path.parent}. "
            "What was there before is unchanged. Free some space or choose another folder, then run this again",
        ) from error


def flush_all(folder: Path) -> None:
    """`scratch.flush` for a folder and all that is in it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            flush(path)
    flush(folder)


def names_in(folder: Path) -> list[str]:
    """The names of all files in a folder, relative to it and with slashes."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _followed(path: Path) -> Path:
    """The place a path leads to; a link that leads round in a circle is a place itself, to be replaced."""
    try:
        return path.resolve()
    except RuntimeError:
        return path.parent.resolve() / path.name


def _put(partial: Path, path: Path, scratch: Scratch) -> None:
    """Rename a finished folder to its final place, in exchange for what stands there.

    Another process may do the same at the same time: whoever renames last has the place.
    """
    while True:
        try:
            os.rename(partial, path)
            return
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        try:
            if exchange(partial, path):
                return
            (scratch.path / OLD).mkdir(exist_ok=True)
            os.replace(path, scratch.path / OLD / path.name)
        except FileNotFoundError:  # another process has just taken it away
            continue


def _renamed(new: Path, folder: Path) -> bool:
    """Whether there was no `folder` yet, so that `new` is it now."""
    if os.path.lexists(folder):
        return False
    os.rename(new, folder)
    return True


def _exchanged(new: Path, folder: Path, changes: Changes, scratch: Scratch) -> bool:
    """Put `new` in the place of a folder that holds nothing else, if nobody would miss the old one."""
    touched = {*changes.replaces, *changes.removes}
    known = touched | {str(parent) for name in touched for parent in PurePosixPath(name).parents}
    if scratch.home == folder or _is_worked_in(folder):
        return False
    if not all(path.relative_to(folder).as_posix() in known for path in folder.rglob("*")):
        return False
    there, here = folder.stat(), new.stat()
    if (there.st_uid, there.st_gid) != (here.st_uid, here.st_gid):
        return False
    new.chmod(stat.S_IMODE(there.st_mode))
    if not exchange(new, folder):
        return False
    for late in [path for path in new.iterdir() if path.name not in known]:  # saved there in the last moment
        if not os.path.lexists(folder / late.name):
            os.rename(late, folder / late.name)
    return True


def _is_worked_in(folder: Path) -> bool:
    """Whether this process has it, or a folder in it, as its working folder, which must not be taken away."""
    try:
        return Path.cwd().is_relative_to(folder)
    except FileNotFoundError:
        return False
