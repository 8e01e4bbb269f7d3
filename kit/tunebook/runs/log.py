"""The log of a run: each event a line of `events.jsonl`, written as it happens, read back, and rewound for a resume.

Each line carries a checksum, and the learning rates someone asked for, which decide numbers of a resumed run, are in a
sealed file of their own as well. A damaged line and what only a newer version knows are passed over and counted in one
sentence; a disk that will not take a line gets it later. Nothing here ends a run, and all that keeps one from going on
by itself is a rate that may be lost with both of its files.
"""

import errno
import json
import os
import re
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, final

from ..events import (
    Event,
    LearningRateChanged,
    Notice,
    RunEnded,
    RunStarted,
    SampleEvent,
    StepEvent,
    UnknownEvent,
    Working,
    parsed,
    to_json,
)
from ..machine.interrupts import held_back
from ..machine.private import FILE_MODE, new_private_file
from ..machine.sealed import Damaged, sealed_json, unsealed

EVENTS_FILE = "events.jsonl"
SAMPLES_FILE = "samples.jsonl"
RATES_FILE = "learning_rates.json"

MOST_LINE_BYTES = 16_000_000  # a longer line is none of ours
MOST_WAITING_BYTES = 8_000_000  # lines that wait in memory for a disk to take them

_CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"}\n$')


class LearningRatesLost(ValueError):
    """A learning rate someone asked for may be in no file that can still be read."""


def event_log(
    run_folder: Path | str, say: Callable[[str], None] = warnings.warn, told: Sequence[Event] = ()
) -> Callable[[Event], None]:
    """A listener that appends each event to the run's `events.jsonl`, line by line, and samples to their own.

    `Working` is left out: it says what is going on, not what happened. Where the disk will not take a line, `say` is
    told so once, and once more when it does again and what was waiting is written. A log that is taken away is written
    anew with all that was `told`, where the teller keeps that.
    """
    return _EventLog(Path(run_folder), say, told)


def read_events(path: Path | str) -> Iterator[Event]:
    """The events of a run, from its folder or its events.jsonl; a last line that is still being written is left out.

    Where lines were passed over, being damaged or of a newer version, a Notice behind the last event counts them.
    Raises FileNotFoundError where there is no log.
    """
    file, odd, step = log_of(Path(path)), _Odd(), 0
    for _, event in _lines_in(file, odd):
        if event is not None:
            step = event.step
            yield event
    if sentence := odd.sentence(file):
        yield Notice(step=step, text=sentence)


def last_events(path: Path | str, most_bytes: int = 256_000) -> list[Event]:
    """The events in the last `most_bytes` of a log, of lines that are sound and known. Raises OSError for no file."""
    with log_of(Path(path)).open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - most_bytes)
        file.seek(start)
        if start:
            file.readline()  # what is left of one that began before
        return [event for _, event in _lines_from(file, _Odd()) if event is not None]


def check_learning_rates(run_folder: Path | str, step: int, *, newest: int, checkpoint: Path) -> None:
    """Raise LearningRatesLost where a rate that was asked for after `step` may be missing, and weights would differ.

    A `checkpoint` at `step` holds the rates up to it. Later ones are in the sealed file; where that is damaged, the log
    has to tell of every step, up to the `newest` checkpoint at least. Where there is none, nobody asked for any.
    """
    _, damage = _sealed_rates(Path(run_folder))
    if damage is None or (gap := _gap_in(Path(run_folder) / EVENTS_FILE, step, newest)) is None:
        return
    raise LearningRatesLost(
        f"In {run_folder}, {damage} and {gap}, so a learning rate asked for after step {step} may be lost; to go on "
        f"with the rates that the checkpoint of that step holds, pass resume_from_checkpoint={str(checkpoint)!r}, and "
        "ask for the later rate again while it trains."
    )


@dataclass(frozen=True)
class Rewound:
    """What is left of a log, and what the run that goes on needs of it."""

    events: list[Event] = field(default_factory=list)  # up to the step, but for starts and ends
    rates_ahead: dict[int, float] = field(default_factory=dict)  # asked for before, from the step on
    notices: list[str] = field(default_factory=list)


def rewind(run_folder: Path | str, step: int, *, same_course: bool = True) -> Rewound:
    """Take out of a run's log what came after `step`, and its start and end, and return what is left.

    A run that is resumed at `step` takes the steps after it once more, so they must not be in the log twice. Unless it
    is to take the `same_course`, the learning rates that were asked for after `step` are forgotten. A log that cannot
    be read or written is told of in a sentence.
    """
    run_folder = Path(run_folder)
    file = run_folder / EVENTS_FILE
    sound, notices = _sound_lines(file)
    kept = [
        (line, event)
        for line, event in sound
        if event is None or (event.step <= step and not isinstance(event, RunStarted | RunEnded))
    ]
    changes = {
        event.step: (line, event.learning_rate) for line, event in sound if isinstance(event, LearningRateChanged)
    }
    rates, said = _with_sealed(run_folder, {after: rate for after, (_, rate) in changes.items()})
    notices += said
    ahead = {after: rate for after, rate in rates.items() if after >= step} if same_course else {}
    lines = [line for line, _ in kept]
    if rates or said:  # what is damaged is written anew, or it would be in doubt at each resume
        try:
            _keep_rates(run_folder, {after: rate for after, rate in rates.items() if after < step} | ahead)
        except OSError as error:
            notices.append(f"{RATES_FILE} could not be written ({error.strerror or error}).")
            # The log at least goes on telling of them.
            lines += [line for after, (line, _) in changes.items() if after in ahead and after > step]
    events: list[Event] = [event for _, event in kept if event is not None]
    if file.is_file():
        try:
            _replace(file, b"".join(lines))
            samples = (_sample(event) for event in events if isinstance(event, SampleEvent))
            _replace(run_folder / SAMPLES_FILE, b"".join(samples))
        except OSError as error:
            notices.append(f"The log in {run_folder} could not be taken back to step {step} ({error}) and tells twice.")
    return Rewound(events, ahead, notices)


def log_of(path: Path) -> Path:
    """The events.jsonl of a run folder, or the file itself. Raises FileNotFoundError where there is none."""
    file = path / EVENTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no run at {path}: {file} does not exist. Pass a run folder, e.g. runs/run-001."
        )
    return file


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
        self._waiting[EVENTS_FILE].append(_line(event))
        if isinstance(event, SampleEvent):
            self._waiting[SAMPLES_FILE].append(_sample(event))
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
            known, _ = _with_sealed(self._folder, {})
            _keep_rates(self._folder, known | self._rates)
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
                self._waiting[EVENTS_FILE] = [_line(event) for event in self._told]
                if not (self._folder / SAMPLES_FILE).exists():
                    samples = [event for event in self._told if isinstance(event, SampleEvent)]
                    self._waiting[SAMPLES_FILE] = [_sample(event) for event in samples]
                self._rates = {e.step: e.learning_rate for e in self._told if isinstance(e, LearningRateChanged)}
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


@dataclass
class _Odd:
    """Lines that were passed over."""

    damaged: int = 0
    first: int = 0  # the number of the first of them
    newer: int = 0  # of a kind that is not known here, or with fields that are not
    is_cut: bool = False  # the last one has no end

    def sentence(self, file: Path) -> str | None:
        """What is to be said of them; None when there are none."""
        said = []
        if self.damaged:
            lines = "1 line is" if self.damaged == 1 else f"{self.damaged} lines are"
            said.append(f"{lines} damaged and left out (the first: line {self.first})")
        if self.newer:
            said.append(f"{self.newer} {'is' if self.newer == 1 else 'are'} of a newer version, read as far as known")
        return f"In {file}, {'; '.join(said)}." if said else None


def _sound_lines(file: Path) -> tuple[list[tuple[bytes, Event | None]], list[str]]:
    """(lines with their events, what is to be said of the others) of a log, which may not be there."""
    if not file.is_file():
        is_there = os.path.lexists(file)
        said = f"{file} is no file, so what the run says is not kept until it is moved away."
        return [], [said] if is_there else []
    odd = _Odd()
    lines: list[tuple[bytes, Event | None]] = []
    try:
        lines.extend(_lines_in(file, odd))
    except OSError as error:
        return lines, [f"{file} cannot be read ({error.strerror}), so what was said before is not in the record."]
    sentence = odd.sentence(file)
    return lines, [sentence] if sentence else []


def _gap_in(file: Path, step: int, newest: int) -> str | None:
    """Why a log cannot tell of all learning rates that were asked for after `step`; None where it can."""
    if not file.is_file():
        return f"{file.name} is no file"
    odd, steps, begun, before = _Odd(), set[int](), False, 0
    try:
        for _, event in _lines_in(file, odd):
            if isinstance(event, StepEvent):
                steps.add(event.step)
            if event is not None and event.step < step:
                before = odd.damaged  # lines of steps that the checkpoint holds
            begun = begun or (isinstance(event, RunStarted) and event.step == 0)
    except OSError as error:
        return f"{file.name} cannot be read ({error.strerror})"
    if odd.damaged > before:
        return f"{file.name} has damaged lines"
    if odd.is_cut:
        return f"{file.name} ends within a line"
    missing = set(range(max(step, 1), max([newest, *steps]) + 1)) - steps
    if missing:
        return f"{file.name} does not tell of step {min(missing)}"
    # A log that was rewound lost the rates that were to come, which only the sealed file then knows.
    return None if begun else f"{file.name} begins where the run was resumed"


def _lines_in(path: Path, odd: _Odd) -> Iterator[tuple[bytes, Event | None]]:
    """(line, its event) of each sound line; None where only a newer version knows the event."""
    with path.open("rb") as file:
        yield from _lines_from(file, odd)


def _lines_from(file: BinaryIO, odd: _Odd) -> Iterator[tuple[bytes, Event | None]]:
    number = 0
    while line := file.readline(MOST_LINE_BYTES):
        number += 1
        if not line.endswith(b"\n"):
            if not _rest_of_line(file):
                odd.is_cut = True
                return  # it is still being written, or its writer was killed
            line = b""
        try:
            event, strangers = parsed(_checked(line).decode())
        except UnknownEvent:
            odd.newer += 1
            yield line, None
            continue
        except ValueError:
            odd.damaged += 1
            odd.first = odd.first or number
            continue
        odd.newer += bool(strangers)
        yield line, event


def _rest_of_line(file: BinaryIO) -> bool:
    """Pass over what is left of a line; False when the file ends before it does."""
    while piece := file.readline(MOST_LINE_BYTES):
        if piece.endswith(b"\n"):
            return True
    return False


def _checked(line: bytes) -> bytes:
    """`line` without its checksum. Raises ValueError where that is of another line; those of version 0.1 have none."""
    if (found := _CHECKSUM.search(line)) is None:
        return line
    body = line[: found.start()] + b"}"
    if zlib.crc32(body) != int(found[1], 16):
        raise ValueError("It changed since it was written.")
    return body


def _line(event: Event) -> bytes:
    body = to_json(event).encode()
    return body[:-1] + f', "crc32": "{zlib.crc32(body):08x}"}}\n'.encode()


def _sample(event: SampleEvent) -> bytes:
    # What cannot be encoded, half of a surrogate pair, becomes the escape that JSON has for it.
    return (json.dumps(asdict(event), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


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


def _keep_rates(run_folder: Path, rates: dict[int, float]) -> None:
    if not run_folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(run_folder))
    with new_private_file(run_folder / RATES_FILE) as partial:
        partial.write_text(sealed_json({"learning_rates": sorted(rates.items())}))


def _with_sealed(run_folder: Path, rates: dict[int, float]) -> tuple[dict[int, float], list[str]]:
    """(`rates` with those of the sealed file, what is to be said of that file)."""
    sealed, damage = _sealed_rates(run_folder)
    if damage is not None:
        return rates, [f"{damage}; of the learning rates that were asked for, those in {EVENTS_FILE} are taken."]
    return rates | sealed, []


def _sealed_rates(run_folder: Path) -> tuple[dict[int, float], str | None]:
    """(the rates in the sealed file, what is wrong with it); none where nobody asked for any."""
    file = run_folder / RATES_FILE
    if not os.path.lexists(file):
        return {}, None
    try:
        document, is_sealed = unsealed(file)
    except Damaged as damage:
        return {}, str(damage)
    return (dict(document["learning_rates"]), None) if is_sealed else ({}, f"{file.name} has no seal")
