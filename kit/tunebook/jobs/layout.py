"""Where everything of a job lies in its folder, and the small records its processes leave for one another.

A job folder is a run folder: `job/` says what is to be trained and is never changed, `process/` is written by whoever
runs it, `result/` holds what came of it, and beside them lies what every run leaves. Standard library only: who looks
after a run needs no MLX.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..machine.private import make_private_folder, new_private_file
from ..machine.sealed import Damaged, sealed_json, unsealed
from ..runs.looked_after.state import PROCESS, State, read_record

JOB, RESULT = "job", "result"  # beside PROCESS
DESCRIPTION, ENDED = "job.json", "ended.json"  # in JOB and in RESULT
ORDER, ALIVE = "order.json", "alive.json"  # in PROCESS
OUT, ERRORS, SUPERVISOR_ERRORS = "child.out", "child.err", "supervisor.err"
HOSTS = "hosts.json"  # in PROCESS, by which the processes of a job find one another
VERSION = 1


class NoJob(ValueError):
    """A folder that holds no job, or one that cannot be read here."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """How a job is to be run, as whoever starts it says."""

    typed: str = ""  # the run's folder, in the words of whoever started it; "": as it stands
    restarts: int = 0
    keep: bool = False  # go on, and begin anew where that was asked for, when nobody is left who wants it
    estimate_gb: float = 0.0  # 1e9 bytes, what it will need of memory
    limit_gb: float = 0.0  # what there is for runs that go on side by side
    pause_seconds: float = 5.0  # before the first restart; each later one waits four times as long
    silent_seconds: float = 120.0  # without a sign of life before a process is woken, and once more before it is ended
    idle_minutes: float = 60.0  # without an event before a process that lives is taken to hang
    processes: int = 1  # on this machine, that train it together
    hosts: str = ""  # what the hosts file says, where `mlx.launch` starts one on each of several machines


@dataclass(frozen=True)
class Ended:
    """How the run of a job ended; in its result, beside the weights."""

    reason: str  # an `events.EndReason`
    message: str
    step: int


def read_ended(folder: Path) -> Ended | None:
    """How the run of the job in `folder` ended last; None where it has not."""
    plain = read_record(folder / RESULT / ENDED)
    return None if plain is None else Ended(plain["reason"], plain["message"], plain["step"])


def is_job(folder: Path) -> bool:
    """Whether there is a job in `folder`."""
    return (folder / JOB / DESCRIPTION).is_file()


def read_description(folder: Path) -> dict[str, Any]:
    """What `job.json` says. Raises NoJob."""
    file = folder / JOB / DESCRIPTION
    if not file.is_file():
        raise NoJob(f"There is no job in {folder}; trainer.save_job({str(folder)!r}) makes one.")
    try:
        document, is_sealed = unsealed(file)
    except Damaged as error:
        raise NoJob(f"The job in {folder} is damaged: {error}. Make it again with trainer.save_job.") from error
    if not is_sealed or document.get("version") != VERSION:
        raise NoJob(
            f"The job in {folder} is of version {document.get('version')!r} and this tunebook reads {VERSION}; run it "
            "with the one that made it."
        )
    return document


def write_record(folder: Path, name: str, record: Order | State) -> None:
    """Put a record in the place of what was said before."""
    make_private_folder(folder / PROCESS)
    with new_private_file(folder / PROCESS / name) as partial:
        partial.write_text(sealed_json(asdict(record)))


def read_order(folder: Path) -> Order:
    """How the job in `folder` is to be run; as usual where nobody said."""
    plain = read_record(folder / PROCESS / ORDER)
    return Order() if plain is None else Order(**plain)
