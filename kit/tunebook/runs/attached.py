"""A run that another process trains, held from here by its folder: its events, its state, and what can be asked of it.

`attach` gives one for a run folder, however the run there was begun; in its own process a run is heard the same way.
What comes is taken in when `poll` is called, which whoever waits does, and in a notebook its own event loop. Nothing is
written but commands. A run that somebody looks after (`looked_after/`) is wanted by whoever attached to it, and is over
when those have given it up.
"""

import asyncio
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator
from itertools import islice
from pathlib import Path
from typing import Any, final
from weakref import WeakValueDictionary

from ..events import Command, CommandReceived, EndReason, Event, Notice, Request, RunEnded, RunStarted, Working
from .folder import STOP_FILE, run_folders
from .following import Following
from .listeners import Listener, StepCallback, step_listener
from .lock import Held
from .log_lines import EVENTS_FILE
from .looked_after.state import State, is_supervised, last_said, read_state
from .looked_after.wanted import let_go, want
from .mailbox import Now, post, read_now
from .result import TrainResult, result_of
from .run_state import ENDED_AS, RunState, last_words, state_while_there

SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_WHILE_NOBODY_TRAINS = 1.0  # between looks then


def attach(run: Path | str) -> "AttachedRun":
    """A handle on the run in a folder, its events.jsonl, or the newest of an output_dir, whoever trains it.

        >>> result = attach("runs/run-001").wait()

    The same handle is given out while it is in use. A run that `trainer.start()` began and that goes on is wanted by
    this process from now on, as by the one that started it. Raises FileNotFoundError where there is no such folder.
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
    if known._alive and read_state(place) is not None:
        want(place)
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
        """`is_alive` says whether someone is there who will train it, beside those who do or look after it."""
        self.run_folder = run_folder
        self.events: list[Event] = []
        self._is_held = Held(run_folder).now
        self._is_alive = is_alive
        self._alive = self._held = self._looked_after = False
        self._said: State | None = None  # by who looks after it, while nobody holds the folder
        self._begins_again = ""  # the cause that was told of
        self._log = Following(run_folder)
        self._listeners: list[tuple[str, Listener]] = []
        self._recent: deque[Event] = deque(maxlen=64)  # of the log
        self._started: RunStarted | None = None
        self._since_start = 0  # events of the log, from that on
        self._ended: RunEnded | None = None
        self._held_back: RunEnded | None = None  # it failed, and may begin again: told when it does not
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
        if self._ended is not None and self._is_over:
            return ENDED_AS[self._ended.reason]
        if self._alive:
            return state_while_there(self._held, self._said, self._started is not None)
        if self._said is not None and self._said.state == "ended" and not self._said.ended_well:
            return RunState.FAILED if self._said.begun else RunState.STOPPED
        return RunState.WAITING if self._died is None else RunState.DIED

    @property
    def message(self) -> str:
        """How it ended, why nobody trains it any more or when it begins again; empty while it goes on."""
        end = self._died or (self._ended if self._is_over else None)
        said = "" if self._said is None else self._said.in_words
        if end is None or (said and end.reason is EndReason.FAILED):
            return said
        return end.message

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

        A run that waits for its turn or is to begin again can be stopped, and hears nothing else. Raises RuntimeError
        where nobody is there to hear it, OSError where the folder takes no file.
        """
        request = Request(Command(command), value)
        self.poll()
        if self._held and self._ended is None:
            post(self.run_folder, request)
        elif self._alive and request.command in (Command.STOP, Command.DISCARD):
            (self.run_folder / STOP_FILE).touch()
        else:
            raise RuntimeError(f"Nobody hears '{request.command}': {self!r} {self.message}".rstrip())

    def stop(self) -> None:
        """End the run with the step in progress."""
        self.send(Command.STOP)

    def wait(self, timeout: float | None = None) -> TrainResult:
        """How the run went, once it has ended or died. Raises TimeoutError after so many seconds; the run goes on.

        Raises RuntimeError for one that was given up before it began. Being interrupted ends the waiting, not the run.
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
        if self._is_over and self._started is None:
            raise RuntimeError(f"{self!r} {self.message}")
        return result_of(self.events, self.run_folder) if self._is_over else None

    @property
    def _is_over(self) -> bool:
        """Whether nothing more is to come: a run that failed and is looked after may begin again."""
        if self._ended is not None:
            return not self._looked_after or self._ended.reason is not EndReason.FAILED
        gone = not self._alive and self._said is not None and self._said.state == "ended"
        return self._died is not None or gone

    def poll(self) -> None:
        """Take in what is new, and tell the listeners."""
        was_there = self._alive
        # Before the log is read: what a run writes last it writes while it is there.
        self._looked_after, self._held = is_supervised(self.run_folder), self._is_held()
        self._alive = self._held or self._looked_after or (self._is_alive is not None and self._is_alive())
        self._said = None if self._held else last_said(self.run_folder, is_there=self._alive)
        now = read_now(self.run_folder) if self._held else None
        news = self._log.look()
        if news.before is not None:
            self.events, self._ended, self._died, self._started, self._held_back = news.before, None, None, None, None
            self._since_start = 0
            self._recent.clear()
        if news.events and self._died is not None:  # it was not dead
            self.events.remove(self._died)
            self._died = None
        for event in news.events:
            self._take_in(event)
        if news.odd is not None:
            self._tell(Notice(step=self._step, text=news.odd))
        if now is not None and self._ended is None and self._listeners:
            self._tell_moment(now)
        if not self._alive and self._ended is None and self._died is None and self._started is not None:
            self._died = last_words(self.events, self._started, self.run_folder, self._said)
            self._tell(self._died)
        self._tell_of_a_pause()
        if was_there and not self._alive:
            let_go(self.run_folder)

    def _tell_of_a_pause(self) -> None:
        """That a run is to begin again, once for each time; and its failure, where it is not."""
        failure = self._held_back
        if failure is not None and self._is_over:
            self._held_back = None
            self._tell(failure)
        if self._said is None or self._said.state != "pausing" or not self._listeners:
            return
        if (cause := f"{self._said.begun} {self._said.said}") != self._begins_again:
            self._begins_again = cause
            self._tell(Notice(step=self._step, text=self._said.in_words), keep=False)

    @property
    def _step(self) -> int:
        return self.events[-1].step if self.events else 0

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
        elif isinstance(event, RunEnded) and not self._is_over:
            self._held_back = event
        else:
            self._tell(event)

    def _tell_moment(self, now: Now) -> None:
        """What the run has heard and does, where its log does not say so yet."""
        step = self._step
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

    def _listen(self, named: tuple[str, Listener]) -> None:
        self._listeners.append(named)
        self._told_early.clear()  # of those this one was not told
        self._schedule()

    def _schedule(self) -> None:
        """In a notebook, have the event loop look again and again, until the run has ended."""
        if self._scheduled is not None or (self._ended is not None and self._is_over):
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
