"""Why the process of a job ended, in a sentence with the setting to change, and whether to begin again helps.

What the system says of the process and what the process wrote come in. No MLX: the words of an abort are looked at as
text.
"""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..machine.gpu_errors import GpuFault, fault_in

TAIL_BYTES = 16_000  # of what a process wrote last
# How the last line of an abort or of an exception begins.
_ABORTED = re.compile(r"(?:terminating due to uncaught exception of type [^:\n]+:|what\(\): ?)\s*(.+)")
_RAISED = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*)(?:: (.*))?$", re.MULTILINE)  # the last line of a traceback
_REFUSED = re.compile(
    r"^(NoJob|OtherModel|ModelNotFound|RunInUse|mlx\.launch: error): (.*)$", re.MULTILINE
)  # what `train` says itself
_TRACEBACK = "Traceback (most recent call last):"
# What `train/ranks/` says in a process that lost another, and mlx.launch of one that went down.
_LOST = re.compile(r"^(?:[A-Za-z_]\w*\.)*(?:RankLost: )(.+)$|^(.+) This process ends itself: ", re.MULTILINE)
_NAME = re.compile(r"[Rr]ank (\d+) \([^)]*\)")
_WITHOUT_A_DEATH = re.compile("has given no sign of life|have waited in the same exchange")
_LAUNCHED_FELL = re.compile(r"Node with rank (\d+) exited with code (-?\d+)")

_SMALLER = (
    "lower per_device_train_batch_size and raise gradient_accumulation_steps by as much, or set "
    "gradient_checkpointing=True or a lower max_seq_length"
)
_FAULTS: dict[GpuFault, str] = {
    "memory": f"Memory ran out on the GPU: {_SMALLER}",
    "watchdog": f"The system took the GPU away because work on it kept the display waiting: {_SMALLER}, or let the "
    "display sleep while a run goes on",
    "buffers": f"There were more buffers than the GPU's driver can hold: {_SMALLER}",
    "driver": "The GPU's driver failed; where it happens again, python -m tunebook doctor checks the machine",
}

Silence = Literal["stopped", "idle"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a process that is gone without a result, or was ended for its silence."""

    code: int  # its exit code; of a signal minus its number
    wrote: str  # the end of what it wrote to stderr
    began: bool  # its run had begun: the model was loaded
    system_kills: int = 0  # processes the system has ended for want of memory meanwhile, where that is known
    silence: Silence | None = None  # why it was ended by its supervisor
    silent_seconds: float = 0.0

    def of(self, code: int, wrote: str) -> "Evidence":
        """The same of another process."""
        return replace(self, code=code, wrote=wrote)


@dataclass(frozen=True)
class Cause:
    """Why a process ended."""

    sentence: str
    may_pass: bool  # the same job may come through when it is begun again


def cause_of(evidence: Evidence) -> Cause:
    """What became of a process."""
    if evidence.silence is not None:
        return _of_silence(evidence)
    if evidence.code < 0:
        return _of_signal(evidence, signal.Signals(-evidence.code))
    _, is_raised, last = evidence.wrote.rpartition(_TRACEBACK)
    raised = (_RAISED if is_raised else _REFUSED).findall(last)
    if raised:
        kind, text = raised[0]
        fault = fault_in(last)
        if fault is not None:
            return Cause(f"{_FAULTS[fault]}. MLX said: {_short(text)}", may_pass=fault in ("watchdog", "driver"))
        said = f"{kind}: {_short(text)}" if text else kind
        when = "" if evidence.began else " before its first step"
        return Cause(f"It failed{when} ({said}); the whole of it is in process/child.err of the run's folder.", False)
    return Cause(
        f"Its process ended with exit code {evidence.code} and said nothing of why; something in it, or a library, "
        "called exit.",
        may_pass=True,
    )


def cause_of_several(evidence: Sequence[Evidence | None]) -> Cause:
    """What became of processes that trained together, by rank; None of one that was ended because of the others.

    The one that went down first is told of, by the name that the others had for it.
    """
    known = {rank: each for rank, each in enumerate(evidence) if each is not None}
    if len(evidence) == 1 or not known:
        return cause_of(known[0]) if known else Cause("Its processes were ended together.", may_pass=True)
    heard = {rank: lost for rank, each in known.items() if (lost := _lost(each.wrote)) is not None}
    said = next(iter(heard.values()), "")
    went_down = [rank for rank, each in known.items() if each.code != 0 and rank not in heard]
    if said and (not went_down or _WITHOUT_A_DEATH.search(said)):
        return Cause(_short(said), may_pass=True)
    if not went_down:
        return cause_of(known[min(known)])
    if len(went_down) == len(evidence):  # all alike
        return cause_of(known[went_down[0]])
    first = min(went_down, key=lambda rank: known[rank].code >= 0)  # one with a signal before one that says why
    cause = cause_of(known[first])
    names = {int(named.group(1)): named.group(0) for lost in heard.values() for named in _NAME.finditer(lost)}
    name = names.get(first, f"rank {first}")
    return Cause(f"{name[0].upper()}{name[1:]} went down. {cause.sentence}", cause.may_pass)


def cause_of_launched(evidence: Evidence) -> Cause:
    """What became of the processes that mlx.launch started, which says of each how it ended and itself ends well."""
    fell = _LAUNCHED_FELL.search(evidence.wrote)
    if evidence.silence is not None or evidence.code != 0 or fell is None:
        return cause_of(evidence)
    rank, code = int(fell.group(1)), int(fell.group(2))
    raised = [part for part in evidence.wrote.split(_TRACEBACK)[1:] if _lost(part) is None]
    own = f"{_TRACEBACK}{raised[-1]}" if raised else _LOST.sub("", evidence.wrote) if code < 0 else ""
    lost = _lost(evidence.wrote)
    other = evidence.of(0 if lost is None else 1, "" if lost is None else f"RankLost: {lost}")
    return cause_of_several([evidence.of(code, own) if number == rank else other for number in range(rank + 2)])


def _lost(wrote: str) -> str | None:
    """The sentence of a process that lost another, where that is the last of what it wrote."""
    found = _LOST.findall(wrote)
    return next(filter(None, found[-1])) if found else None


def _of_silence(evidence: Evidence) -> Cause:
    if evidence.silence == "stopped":
        return Cause(
            f"Its process was held up for {evidence.silent_seconds:.0f} seconds, could not be woken and was ended; to "
            "pause a run use its Pause button, or run.send('pause').",
            may_pass=True,
        )
    return Cause(
        f"Its process lived and computed nothing for {evidence.silent_seconds / 60:.0f} minutes, so it was ended: the "
        "GPU or its driver hangs, or a file system does; python -m tunebook doctor checks the machine.",
        may_pass=True,
    )


def _of_signal(evidence: Evidence, number: signal.Signals) -> Cause:
    aborted = _ABORTED.findall(evidence.wrote)
    said = aborted[-1] if aborted else ""
    fault = fault_in(said) or (fault_in(evidence.wrote) if number is signal.SIGABRT else None)
    if fault is not None:
        what = f" MLX said: {_short(said)}" if said else ""
        return Cause(f"{_FAULTS[fault]} (its process was aborted).{what}", may_pass=True)
    match number:
        case signal.SIGKILL if evidence.system_kills:
            return Cause(f"The system ran out of memory and ended its process: {_SMALLER}.", may_pass=True)
        case signal.SIGKILL:
            return Cause(
                "Its process was killed (SIGKILL), by someone or by a system that needs its memory; where that comes "
                f"again, {_SMALLER}.",
                may_pass=True,
            )
        case signal.SIGABRT:
            return Cause(f"Its process was aborted{f': {_short(said)}' if said else ' (SIGABRT)'}.", may_pass=True)
        case signal.SIGTERM | signal.SIGHUP | signal.SIGINT:
            return Cause(
                f"Its process was asked to end ({number.name}), by someone or by a system shutting down.", False
            )
        case _:
            return Cause(
                f"Its process crashed ({number.name}) in a library; where that comes again, python -m tunebook doctor "
                "checks the machine.",
                may_pass=True,
            )


def tail_of(file: Path, start: int = 0) -> str:
    """The end of a file from `start` bytes on; empty where there is none."""
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, 2)
            opened.seek(max(start, size - TAIL_BYTES))
            return opened.read().decode(errors="replace")
    except OSError:
        return ""


def kills_by_the_system() -> int:
    """How many processes Linux has ended for want of memory so far, here or in our share of it; elsewhere 0."""
    return _count(Path("/proc/vmstat"), "oom_kill") + _count(Path("/sys/fs/cgroup/memory.events"), "oom_kill")


def _count(file: Path, name: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.split()[:1] == [name])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:299]}…"
