"""Run folders: one numbered folder per training run, with every event of the run as a line of `events.jsonl`.

What comes in are events, what goes out is a file a person, a dashboard or another process can read while the run goes
on. A file called `STOP` that anyone puts into the folder ends the run. Standard library only.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from .atomic import new_file
from .events import Event, RunEnded, RunStarted, Working, from_json, to_json

EVENTS_FILE = "events.jsonl"
STOP_FILE = "STOP"


def new_run_folder(output_dir: Path | str) -> Path:
    """Make and return the next free `run-001`, `run-002`, ... in `output_dir`."""
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.name[4:]) for path in run_folders(output_dir)), default=0)
    while True:
        try:
            (output_dir / f"run-{number:03d}").mkdir()
        except FileExistsError:  # another process took the number between the look and the mkdir
            number += 1
        else:
            return output_dir / f"run-{number:03d}"


def run_folders(output_dir: Path | str) -> list[Path]:
    """The run folders in `output_dir`, oldest first."""
    found = [path for path in Path(output_dir).glob("run-*") if path.name[4:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[4:]))


def event_log(run_folder: Path | str) -> Callable[[Event], None]:
    """A listener that appends each event to the run's `events.jsonl`, flushed line by line.

    `Working` is left out: it says what is going on, not what happened.
    """
    path = Path(run_folder) / EVENTS_FILE

    def keep(event: Event) -> None:
        if not isinstance(event, Working):
            with path.open("a", encoding="utf-8") as file:
                file.write(to_json(event) + "\n")

    return keep


def rewind(run_folder: Path | str, step: int) -> list[Event]:
    """Take out of a run's log what came after `step`, and its start and end, and return what is left.

    A run that is resumed at `step` takes the steps after it once more, so they must not be in the log twice.
    """
    run_folder = Path(run_folder)
    if not (run_folder / EVENTS_FILE).exists():
        return []
    kept: list[Event] = [
        event
        for event in read_events(run_folder)
        if event.step <= step and not isinstance(event, RunStarted | RunEnded)
    ]
    with new_file(run_folder / EVENTS_FILE) as partial:
        partial.write_text("".join(to_json(event) + "\n" for event in kept), encoding="utf-8")
    return kept


def read_events(run_folder: Path | str) -> Iterator[Event]:
    """The events of a run in order; a last line that is still being written is left out."""
    with (Path(run_folder) / EVENTS_FILE).open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield from_json(line)
