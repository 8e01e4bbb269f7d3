"""The processes of a job: how its child and its supervisor are started, and where what they write goes.

Both are sessions of their own, so that no signal of a notebook's kernel or of a closed terminal reaches them, and
neither has a file of the kernel open: nothing they write appears in a notebook.
"""

import os
import subprocess
import sys
from pathlib import Path

from ..machine.private import FILE_MODE
from .layout import ERRORS, OUT, PROCESS, SUPERVISOR_ERRORS


def start_child(folder: Path) -> "subprocess.Popen[bytes]":
    """Start the process that trains the job in `folder`. Several of one job would stand in its place here."""
    return _started(["train", str(folder), "--supervised"], folder / PROCESS / OUT, folder / PROCESS / ERRORS)


def start_supervisor(folder: Path) -> "subprocess.Popen[bytes]":
    """Start the process that looks after the job in `folder`."""
    errors = folder / PROCESS / SUPERVISOR_ERRORS
    return _started(["supervise", str(folder), "--wanted-elsewhere"], errors, errors)


def _started(arguments: list[str], out: Path, errors: Path) -> "subprocess.Popen[bytes]":
    # The tunebook that is here, wherever the kernel found it.
    kit = str(Path(__file__).parents[2])
    paths = [kit, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    with _appended(out) as written, _appended(errors) as said:
        return subprocess.Popen(
            [sys.executable, "-m", "tunebook", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=said,
            env=environment,
            start_new_session=True,
        )


def _appended(file: Path):
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE), "ab")
