"""Processes that begin with everything imported, in a tenth of the time: forked from one that has done only that.

multiprocessing's forkserver imports a module of tests once; each process then calls its `main`. To be waited for and
killed as `subprocess.Popen` is.
"""

import faulthandler
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import final

PRELOADED = ["tests.makers.processes.dying_child", "tests.makers.processes.ranks_child"]


@final
class Forked:
    """One process, and all it wrote."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        out: Path | None = None,
        errors: Path | None = None,
    ):
        """`main(arguments)` of `module`, in this very folder, with `environment` in place of this process's own.

        What it writes goes to the end of `out` and of `errors`, and the process is then a session of its own; without
        them both go where `communicate` finds them.
        """
        if module not in PRELOADED:
            raise ValueError(f"{module} is not preloaded; add it to PRELOADED.")
        context = get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        if out is None:
            handle, wrote = tempfile.mkstemp(prefix="forked-", suffix=".log")
            os.close(handle)
        self._out = Path(wrote) if out is None else out
        streams = (str(self._out), str(errors or self._out))
        task = (module, list(arguments), dict(environment), os.getcwd(), streams, out is not None)
        self._process: ForkServerProcess = context.Process(target=_begun, args=task)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """All it wrote, once it has ended. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return self._out.read_text(errors="replace"), None

    def wait(self) -> None:
        self._process.join()

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _begun(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
    streams: tuple[str, str],
    alone: bool,
) -> None:
    for stream, file in zip((1, 2), streams, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
    if alone:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    faulthandler.enable()
    importlib.import_module(module).main(list(arguments))
    sys.stdout.flush()
