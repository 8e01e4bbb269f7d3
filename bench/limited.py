"""Odd inputs, each tried in a forked child that is held to limits of time and memory, and what became of them, counted.

Time is that of a processor: a loaded machine condemns nothing. A process that calls this must run nothing on MLX
itself, whose threads survive no fork; `prepare` does in a child what needs MLX beforehand. Not on Windows.
"""

import io
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

SECONDS, MEGABYTES = 5, 500
STUCK = 600  # seconds by the clock; what waits for good uses no processor, and a loaded machine gives little of it
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of ru_maxrss
Task = Callable[[], object]


def is_refusal(error: Exception) -> bool:
    """Whether the kit itself raised it, in one sentence of a length to read."""
    last, text = traceback.extract_tb(error.__traceback__)[-1], str(error)
    ours = "tunebook" in Path(last.filename).parts
    return ours and "\n" not in text and 20 < len(text) < 1000 and text.endswith((".", ")"))


def outcome(task: Task, refusals: tuple[type[Exception], ...] = (ValueError, FileNotFoundError)) -> str:
    """What `task` says; "refused" where it raised one of `refusals` in a sentence; or what went wrong."""
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ear)
        os.write(mouth, _said(task, refusals).encode("utf-8", "replace")[:4000])
        os._exit(0)
    os.close(mouth)
    with os.fdopen(ear, "rb") as pipe:
        said = pipe.read().decode("utf-8", "replace")
    _, status, used = os.wait4(child, 0)
    seconds = used.ru_utime + used.ru_stime
    if status or not said:
        return f"died with status {status} after {seconds:.1f} s of a processor"
    return said if seconds < SECONDS else f"{seconds:.1f} s of a processor ({said})"


def _said(task: Task, refusals: tuple[type[Exception], ...]) -> str:
    """The child's part: it never returns to the parent's code, whatever the task does."""
    signal.alarm(STUCK)
    resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 2 * SECONDS))
    pages = Path("/proc/self/statm")
    if pages.exists():  # the machine is not to be brought down by what is looked for
        most = int(pages.read_text().split()[0]) * resource.getpagesize() + (6 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            said = str(task())
    except BaseException as error:  # noqa: BLE001 (what else there is, is what is looked for)
        said = f"{type(error).__name__}: {str(error)[:300]!r}"
        if isinstance(error, refusals) and is_refusal(error):
            said = f"refused {error}" if os.environ.get("SHOW") else "refused"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * RSS_UNIT / 1e6
    return said if grown < MEGABYTES else f"{grown:.0f} MB ({said})"


def prepare(task: Task) -> None:
    """Run `task` in a child without limits; ends this program where it fails."""
    child = multiprocessing.get_context("fork").Process(target=task)
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit("What the trials start from could not be made; the reason stands above.")


def count_outcomes(trials: Iterable[tuple[str, str]], right: tuple[str, ...], what: str = "tried") -> int:
    """Take (what was tried, its outcome) of each trial; print every outcome that is none of `right`, and the counts.

    Returns the exit status of a program: 1 where there is one of the others.
    """
    found: Counter[str] = Counter()
    for name, said in trials:
        if said not in right:
            print(f"{name}: {said}", flush=True)
        found[said if said in right else "wrong"] += 1
    print(f"{found.total()} {what}: {dict(found)}", flush=True)
    return 1 if found["wrong"] else 0
