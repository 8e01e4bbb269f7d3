"""Events as the lines of a log, and the lines read back as events.

Each line carries a checksum. A damaged line and what only a newer version knows are passed over and counted in one
sentence.
"""

import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from ..events import Event, Notice, SampleEvent, UnknownEvent, parsed, to_json

EVENTS_FILE = "events.jsonl"
SAMPLES_FILE = "samples.jsonl"

MOST_LINE_BYTES = 16_000_000  # a longer line is none of ours

_CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"}\n$')


def read_events(path: Path | str) -> Iterator[Event]:
    """The events of a run, from its folder or its events.jsonl; a last line that is still being written is left out.

    Where lines were passed over, being damaged or of a newer version, a Notice behind the last event counts them.
    Raises FileNotFoundError where there is no log.
    """
    file, odd, step = log_of(Path(path)), OddLines(), 0
    for _, event in lines_in(file, odd):
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
        return [event for _, event in lines_from(file, OddLines()) if event is not None]


def log_of(path: Path) -> Path:
    """The events.jsonl of a run folder, or the file itself. Raises FileNotFoundError where there is none."""
    file = path / EVENTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no run at {path}: {file} does not exist. Pass a run folder, e.g. runs/run-001."
        )
    return file


def line_of(event: Event) -> bytes:
    """An event as a line of `events.jsonl`, its checksum last."""
    body = to_json(event).encode()
    return body[:-1] + f', "crc32": "{zlib.crc32(body):08x}"}}\n'.encode()


def sample_line(event: SampleEvent) -> bytes:
    """A sample as a line of `samples.jsonl`, without a checksum, for people to read."""
    # What cannot be encoded, half of a surrogate pair, becomes the escape that JSON has for it.
    return (json.dumps(asdict(event), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


@dataclass
class OddLines:
    """Lines that were passed over."""

    lines: int = 0  # looked at so far, the others among them
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


def sound_lines(file: Path) -> tuple[list[tuple[bytes, Event | None]], list[str]]:
    """(lines with their events, what is to be said of the others) of a log, which may not be there."""
    if not file.is_file():
        is_there = os.path.lexists(file)
        said = f"{file} is no file, so what the run says is not kept until it is moved away."
        return [], [said] if is_there else []
    odd = OddLines()
    lines: list[tuple[bytes, Event | None]] = []
    try:
        lines.extend(lines_in(file, odd))
    except OSError as error:
        return lines, [f"{file} cannot be read ({error.strerror}), so what was said before is not in the record."]
    sentence = odd.sentence(file)
    return lines, [sentence] if sentence else []


def lines_in(path: Path, odd: OddLines) -> Iterator[tuple[bytes, Event | None]]:
    """(line, its event) of each sound line; None where only a newer version knows the event."""
    with path.open("rb") as file:
        yield from lines_from(file, odd)


def lines_from(file: BinaryIO, odd: OddLines) -> Iterator[tuple[bytes, Event | None]]:
    """`lines_in`, of what an open file has from where it stands."""
    while line := file.readline(MOST_LINE_BYTES):
        odd.lines += 1
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
            odd.first = odd.first or odd.lines
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
