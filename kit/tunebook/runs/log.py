"""The log of a run: each event a line of `events.jsonl`, written as it happens, and rewound for a resume.

A disk that will not take a line gets it later. The learning rates someone asked for are in a sealed file of their own
as well (`learning_rates.py`). Nothing here ends a run.
"""

import errno
import os
import stat
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, final

from ..events import Event, LearningRateChanged, RunEnded, RunStarted, SampleEvent, Working
from ..machine.interrupts import held_back
from ..machine.private import FILE_MODE, new_private_file
from .learning_rates import RATES_FILE, keep_rates, with_sealed
from .log_lines import EVENTS_FILE, SAMPLES_FILE, line_of, sample_line, sound_lines

MOST_WAITING_BYTES = 8_000_000  # lines that wait in memory for a disk to take them


def event_log(
    run_folder: Path | str, say: Callable[[str], None] = warnings.warn, told: Sequence[Event] = ()
) -> Callable[[Event], None]:
    """A listener that appends each event to the run's `events.jsonl`, line by line, and samples to their own.

    `Working` is left out: it says what is going on, not what happened. Where the disk will not take a line, `say` is
    told so once, and once more when it does again and what was waiting is written. A log that is taken away is written
    anew with all that was `told`, where the teller keeps that.
    """
    return _EventLog(Path(run_folder), say, told)


@dataclass(frozen=True)
class Rewound:
    """What is left of a log, and what the run that goes on needs of it."""

    events: list[Event] = field(default_factory=list)  # up to the step, but for starts and ends
    rates_ahead: dict[int, float] = field(default_factory=dict)  # asked for before, from the step on
    notices: list[str] = field(default_factory=list)


def rewind(run_folder: Path | str, step: int, *, same_course: bool = True, rates_are_kept: bool = False) -> Rewound:
    """Take out of a run's log what came after `step`, and its start and end, and return what is left.

    A run that is resumed at `step` takes the steps after it once more, so they must not be in the log twice. Unless it
    is to take the `same_course`, the learning rates that were asked for after `step` are forgotten. Their file is
    missed if `rates_are_kept`, and made anew. A log that cannot be read or written is told of in a sentence.
    """
    run_folder = Path(run_folder)
    file = run_folder / EVENTS_FILE
    sound, notices = sound_lines(file)
    kept = [
        (line, event)
        for line, event in sound
        if event is None or (event.step <= step and not isinstance(event, RunStarted | RunEnded))
    ]
    changes = {
        event.step: (line, event.learning_rate) for line, event in sound if isinstance(event, LearningRateChanged)
    }
    logged = {after: rate for after, (_, rate) in changes.items()}
    rates, said = with_sealed(run_folder, logged, is_kept=rates_are_kept)
    notices += said
    ahead = {after: rate for after, rate in rates.items() if after >= step} if same_course else {}
    lines = [line for line, _ in kept]
    try:  # anew where it is damaged, or it would be in doubt at each resume
        keep_rates(run_folder, {after: rate for after, rate in rates.items() if after < step} | ahead)
    except OSError as error:
        notices.append(f"{RATES_FILE} could not be written ({error.strerror or error}).")
        # The log at least goes on telling of them.
        lines += [line for after, (line, _) in changes.items() if after in ahead and after > step]
    events: list[Event] = [event for _, event in kept if event is not None]
    if file.is_file():
        try:
            _replace(file, b"".join(lines))
            samples = (sample_line(event) for event in events if isinstance(event, SampleEvent))
            _replace(run_folder / SAMPLES_FILE, b"".join(samples))
        except OSError as error:
            notices.append(f"The log in {run_folder} could not be taken back to step {step} ({error}) and tells twice.")
    return Rewound(events, ahead, notices)


@final
class _EventLog:
    """Appends lines to the files of a run folder; those a disk does not take wait for the next event."""

    def __init__(self, run_folder: Path, say: Callable[[str], None], told: Sequence[Event]):
        self._folder, self._say, self._told = run_folder, say, told
        self._file: BinaryIO | None = None  # the one written to; open, so that no other gets its inode
        self._waiting: dict[str, list[bytes]] = {EVENTS_FILE: [], SAMPLES_FILE: []}
        self._lost = 0  # lines that waited, and were more than MOST_WAITING_BYTES
        self._rates: dict[int, float] = {}  # that are not in their file yet
        self._failing = False

    def __del__(self):
        self._close()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Working):
            return
        self._waiting[EVENTS_FILE].append(line_of(event))
        if isinstance(event, SampleEvent):
            self._waiting[SAMPLES_FILE].append(sample_line(event))
        if isinstance(event, LearningRateChanged):
            self._rates[event.step] = event.learning_rate
        try:
            with held_back():  # a line that an interrupt cut off would be a step that the record of the run lacks
                self._write()
        except OSError as error:
            self._forget_what_is_too_much()
            if not self._failing:
                self._failing = True
                self._say(self._why(error))
            return
        if isinstance(event, RunEnded):
            self._close()
        if self._failing:
            self._failing = False
            lost = f"; {self._lost} lines were more than could wait, and are missing" if self._lost else ""
            self._lost = 0
            self._say(f"The log of this run is written again to {self._folder}, with what had to wait{lost}.")

    def _why(self, error: OSError) -> str:
        if not self._folder.is_dir():
            return (
                f"{self._folder}, the folder of this run, is gone. Training goes on, and the next checkpoint makes it "
                "anew, with what was said before; the checkpoints that were in it are lost."
            )
        return (
            f"The log of this run cannot be written to {self._folder} ({error.strerror}). Training goes on, "
            "and what is missing is written when it can be; free some space, or see who may write there."
        )

    def _write(self) -> None:
        self._see_to_the_file()
        if self._rates:
            # With all that was told before: the file may have been taken away or damaged in the meantime.
            known, _ = with_sealed(self._folder, _rates_in(self._told), is_kept=False)
            keep_rates(self._folder, known | self._rates)
            self._rates = {}
        for name, lines in self._waiting.items():
            if lines:
                _append(self._folder / name, b"".join(lines))
                lines.clear()
        if self._file is None:
            self._file = (self._folder / EVENTS_FILE).open("rb")

    def _see_to_the_file(self) -> None:
        """Have all of the log wait to be written where its file was taken away. Raises OSError where it is another."""
        if self._file is None or not self._folder.is_dir():
            return
        try:
            there = os.stat(self._folder / EVENTS_FILE)
        except FileNotFoundError:
            if self._told:
                self._waiting[EVENTS_FILE] = [line_of(event) for event in self._told]
                if not (self._folder / SAMPLES_FILE).exists():
                    samples = [event for event in self._told if isinstance(event, SampleEvent)]
                    self._waiting[SAMPLES_FILE] = [sample_line(event) for event in samples]
                self._rates = _rates_in(self._told)
            self._close()
            self._lost = 0
            return
        if not os.path.samestat(there, os.fstat(self._file.fileno())):
            raise OSError(errno.ESTALE, f"{EVENTS_FILE} there is another file now")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _forget_what_is_too_much(self) -> None:
        for lines in self._waiting.values():
            size = sum(map(len, lines))
            while size > MOST_WAITING_BYTES:
                size -= len(lines.pop(0))
                self._lost += 1


def _rates_in(events: Sequence[Event]) -> dict[int, float]:
    return {event.step: event.learning_rate for event in events if isinstance(event, LearningRateChanged)}


def _append(path: Path, content: bytes) -> None:
    """Write all of `content` behind what is there, or nothing of it."""
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, FILE_MODE)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):  # to open a pipe and read it would wait for ever
            raise OSError(errno.EINVAL, f"{path.name} there is no file")
        size = status.st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            content = b"\n" + content  # behind a line whose writer was killed
        try:
            while content:
                content = content[os.write(handle, content) :]
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)


def _replace(path: Path, content: bytes) -> None:
    with new_private_file(path) as partial:
        partial.write_bytes(content)
