"""The processes of a job: how those that train it and its supervisor are started, and where what they write goes.

All are sessions of their own, so that no signal of a notebook's kernel or of a closed terminal reaches them, and none
has a file of the kernel open: nothing they write appears in a notebook.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..machine.private import FILE_MODE
from ..runs.looked_after.state import PROCESS
from ..train.ranks.launch import environments, launching, threads_of_each
from .layout import ERRORS, HOSTS, OUT, SUPERVISOR_ERRORS, Order


@dataclass(frozen=True)
class Child:
    """One of the processes that train a job, or mlx.launch, which starts them all."""

    process: "subprocess.Popen[bytes]"
    errors: Path  # what it writes to stderr goes to the end of this file
    launches: bool = False

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None


def start_children(folder: Path, order: Order) -> list[Child]:
    """Start the processes that train the job in `folder`, by rank. Raises OSError where one cannot be started."""
    command = ["-m", "tunebook", "train", str(folder), "--supervised"]
    hostfile = folder / PROCESS / HOSTS
    if order.hosts:
        hostfile.write_text(order.hosts)
        return [_launched(launching([sys.executable, *command], hostfile), folder / PROCESS)]
    if order.processes == 1:
        return [_child(folder / PROCESS, 0, command, {})]
    shared = threads_of_each(order.processes)
    ranks = environments(order.processes, hostfile)
    return [_child(folder / PROCESS, rank, command, {**shared, **own}) for rank, own in enumerate(ranks)]


def start_supervisor(folder: Path) -> "subprocess.Popen[bytes]":
    """Start the process that looks after the job in `folder`."""
    errors = folder / PROCESS / SUPERVISOR_ERRORS
    return _started(
        [sys.executable, "-m", "tunebook", "supervise", str(folder), "--wanted-elsewhere"], errors, errors, {}
    )


def _child(process: Path, rank: int, command: Sequence[str], environment: Mapping[str, str]) -> Child:
    out, errors = (process / (name if rank == 0 else f"{name}.{rank}") for name in (OUT, ERRORS))
    return Child(_started([sys.executable, *command], out, errors, environment), errors)


def _launched(command: Sequence[str], process: Path) -> Child:
    # mlx.launch hands on what it reads, again and again where nothing comes any more: it has both ends of its pipe.
    read, write = os.pipe()
    try:
        started = _started(command, process / OUT, process / ERRORS, {}, stdin=read, pass_fds=(write,))
    finally:
        os.close(read)
        os.close(write)
    return Child(started, process / ERRORS, launches=True)


def _started(
    command: Sequence[str],
    out: Path,
    errors: Path,
    environment: Mapping[str, str],
    *,
    stdin: int = subprocess.DEVNULL,
    pass_fds: tuple[int, ...] = (),
) -> "subprocess.Popen[bytes]":
    # The tunebook that is here, wherever the kernel found it.
    kit = str(Path(__file__).parents[2])
    paths = [kit, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    variables = {
        **os.environ,
        **environment,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    with _appended(out) as written, _appended(errors) as said:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=written,
            stderr=said,
            env=variables,
            start_new_session=True,
            pass_fds=pass_fds,
        )


def _appended(file: Path):
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE), "ab")
