"""Where everything of a job lies in its folder, and the small records its processes leave for one another.

A job folder is a run folder: `job/` says what is to be trained and is never changed, `process/` is written by whoever
runs it, `result/` holds what came of it, and beside them lies what every run leaves. Standard library only: who looks
after a run needs no MLX.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..machine.private import make_private_folder, new_private_file
from ..machine.sealed import Damaged, sealed_json, unsealed

JOB, PROCESS, RESULT = "job", "process", "result"
DESCRIPTION, ENDED = "job.json", "ended.json"  # in JOB and in RESULT
ORDER, STATE, ALIVE = "order.json", "state.json", "alive.json"  # in PROCESS
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


@dataclass(frozen=True, kw_only=True)
class State:
    """How it stands with a job; written by its supervisor alone."""

    state: str = "waiting"  # "waiting", "running", "pausing" or "ended"
    supervisor: int = 0  # process ids
    child: int = 0
    others: list[int] = field(default_factory=list)  # that train together with the child
    begun: int = 0  # how many times a child was started
    ended_well: bool = False  # the run came to an end of its own, and `result/` has it
    said: str = ""  # one sentence on the latest end of a child
    causes: list[str] = field(default_factory=list)  # the sentences of all ends that were not the last


@dataclass(frozen=True)
class Ended:
    """How the run of a job ended; in its result, beside the weights."""

    reason: str  # an `events.EndReason`
    message: str
    step: int


def read_ended(folder: Path) -> Ended | None:
    """How the run of the job in `folder` ended last; None where it has not."""
    plain = _plain(folder / RESULT / ENDED)
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
    plain = _plain(folder / PROCESS / ORDER)
    return Order() if plain is None else Order(**plain)


def read_state(folder: Path) -> State | None:
    """How it stands with the job in `folder`; None where nobody has run it, or what was said is not whole."""
    plain = _plain(folder / PROCESS / STATE)
    return None if plain is None else State(**plain)


def _plain(file: Path) -> dict[str, Any] | None:
    try:
        document, is_sealed = unsealed(file)
    except Damaged:
        return None
    return document if is_sealed else None
