"""What a run and those who watch it from elsewhere leave for one another in the run folder, as small files.

Commands go in, from any number of senders, each a file of its own in `asked/` that appears whole; the run takes them
out, and says in `now.json` which it has heard and what it is computing. Whoever can write to the folder can steer the
run, and can do no more than that: of a file only the name of a command and one number are read, what is no command is
named and left aside, and what is not recognised as a file of the kit is not touched.
"""

import json
import os
import re
import secrets
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from ..events import Command, Request, Working
from ..machine.inert import one_line
from ..machine.private import FILE_MODE, FOLDER_MODE

ASKED_FOLDER = "asked"
NOW_FILE = "now.json"

_NAME = re.compile(r"\d{19,20}-\d+-[0-9a-f]{8}\.json")
_MOST_BYTES = 4096
_MOST_AT_ONCE = 64  # of files that are looked at; the others wait for the next time


def post(run_folder: Path, request: Request) -> None:
    """Leave a command for the run in `run_folder`. Raises OSError where there is no such folder or no room in it."""
    folder = run_folder / ASKED_FOLDER
    name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}.json"  # in the order they were asked
    content = json.dumps({"command": request.command.value, "value": request.value}).encode()
    try:
        _write(folder, name, content)
    except FileNotFoundError:  # the first, or a run that has just ended took the empty folder away
        with suppress(FileExistsError):
            folder.mkdir(FOLDER_MODE)
        _write(folder, name, content)


@final
class Mailbox:
    """The commands that are left for the run in a folder."""

    def __init__(self, run_folder: Path):
        self._folder = run_folder / ASKED_FOLDER
        self._strange: set[str] = set()  # names of what is none of ours, and was told of

    def take(self, since: float = 0.0) -> tuple[list[Request], list[str]]:
        """(commands, oldest first, sentences on what is none); what is recognised is taken away.

        What was left before `since`, a time of the file system's in seconds, was meant for the run before.
        """
        requests, said = [], []
        for name in self._names():
            try:
                content, at = _read(self._folder / name)
            except FileNotFoundError:
                continue  # another has taken it
            except (OSError, ValueError):
                self._strange.add(name)
                said.append(f"{self._folder / name} is no command of tunebook's, and stays where it is.")
                continue
            (self._folder / name).unlink(missing_ok=True)
            try:
                request = _request(content)
            except ValueError as error:
                said.append(f"A command was left aside: {error}")
                continue
            if at < since:
                said.append(f"{request.command} was asked for before this run went on, and is left aside.")
            else:
                requests.append(request)
        return requests, said

    def close(self) -> None:
        """Take the folder away where nothing is in it."""
        try:
            self._folder.rmdir()
        except OSError:
            return

    def _names(self) -> list[str]:
        try:
            names = os.listdir(self._folder)
        except OSError:
            return []
        return sorted(name for name in names if _NAME.fullmatch(name) and name not in self._strange)[:_MOST_AT_ONCE]


@dataclass(frozen=True)
class Now:
    """What a run says of the moment."""

    events: int  # it has told since its RunStarted, that among them
    working: Working | None
    heard: Sequence[tuple[int, Command, float | None]]  # number, command and value of what is heard and not yet told


def say_now(run_folder: Path, now: Now) -> None:
    """Put `now` in the place of what was said before. Raises OSError where it cannot be written."""
    working = None if now.working is None else asdict(now.working)
    plain = {"events": now.events, "working": working, "heard": [list(heard) for heard in now.heard]}
    _write(run_folder, NOW_FILE, json.dumps(plain).encode())


def read_now(run_folder: Path) -> Now | None:
    """What the run in `run_folder` said last of the moment; None where that is nothing, or nothing that is known."""
    try:
        plain, _ = _read(run_folder / NOW_FILE)
        working = plain["working"]
        return Now(
            events=int(plain["events"]),
            working=None if working is None else _working(working),
            heard=[
                (int(number), Command(name), None if value is None else float(value))
                for number, name, value in plain["heard"]
            ],
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def nothing_more(run_folder: Path) -> None:
    """Take away what was said of the moment."""
    try:
        (run_folder / NOW_FILE).unlink(missing_ok=True)
    except OSError:
        return


def _write(folder: Path, name: str, content: bytes) -> None:
    """A file that appears whole. It is not flushed to the disk: after a power cut nobody asks for it."""
    partial = folder / f".{name}-{secrets.token_hex(4)}"
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        try:
            os.write(handle, content)
        finally:
            os.close(handle)
        os.replace(partial, folder / name)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _read(path: Path) -> tuple[dict[str, Any], float]:
    """(a small JSON object, when its file was written). Raises ValueError for anything else."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            raise ValueError(f"{path.name} is no small file.")
        plain = json.loads(os.read(handle, _MOST_BYTES))
    except RecursionError as error:
        raise ValueError(f"{path.name} is no record.") from error
    finally:
        os.close(handle)
    if not isinstance(plain, dict):
        raise ValueError(f"{path.name} is no record.")
    return plain, status.st_mtime


def _request(plain: dict[str, Any]) -> Request:
    """Raises ValueError, with what was asked for, where that is nothing a run can do."""
    name, value = plain.get("command"), plain.get("value")
    if name not in list(Command):
        raise ValueError(f"{one_line(repr(name)):.60} is none of {', '.join(Command)}.")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"{name} with {one_line(repr(value)):.60}, which is no number.")
    return Request(Command(name), value)


def _working(plain: dict[str, Any]) -> Working:
    step, done, total = (int(plain[name]) for name in ("step", "done", "total"))
    return Working(step=step, what=str(plain["what"]), done=done, total=total)
