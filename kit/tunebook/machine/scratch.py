"""Folders in which things are written before they have their place, and what becomes of those whose writer died.

A scratch folder `NAME.partial-1f0c9a2e` stands beside the place it is for, in plain sight, and holds a file that says
what it is and is locked for as long as its writer lives. Whoever writes beside it next removes the ones that nobody
holds: the system lets go of a lock when a process dies, however it dies. A folder without that file is not touched.

Files that belong together are moved into a folder of other things one by one, and so the moves are written down first
(`Moves`). A list whose writer died is gone through to its end by the next writer or reader: a file is then replaced or
removed only while it is the one that was on the list, by its digest, and never outside the folder.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from .interrupts import held_back

ABOUT = "what-is-this.txt"
NEW, OLD, MOVES = "new", "old", "moves.json"

_SAYS = (
    "This folder holds what Tunebook is writing. Once nothing is being written any more it is a leftover of a process "
    "that was killed: the next thing written beside it removes it, and so may you.\n"
)
_NAME = re.compile(r".+\.partial-[0-9a-f]{8}", re.DOTALL)
_LONGEST = 200  # bytes of a name that are kept; file systems take 255 in all


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """A scratch folder of this process."""

    path: Path
    home: Path  # the folder it stands in


@dataclass(frozen=True, kw_only=True)
class Moves:
    """What is to become of the files of a folder; names are relative to it, with slashes."""

    into: str  # the folder's name beside the scratch folder; "." for the one around it
    replaces: dict[str, str | None]  # name -> the sha256 of the file that stands there; None: nothing does
    removes: dict[str, str]


@contextmanager
def scratch_folder(place: Path) -> Iterator[Scratch]:
    """Make a scratch folder for what is to be at `place`, on its file system, and remove it when the block ends.

    It stands beside `place`, or inside it where only there can be written. Leftovers of others are put right first.
    """
    home, lock = _home(place), None
    path = home / f"{_short(place.name or home.name)}.partial-{secrets.token_hex(4)}"
    try:
        with alone_in(home) as alone:
            if alone:
                put_right(home)
            with held_back():  # one that an interrupt left locked would be nobody's for as long as this process lives
                path.mkdir(mode=0o700)
                lock = _locked(path)
        yield Scratch(path=path, home=home)
    finally:
        with held_back():
            if lock is not None:
                if not (path / MOVES).exists():
                    _remove(path)
                os.close(lock)


def put_right(home: Path) -> None:
    """Finish what writers that died had begun to move in `home`, and remove what they left; call it alone there."""
    for path in _scratch_folders(home):
        if (lock := _lock_of_dead(path)) is None:
            continue
        try:
            _finish_dead(path, home)
            _remove(path)
        except OSError:  # another user's, who will put it right
            pass
        finally:
            os.close(lock)


def recover(place: Path) -> None:
    """Before `place` is read: put right what a writer of it left half done when it was killed."""
    place = place.resolve()
    for home in (place.parent, place) if place.is_dir() else ():
        recover_in(home)


def recover_in(home: Path) -> None:
    """Put right what writers of something in `home` left half done when they were killed."""
    if home.is_dir() and os.access(home, os.W_OK) and any(_scratch_folders(home)):
        with alone_in(home) as alone:
            if alone:
                put_right(home)


def carry_out(scratch: Scratch, moves: Moves) -> None:
    """Write `moves` down and make them: from then on they are made, here or by whoever comes next."""
    document = scratch.path / MOVES
    with held_back():
        partial = scratch.path / f"{MOVES}.partial"
        partial.write_text(json.dumps(asdict(moves)), encoding="utf-8")
        flush(partial)
        os.replace(partial, document)
        flush(scratch.path)
        _finish(scratch.path, scratch.home, moves, trusting=True)
        document.unlink()


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Wait until no other writer of ours is in a block for `folder`; False where the file system has no locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def digest(path: Path) -> str | None:
    """The sha256 of a file; None where there is none, or something else than a file."""
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """fsync a file or folder, so that a rename is never on the disk before what it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _home(place: Path) -> Path:
    """The folder a scratch folder for `place` is made in: renames work only within one file system."""
    parent = place.parent
    parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir() and (not os.access(parent, os.W_OK) or place.stat().st_dev != parent.stat().st_dev):
        return place
    return parent


def _short(name: str) -> str:
    while len(os.fsencode(name)) > _LONGEST:
        name = name[:-1]
    return name


def _scratch_folders(home: Path) -> list[Path]:
    with os.scandir(home) as entries:
        return [
            Path(entry.path)
            for entry in entries
            if ".partial-" in entry.name and _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]


def _locked(path: Path) -> int:
    """The lock of a new scratch folder, held by this process."""
    lock = os.open(path / ABOUT, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with suppress(OSError):  # where there are no locks, nothing is taken for a leftover either
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        os.write(lock, _SAYS.encode())
    except OSError:
        _remove(path)
        os.close(lock)
        raise
    return lock


def _lock_of_dead(path: Path) -> int | None:
    """The lock of a scratch folder whose writer is dead; None for one whose writer lives, and for what is not ours."""
    with suppress(OSError):
        path.rmdir()  # its writer died before it could say what it is, and nothing is lost with it
        return None
    try:
        lock = os.open(path / ABOUT, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _SAYS.encode().startswith(os.read(lock, len(_SAYS.encode()) + 1)):
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


def _finish_dead(path: Path, home: Path) -> None:
    """What a dead writer had decided on: a list of moves, or the second of two renames."""
    if (path / MOVES).is_file():
        moves = _moves_in(path / MOVES)
        if moves is not None:
            _finish(path, home, moves, trusting=False)
        (path / MOVES).unlink()
        return
    for new in (path / NEW).glob("*") if (path / OLD).is_dir() else ():
        if (path / OLD / new.name).exists() and not os.path.lexists(home / new.name):
            os.rename(new, home / new.name)


def _moves_in(path: Path) -> Moves | None:
    """None for what is no list of ours."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        moves = Moves(**document)
        is_name = moves.into == "." or (_is_inside(moves.into) and "/" not in moves.into)
        return moves if is_name and all(map(_is_inside, [*moves.replaces, *moves.removes])) else None
    except (ValueError, TypeError):
        return None


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _finish(path: Path, home: Path, moves: Moves, *, trusting: bool) -> None:
    """Make those of `moves` that are not made yet; `trusting` that the folder is as it was a moment ago."""
    folder = home if moves.into == "." else home / moves.into
    if folder.is_symlink() or not folder.is_dir():
        return
    touched = {folder}
    for name, old in moves.replaces.items():
        new, there = path / NEW / name, folder / name
        if not new.is_file() or new.is_symlink() or _leads_out(folder, name):
            continue
        if trusting or not os.path.lexists(there) or (old is not None and digest(there) == old):
            there.parent.mkdir(parents=True, exist_ok=True)
            os.replace(new, there)
            touched.add(there.parent)
    for name, old in moves.removes.items():
        there = folder / name
        if not _leads_out(folder, name) and os.path.lexists(there) and (trusting or digest(there) == old):
            there.unlink()
            touched.add(there.parent)
            if there.parent != folder:
                with suppress(OSError):  # something else is in it
                    there.parent.rmdir()
    for changed in touched:
        if changed.is_dir():
            flush(changed)


def _leads_out(folder: Path, name: str) -> bool:
    """Whether a folder on the way to `name` is a link to elsewhere."""
    return any((folder / parent).is_symlink() for parent in PurePosixPath(name).parents if parent.parts)


def _remove(path: Path) -> None:
    """Remove a scratch folder, and what says that it is one last, so that it can be told for one until then."""
    for entry in path.iterdir():
        if entry.name == ABOUT:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    (path / ABOUT).unlink()
    with suppress(FileNotFoundError):  # empty as it is, another writer may take it away too
        path.rmdir()
