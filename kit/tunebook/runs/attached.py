"""A run that another process trains, held from here by its folder: its events, its state, and what can be asked of it.

`attach` gives one for a run folder, however the run there was begun; in its own process a run is heard the same way.
What comes is taken in when `poll` is called, which whoever waits does, and in a notebook its own event loop. Nothing is
written but commands.
"""

import asyncio
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, final
from weakref import WeakValueDictionary

from ..events import (
    CheckpointSaved,
    Command,
    CommandReceived,
    EndReason,
    Event,
    Notice,
    Request,
    RunEnded,
    RunStarted,
    StepEvent,
    Working,
)
from .folder import run_folders
from .following import Following
from .listeners import Listener, StepCallback, step_listener
from .lock import Held
from .log_lines import EVENTS_FILE
from .mailbox import Now, post, read_now
from .result import TrainResult, result_of

SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_WHILE_NOBODY_TRAINS = 1.0  # between looks then


class RunState(StrEnum):
    """How it stands with a run."""

    WAITING = "waiting"  # none has begun in the folder
    RUNNING = "running"
    FINISHED = "finished"  # with all its steps, or because it got no better
    STOPPED = "stopped"  # someone asked, or interrupted it
    FAILED = "failed"  # an error rose, or nothing was finite any more
    DIED = "died"  # it has not ended, and nobody trains it


_STATES = {
    EndReason.FINISHED: RunState.FINISHED,
    EndReason.EARLY_STOPPED: RunState.FINISHED,
    EndReason.STOPPED: RunState.STOPPED,
    EndReason.DISCARDED: RunState.STOPPED,
    EndReason.INTERRUPTED: RunState.STOPPED,
    EndReason.NOT_FINITE: RunState.FAILED,
    EndReason.FAILED: RunState.FAILED,
}


def attach(run: Path | str) -> "AttachedRun":
    """A handle on the run in a folder, its events.jsonl, or the newest of an output_dir, whoever trains it.

        >>> result = attach("runs/run-001").wait()

    The same handle is given out while it is in use. Raises FileNotFoundError where there is no such folder.
    """
    path = Path(run).expanduser()
    folder = path.parent if path.name == EVENTS_FILE else path
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no run at {path}. Pass a run folder, e.g. runs/run-001.")
    if not (folder / EVENTS_FILE).exists() and (inside := run_folders(folder)):
        folder = inside[-1]
    place = folder.resolve()
    if (known := _attached.get(place)) is None:
        known = _attached[place] = AttachedRun(folder)
    known.poll()
    return known


@final
class AttachedRun:
    """A run that is trained elsewhere: `events` so far, `state`, and the calls by which it is watched and steered.

        >>> run = attach("runs/run-003")
        >>> run.subscribe(print)
        >>> result = await run  # or run.wait(), where nothing else is to happen

    `events` is what its log says now, from the first; of a run that was resumed, what went before is part of it. Use
    it from one thread.
    """

    def __init__(self, run_folder: Path, *, is_alive: Callable[[], bool] | None = None):
        """`is_alive` says whether someone is there who trains it or will; None: whoever holds the folder."""
        self.run_folder = run_folder
        self.events: list[Event] = []
        self._is_alive = is_alive or Held(run_folder).now
        self._alive = False
        self._log = Following(run_folder)
        self._listeners: list[tuple[str, Listener]] = []
        self._recent: deque[Event] = deque(maxlen=64)  # of the log
        self._started: RunStarted | None = None
        self._since_start = 0  # events of the log, from that on
        self._ended: RunEnded | None = None
        self._died: RunEnded | None = None  # told in place of an end
        self._told_early: list[tuple[Command, float | None]] = []  # heard by the run, and not in its log yet
        self._numbers: set[int] = set()  # of what was told of as heard
        self._working: Working | None = None
        self._scheduled: asyncio.TimerHandle | None = None
        self.poll()

    def __repr__(self):
        last = next((event.step for event in reversed(self.events)), 0)
        return f"The run in {self.run_folder}: {self.state}, step {last}."

    @property
    def state(self) -> RunState:
        """How it stands with the run, as of the last look."""
        if self._ended is not None:
            return _STATES[self._ended.reason]
        if self._alive:
            return RunState.RUNNING
        return RunState.WAITING if self._died is None else RunState.DIED

    @property
    def message(self) -> str:
        """How it ended or why nobody trains it any more, in a sentence; empty while it goes on."""
        end = self._ended or self._died
        return "" if end is None else end.message

    def subscribe(self, listener: Listener, *, shows_progress: bool = False) -> None:
        """Have `listener(event)` called with every event from now on, in order; those before are in `events`.

        One that raises is reported and switched off. In a notebook they come by themselves, between and during awaited
        cells; in a script while it waits.
        """
        del shows_progress  # nothing else draws one here
        self._listen((f"The listener {listener!r}", listener))

    def add_step_callback(self, callback: StepCallback) -> None:
        """Have `callback` called with the nine values of each step from now on, as `Trainer.add_step_callback` does."""
        self._listen((f"The step callback {callback!r}", step_listener(callback)))

    def send(self, command: Command | str, value: float | None = None) -> None:
        """Leave a command for the run; returns at once. It is heard within a second, and done with the step.

        Raises RuntimeError where nobody is there to hear it, OSError where the folder takes no file.
        """
        request = Request(Command(command), value)
        self.poll()
        if self.state is not RunState.RUNNING:
            raise RuntimeError(f"Nobody hears '{request.command}': {self!r} {self.message}".rstrip())
        post(self.run_folder, request)

    def stop(self) -> None:
        """End the run with the step in progress."""
        self.send(Command.STOP)

    def wait(self, timeout: float | None = None) -> TrainResult:
        """How the run went, once it has ended or died. Raises TimeoutError after so many seconds; the run goes on.

        Being interrupted ends the waiting and not the run.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (result := self._result()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{self!r} It goes on.")
            time.sleep(SECONDS_BETWEEN_LOOKS)
            self.poll()
        return result

    def __await__(self) -> Generator[Any, None, TrainResult]:
        return self._awaited().__await__()

    async def _awaited(self) -> TrainResult:
        while (result := self._result()) is None:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            self.poll()
        return result

    def _result(self) -> TrainResult | None:
        over = self._ended is not None or self._died is not None
        return result_of(self.events, self.run_folder) if over else None

    def poll(self) -> None:
        """Take in what is new, and tell the listeners."""
        self._alive = self._is_alive()  # before the log is read: what a run writes last it writes while it is there
        now = read_now(self.run_folder) if self._alive else None
        news = self._log.look()
        if news.before is not None:
            self.events, self._ended, self._died, self._started = news.before, None, None, None
            self._since_start = 0
            self._recent.clear()
        if news.events and self._died is not None:  # it was not dead
            self.events.remove(self._died)
            self._died = None
        for event in news.events:
            self._take_in(event)
        if news.odd is not None:
            self._tell(Notice(step=self.events[-1].step if self.events else 0, text=news.odd))
        if now is not None and self._ended is None and self._listeners:
            self._tell_moment(now)
        if not self._alive and self._ended is None and self._died is None and self._started is not None:
            self._died = self._death(self._started)
            self._tell(self._died)

    def _take_in(self, event: Event) -> None:
        """An event of the log."""
        if isinstance(event, RunStarted):
            self._started, self._since_start, self._ended = event, 0, None
            self._numbers.clear()
            self._told_early.clear()
        if isinstance(event, RunEnded):
            self._ended = event
        self._since_start += 1
        self._recent.append(event)
        if isinstance(event, CommandReceived) and (told := (event.command, event.value)) in self._told_early:
            self._told_early.remove(told)
            self.events.append(event)
        else:
            self._tell(event)

    def _tell_moment(self, now: Now) -> None:
        """What the run has heard and does, where its log does not say so yet."""
        step = self.events[-1].step if self.events else 0
        later = islice(reversed(self._recent), max(self._since_start - now.events, 0))
        done = [(event.command, event.value) for event in later if isinstance(event, CommandReceived)]
        for number, command, value in now.heard:
            if number in self._numbers:
                continue
            self._numbers.add(number)
            if (command, value) in done:
                done.remove((command, value))
                continue
            self._told_early.append((command, value))
            self._tell(CommandReceived(step=step, command=command, value=value), keep=False)
        if now.events == self._since_start and now.working is not None and now.working != self._working:
            self._tell(now.working, keep=False)
        self._working = now.working

    def _tell(self, event: Event, *, keep: bool = True) -> None:
        if keep:
            self.events.append(event)
        for named in list(self._listeners):
            try:
                named[1](event)
            except Exception as error:  # noqa: BLE001 - strangers' code may raise anything
                self._listeners.remove(named)
                said = f"{named[0]} raised {type(error).__name__}: {error}. It is switched off; the run goes on."
                warnings.warn(said, stacklevel=4)

    def _death(self, started: RunStarted) -> RunEnded:
        saved = [event.step for event in self.events if isinstance(event, CheckpointSaved)]
        goes_on = f"train(resume_from_checkpoint={str(self.run_folder)!r}) goes on from step"
        kept = f"{goes_on} {saved[-1]}, its last checkpoint." if saved else "It had written no checkpoint."
        steps = [event for event in self.events if isinstance(event, StepEvent)]
        return RunEnded(
            step=steps[-1].step if steps else started.step,
            total_steps=started.total_steps,
            reason=EndReason.INTERRUPTED,
            message=f"The process that trained it is gone without a word: killed, or the machine went down. {kept}",
            elapsed=steps[-1].elapsed if steps else 0.0,
        )

    def _listen(self, named: tuple[str, Listener]) -> None:
        self._listeners.append(named)
        self._told_early.clear()  # of those this one was not told
        self._schedule()

    def _schedule(self) -> None:
        """In a notebook, have the event loop look again and again, until the run has ended."""
        if self._scheduled is not None or self._ended is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # a script looks when it waits
        pause = SECONDS_BETWEEN_LOOKS if self._alive else _SECONDS_WHILE_NOBODY_TRAINS
        self._scheduled = loop.call_later(pause, self._look_again)

    def _look_again(self) -> None:
        self._scheduled = None
        try:
            self.poll()
        finally:
            self._schedule()


_attached: WeakValueDictionary[Path, AttachedRun] = WeakValueDictionary()
