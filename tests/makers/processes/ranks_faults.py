"""A run in several processes of which one is killed or stopped, and the run in one process that goes on from it."""

import json
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.makers.processes.ranks_launch import ended, started
from tunebook.train.kept.checkpoint import checkpoint_folders, step_of

RUN = "long"


@dataclass(frozen=True)
class Fault:
    """What is done to whom, and when."""

    size: int
    rank: int
    signal: signal.Signals
    step: int  # once this one is told
    later: float  # seconds after that


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    seconds: float  # until all processes had ended
    codes: list[int]
    wrote: str  # all of them together
    step: int  # of the newest checkpoint


def drawn(random_: random.Random) -> Fault:
    """Any fault of a run of two or three."""
    size = random_.choice([2, 3])
    kind = random_.choice([signal.SIGKILL, signal.SIGSTOP])
    return Fault(size, random_.randrange(size), kind, random_.randrange(3, 12), random_.random() * 0.05)


def struck(fault: Fault, folder: Path, seconds: float = 240) -> Outcome:
    """Begin the run in `folder`, do what `fault` says, and wait until all processes have ended."""
    processes = started(fault.size, folder, [str(folder), RUN])
    log = folder / "runs" / RUN / "run-001" / "events.jsonl"
    until = time.monotonic() + seconds
    while not _has_reached(log, fault.step) and time.monotonic() < until:
        if any(process.poll() is not None for process in processes):
            break
        time.sleep(0.01)
    time.sleep(fault.later)
    if processes[fault.rank].poll() is None:
        os.kill(processes[fault.rank].pid, fault.signal)
    began = time.monotonic()
    found = ended(processes, 60)
    took = time.monotonic() - began
    wrote = "".join(wrote for _, wrote in found)
    return Outcome(took, [code for code, _ in found], wrote, reached(folder / "runs" / RUN / "run-001"))


def reached(run_folder: Path) -> int:
    """The step of the newest whole checkpoint; 0 where there is none."""
    return max((step_of(path) for path in checkpoint_folders(run_folder)), default=0)


def gone_on(folder: Path, seconds: float = 240) -> dict[str, np.ndarray]:
    """What one process comes to that goes on with the run in `folder`, from its start where no checkpoint was saved."""
    resume = ["--resume"] if reached(folder / "runs" / RUN / "run-001") else []
    [(code, wrote)] = ended(started(1, folder, [str(folder), RUN, *resume]), seconds)
    assert code == 0, wrote[-3000:]
    with np.load(folder / f"{RUN} 0.npz") as found:
        return dict(found)


def undisturbed(folder: Path, seconds: float = 240) -> dict[str, np.ndarray]:
    """What the run of one process learns that nobody disturbs."""
    [(code, wrote)] = ended(started(1, folder, [str(folder), RUN]), seconds)
    assert code == 0, wrote[-3000:]
    with np.load(folder / f"{RUN} 0.npz") as found:
        return dict(found)


def _has_reached(log: Path, step: int) -> bool:
    if not log.exists():
        return False
    events = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return any(event["event"] == "step" and event["step"] >= step for event in events)
