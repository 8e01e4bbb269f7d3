"""What is read back is what was written: JSON documents and folders that carry digests of their own content.

A document or a folder goes in and is sealed; what comes out is its content, or Damaged, one exception for all that can
become of a file: cut, flipped, emptied, gone, a folder in its place, not to be read, another user's. A seal tells
accidents, and what other users of the machine put in place; whoever may write here could write a seal as well.
"""

import hashlib
import json
import os
import stat
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

SEAL = "seal.json"
MOST_JSON_BYTES = 64_000_000  # of a document; a longer one is not what the kit wrote
LARGE_BYTES = 256_000_000  # a file as large is digested again only when its inode says that it was touched

_OWN_DIGEST = "sha256 of the rest"


class Damaged(ValueError):
    """What was read is not what was written."""


def sealed_json(document: Mapping[str, Any]) -> str:
    """`document`, plain values, as JSON that `unsealed` knows to be whole."""
    plain = json.loads(json.dumps(document))
    return json.dumps({**plain, _OWN_DIGEST: _digest_of(plain)}, indent=2) + "\n"


def unsealed(path: Path) -> tuple[dict[str, Any], bool]:
    """(document, whether it had a seal) of a JSON file.

    Raises Damaged for one that is no object or whose seal is broken. Documents
    of earlier versions have no seal; whether one without may be taken is for the caller to say.
    """
    content = read_bytes(path, most=MOST_JSON_BYTES)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        raise Damaged(f"{path.name} is no JSON ({type(error).__name__})") from error
    if not isinstance(document, dict):
        raise Damaged(f"{path.name} holds a {type(document).__name__} in place of an object")
    digest = document.pop(_OWN_DIGEST, None)
    if digest is not None and digest != _digest_of(document):
        raise Damaged(f"{path.name} changed since it was written")
    return document, digest is not None


def read_bytes(path: Path, *, most: int) -> bytes:
    """A file's content. Raises Damaged for what is no file, cannot be read or is longer than `most` bytes."""
    try:
        with _opened(path) as file:
            content = file.read(most + 1)
    except OSError as error:
        raise Damaged(_why(path, error)) from error
    if len(content) > most:
        raise Damaged(f"{path.name} is longer than {most} bytes")
    return content


def digest_of_file(path: Path) -> str:
    """The SHA-256 of a file, 1 to 2 GB a second. Raises Damaged for what is no file or cannot be read."""
    try:
        with _opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Damaged(_why(path, error)) from error


def digest_of_code(*folders: Path) -> str:
    """The SHA-256 of all Python below `folders`: what is kept and depends on it is not found once it is other code."""
    files = [file for folder in folders for file in folder.rglob("*.py")]
    return hashlib.sha256(b"\n".join(file.read_bytes() for file in sorted(files))).hexdigest()


def seal(folder: Path) -> None:
    """Write the seal of `folder`, whose files are complete."""
    files = {name: _facts(folder / name) for name in sorted(_names_in(folder))}
    (folder / SEAL).write_text(sealed_json({"files": files}))


@final
class SealedFolder:
    """A folder that `seal` was called for.

    Raises Damaged when it has no seal, holds other files than the seal names (hidden ones aside) or is another user's.
    Each file is held against its digest when it is read, opened or checked. One of LARGE_BYTES or more that nothing
    was written to since it was sealed, as far as its inode tells, is not digested again.
    """

    def __init__(self, folder: Path):
        document, is_sealed = unsealed(folder / SEAL)
        files = document.get("files")
        if not is_sealed or not isinstance(files, dict):
            raise Damaged(f"{SEAL} is no seal")
        self._folder, self._files = folder, files
        try:
            names = _names_in(folder)
            others = [name for name in ("", *names) if not is_own(folder / name)]
        except OSError as error:
            raise Damaged(_why(folder, error)) from error
        if odd := names ^ {*files, SEAL}:
            raise Damaged(f"{', '.join(sorted(odd))} should be there, or should not")
        if others:
            raise Damaged(f"{', '.join(others) or folder.name} belongs to another user")

    def check(self) -> None:
        """Raise Damaged unless every file is the one that was sealed."""
        for name in self._files:
            self._check(name, self._folder / name)

    def read(self, name: str) -> bytes:
        """The content of a small file, which is read once: what was digested is what is returned."""
        content = read_bytes(self._folder / name, most=max(self._size(name), 0))
        if hashlib.sha256(content).hexdigest() != self._files[name]["sha256"]:
            raise Damaged(f"{name} changed since it was written")
        return content

    def open(self, name: str) -> "OpenFile":
        """A file to read pieces of, its content digested as a whole."""
        file = OpenFile(self._folder / name)
        self._check(name, self._folder / name)
        return file

    def _size(self, name: str) -> int:
        if name not in self._files:
            raise Damaged(f"the seal knows of no {name}")
        return self._files[name]["size"]

    def _check(self, name: str, path: Path) -> None:
        size, sealed = self._size(name), self._files[name]
        try:
            status = path.stat()
        except OSError as error:
            raise Damaged(_why(path, error)) from error
        if status.st_size != size:
            raise Damaged(f"{name} has {status.st_size} bytes in place of {size}")
        if size >= LARGE_BYTES and _stamp(status) == sealed["stamp"]:
            return
        if digest_of_file(path) != sealed["sha256"]:
            raise Damaged(f"{name} changed since it was written")


@final
class OpenFile:
    """A file that stays open until this object goes, also when its name is taken away.

    It is not mapped: where a mapped file is cut short, whoever reads on is killed.
    """

    def __init__(self, path: Path):
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise Damaged(_why(path, error)) from error
        weakref.finalize(self, os.close, self._handle)
        self._path = path

    def read(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`. Raises Damaged when they are not all there."""
        try:
            piece = os.pread(self._handle, stop - start, start)
        except OSError as error:
            raise Damaged(_why(self._path, error)) from error
        if len(piece) != stop - start:
            raise Damaged(f"{self._path.name} was cut short while it was in use")
        return piece


def is_own(path: Path) -> bool:
    """Whether `path` is this user's, or the administrator's; what others put there is not to be trusted."""
    return path.lstat().st_uid in (os.geteuid(), 0)


def _opened(path: Path):
    """Raises OSError, also for a pipe or a folder, which is not waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = os.fdopen(handle, "rb")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise OSError(f"{path.name} is no file")
    return file


def _names_in(folder: Path) -> set[str]:
    """The files in a folder and below it, hidden ones aside; a link is one, wherever it leads."""
    found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return {path.relative_to(folder).as_posix() for path in found if not path.name.startswith(".")}


def _facts(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"sha256": digest_of_file(path), "size": status.st_size, "stamp": _stamp(status)}


def _stamp(status: os.stat_result) -> list[int]:
    """What changes when anything is written to a file; nobody can set the last."""
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _digest_of(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _why(path: Path, error: OSError) -> str:
    return f"{path.name} cannot be read ({error.strerror or error})"
