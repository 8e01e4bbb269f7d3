"""Processes that begin with everything imported, in a tenth of the time: forked from one that has done only that.

multiprocessing's forkserver imports a module of tests once; each process then calls its `main`. To be waited for and
killed as `subprocess.Popen` is.
"""

import faulthandler
import importlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import final

PRELOADED = [f"tests.makers.processes.{name}" for name in ("dying_child", "ranks_child", "program")]


@final
class Forked:
    """One process."""

    def __init__(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], *, out: Path, errors: Path
    ):
        """`main(arguments)` of `module`, in this very folder, with `environment` in place of this process's own.

        It is a session of its own; what it writes goes to the end of `out` and of `errors`.
        """
        if module not in PRELOADED:
            raise ValueError(f"{module} is not preloaded; add it to PRELOADED.")
        context = get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._out = out
        task = (module, list(arguments), dict(environment), os.getcwd(), (str(out), str(errors)))
        self._process: ForkServerProcess = context.Process(target=_begun, args=task, daemon=True)
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
        """What is in `out`, once it has ended. Raises subprocess.TimeoutExpired."""
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
    module: str, arguments: Sequence[str], environment: Mapping[str, str], folder: str, streams: tuple[str, str]
) -> None:
    for stream, file in zip((1, 2), streams, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    faulthandler.enable()
    importlib.import_module(module).main(list(arguments))
    sys.stdout.flush()
