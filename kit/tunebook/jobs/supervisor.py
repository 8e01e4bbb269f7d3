"""Looks after one job from a process of its own: waits for its turn, trains it in a child, and says how that ended.

`python -m tunebook supervise JOB`. It needs no MLX and outlives the notebook. A child that was ended by what may pass
is started again where that was asked for, after a longer pause each time, and goes on from the newest whole
checkpoint; never where nobody wants the run, and not where it came no further three times.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import final

from ..events import EndReason, RunEnded, RunStarted, StepEvent
from ..machine.interrupts import on_terminate
from ..machine.private import FILE_MODE, make_private_folder
from ..runs.folder import STOP_FILE, event_log, last_events
from ..runs.lock import RunInUse, RunLock
from ..runs.looked_after.state import LOCK, PROCESS, STATE, State
from ..runs.looked_after.wanted import is_wanted, want
from .causes import Cause, Evidence, cause_of_launched, cause_of_several, kills_by_the_system, tail_of
from .layout import Order, read_description, read_ended, read_order, write_record
from .processes import Child, start_children
from .tickets import Place
from .watch import Watched, ask_to_end, forget_signs, watch

SECONDS_BETWEEN_LOOKS = 0.25
LONGER = 4  # times, each pause than the one before
LONGEST_PAUSE_SECONDS = 900.0
IN_VAIN = 3  # ends in a row with nothing gained between them
NOBODY = "Whoever started it was gone before its turn came, so it was not begun."
TAKEN_OUT = "It was taken out of the queue before it began."


class Supervised(RuntimeError):
    """Another supervisor looks after the job."""


def supervise(folder: Path, *, wanted_elsewhere: bool = False) -> State:
    """Look after the job in `folder` until it is over; how it stands then. Raises Supervised, NoJob.

    Unless it is `wanted_elsewhere`, by the notebook that started it, whoever calls this wants it.
    """
    folder = folder.absolute()
    description = read_description(folder)
    with _alone_with(folder):
        if not wanted_elsewhere:
            want(folder)
        supervisor = _Supervisor(folder, read_order(folder))
        return supervisor.over(str(description["model"]["name"]))


@final
class _Supervisor:
    """What one supervisor knows of its job."""

    def __init__(self, folder: Path, order: Order):
        self._folder, self._order = folder, order
        self._state = State(supervisor=os.getpid())
        self._children: Sequence[Child] = ()
        self._asked_to_end = False
        self._reached: list[tuple[int, int]] = []  # at each end: the newest checkpoint, the last step

    def over(self, model: str) -> State:
        """Wait, train, begin again, until it is over."""
        self._say(state="waiting")
        order = self._order
        place = Place(self._folder, model=model, estimate_gb=order.estimate_gb, limit_gb=order.limit_gb)
        with on_terminate(self._end), place:
            while not place.its_turn():
                if (reason := self._why_not_wait()) is not None:
                    return self._say(state="ended", said=reason)
                time.sleep(SECONDS_BETWEEN_LOOKS)
            return self._train()

    def _train(self) -> State:
        if (reason := self._why_not_wait()) is not None:
            return self._say(state="ended", said=reason)
        while (cause := self._train_once()) is not None:
            why_not = self._why_not_again(cause)
            if why_not is not None or not self._pause(cause):
                said = f"{cause.sentence} {why_not or ''}".strip()
                self._tell_the_log(said)
                return self._say(state="ended", said=said)
        ended = read_ended(self._folder)
        assert ended is not None
        return self._say(state="ended", ended_well=True, said=ended.message)

    def _train_once(self) -> Cause | None:
        """Why a child ended; None where its run came to an end of its own."""
        before, stamp, kills = read_ended(self._folder), self._stamp(), kills_by_the_system()
        wrote_before = {file: file.stat().st_size for file in (self._folder / PROCESS).glob("*.err*")}
        forget_signs(self._folder)
        children = self._children = start_children(self._folder, self._order)
        pid, *others = [child.process.pid for child in children]
        self._say(state="running", child=pid, others=others, begun=self._state.begun + 1)
        if self._asked_to_end:
            ask_to_end(children, self._folder)
        seen = watch(children, self._folder, self._order)
        self._children = ()
        self._reached.append((_newest_checkpoint(self._folder), _last_step(self._folder)))
        wrote = [tail_of(child.errors, wrote_before.get(child.errors, 0)) for child in children]
        evidence = _evidence(seen, wrote, kills_by_the_system() - kills)
        launched = evidence[0] if children[0].launches else None
        cause = cause_of_launched(launched) if launched is not None else cause_of_several(evidence)
        ended = read_ended(self._folder)
        if ended is None or (ended == before and self._stamp() == stamp):
            return cause
        if ended.reason != EndReason.FAILED:
            return None
        return Cause(ended.message if len(children) == 1 and launched is None else cause.sentence, cause.may_pass)

    def _why_not_again(self, cause: Cause) -> str | None:
        """Why it is not begun again, in a sentence; None where it is."""
        again = self._state.begun - 1  # times it was begun again so far
        if not cause.may_pass or self._asked_to_end or self._order.restarts == 0:
            return self._how_to_go_on()
        if not self._is_wanted():
            return f"Nobody wants it any more, so it is not begun again. {self._how_to_go_on()}"
        if again >= self._order.restarts:
            return f"It was begun again {again} times. {self._how_to_go_on()}"
        if len(self._reached) >= IN_VAIN and len(set(self._reached[-IN_VAIN:])) == 1:
            return f"It came no further {IN_VAIN} times in a row, so it is not begun again. {self._how_to_go_on()}"
        return None

    def _pause(self, cause: Cause) -> bool:
        """Wait before it is begun again; False where it was not to be any more."""
        again = self._state.begun  # which time it will be
        seconds = min(LONGEST_PAUSE_SECONDS, self._order.pause_seconds * LONGER ** (again - 1))
        said, causes, at = cause.sentence, [*self._state.causes, cause.sentence], time.time() + seconds
        self._say(state="pausing", child=0, others=[], again_at=at, said=said, causes=causes)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._asked_to_end or not self._is_wanted() or self._is_to_stop():
                return False
            time.sleep(min(SECONDS_BETWEEN_LOOKS, seconds))
        return True

    def _why_not_wait(self) -> str | None:
        if self._asked_to_end or self._is_to_stop():
            return TAKEN_OUT
        return None if self._is_wanted() else NOBODY

    def _is_wanted(self) -> bool:
        return self._order.keep or is_wanted(self._folder)

    def _is_to_stop(self) -> bool:
        """Whether a file called STOP asks for an end; an empty one is taken away."""
        stop = self._folder / STOP_FILE
        if not stop.exists():
            return False
        if stop.is_file() and stop.stat().st_size == 0:
            stop.unlink(missing_ok=True)
        return True

    def _how_to_go_on(self) -> str:
        step = _newest_checkpoint(self._folder)
        kept = f"Its last checkpoint is that of step {step}" if step else "It left no checkpoint"
        typed, where = self._order.typed or self._folder, "" if step else " from the start"
        return f"{kept}; python -m tunebook train {typed} goes on{where}."

    def _tell_the_log(self, said: str) -> None:
        """Have a run whose process left without a word end in its log, for whoever watches that."""
        try:
            with RunLock(self._folder):
                events = last_events(self._folder)
                steps = [event for event in events if isinstance(event, RunStarted | StepEvent)]
                if not steps or any(isinstance(event, RunEnded) for event in events):
                    return
                seconds = next((event.elapsed for event in reversed(steps) if isinstance(event, StepEvent)), 0.0)
                event_log(self._folder, lambda _: None)(
                    RunEnded(
                        step=steps[-1].step,
                        total_steps=steps[-1].total_steps,
                        reason=EndReason.FAILED,
                        message=said,
                        elapsed=seconds,
                    )
                )
        except (OSError, RunInUse):
            return  # there is no log, or another process goes on with it already

    def _end(self) -> None:
        self._asked_to_end = True
        if self._children:
            ask_to_end(self._children, self._folder)

    def _stamp(self) -> int | None:
        """What tells one result from the next."""
        try:
            return (self._folder / "result").stat().st_ino
        except OSError:
            return None

    def _say(self, **changes: object) -> State:
        self._state = replace(self._state, **changes)  # pyright: ignore[reportArgumentType] - names of its own
        write_record(self._folder, STATE, self._state)
        return self._state


def _evidence(seen: Watched, wrote: Sequence[str], system_kills: int) -> list[Evidence | None]:
    """What is known of each process that is gone, by rank; None of one that was ended because of another."""
    known = Evidence(
        code=0,
        wrote="",
        began=bool(seen.last and seen.last.began),
        system_kills=system_kills,
        silence=seen.silence,
        silent_seconds=seen.silent_seconds,
    )
    each = zip(seen.codes, wrote, strict=False)  # of some that were silent the first alone is known
    return [None if code is None else known.of(code, text) for code, text in each]


def _newest_checkpoint(folder: Path) -> int:
    """The step of the newest checkpoint, by its name; 0 where there is none."""
    names = [path.name[5:] for path in (folder / "checkpoints").glob("step-*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _last_step(folder: Path) -> int:
    """The last step that the log tells of; 0 where it tells of none."""
    try:
        return max((event.step for event in last_events(folder) if isinstance(event, StepEvent)), default=0)
    except OSError:
        return 0


@contextmanager
def _alone_with(folder: Path) -> Iterator[None]:
    make_private_folder(folder / PROCESS)
    handle = os.open(folder / PROCESS / LOCK, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        for _ in range(20):  # whoever looks has the lock for that moment
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise Supervised(f"Another process looks after the job in {folder} already.")
        yield
    finally:
        os.close(handle)
