"""A run's events told to those who listen, waiting or awaiting, and an interrupt handed back to the run.

A generator of events (`train/loop.py`) is drained here; what was told is kept. Listeners are strangers' code: one
that raises is reported and left out from then on, and the run goes on. Nothing is drawn or decided here.
"""

import asyncio
import inspect
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, final

from ..events import Event, Notice, StepEvent, Working
from ..machine.interrupts import held_back
from .folder import event_log

Events = Generator[Event, None, None]
Listener = Callable[[Event], None]
StepCallback = Callable[..., Any]

INTERRUPTS = (KeyboardInterrupt, asyncio.CancelledError)


@final
class Audience:
    """Those who are told of a run's events, and the record of what they were told."""

    def __init__(self, listeners: Sequence[tuple[str, Listener]], run_folder: Path | None, earlier: Sequence[Event]):
        """`listeners` come with the name each is called by in a report; the log in `run_folder` is told before them."""
        self.told = list(earlier)  # a resumed run's own past is part of its record
        self._log = [("The event log", event_log(run_folder, self._say, self.told))] if run_folder else []
        self._listeners = list(listeners)
        self._to_hear: deque[tuple[Event, tuple[str, Listener]]] = deque()
        self._latest: Event | None = None

    def tell(self, event: Event) -> None:
        """Pass an event to every listener, in order; one that raises is reported to the others and not told again.

        An interrupt that rises in a listener rises from here when all have been told. One that rises elsewhere may keep
        some from hearing: to be told the same event once more is to go on with those.
        """
        with held_back():  # what is missing from the record, a run that goes on would not know of
            if event is not self._latest:
                self._latest = event
                self._record(event)
        interrupt: BaseException | None = None
        while self._to_hear:
            heard, named = self._to_hear.popleft()
            if named not in self._listeners:
                continue
            try:
                named[1](heard)
            except INTERRUPTS as raised:
                interrupt = raised
            except Exception as error:  # noqa: BLE001 - strangers' code may raise anything; the run must not end for it
                self._listeners.remove(named)
                self._report(named[0], error)
        if interrupt is not None:
            raise interrupt

    def _record(self, event: Event) -> None:
        """Keep an event, here and in the log, and note who is to hear of it."""
        if not isinstance(event, Working):
            self.told.append(event)
        self._to_hear.extend((event, named) for named in self._listeners)
        for name, log in list(self._log):
            try:
                log(event)
            except Exception as error:  # noqa: BLE001 - no log is worth the run
                self._log.clear()
                self._report(name, error)

    def _report(self, name: str, error: Exception) -> None:
        text = f"{name} raised {type(error).__name__}: {error}. It is switched off; training goes on."
        warnings.warn(text, stacklevel=3)
        self._say(text)

    def _say(self, text: str) -> None:
        self._record(Notice(step=self.told[-1].step if self.told else 0, text=text))


def drain(events: Events, audience: Audience) -> None:
    """Take a run to its end. An interrupt is thrown into `events`, so that the run ends in its own way."""
    interrupt: BaseException | None = None
    while not _is_over(events):
        try:
            for event in _going_on(events, interrupt):
                audience.tell(event)
        except INTERRUPTS as another:
            if _is_over(events):
                raise
            interrupt = another


async def drain_async(events: Events, audience: Audience) -> None:
    """`drain`, letting other tasks run after each event; being cancelled is an interrupt too."""
    interrupt: BaseException | None = None
    while not _is_over(events):
        try:
            for event in _going_on(events, interrupt):
                audience.tell(event)
                await _let_others_run()
        except INTERRUPTS as another:
            if _is_over(events):
                raise
            interrupt = another


def step_listener(callback: StepCallback) -> Listener:
    """A listener that calls `callback` after every optimizer step with the first nine values of its `StepEvent`.

    One that takes eight is called without grad_norm, the last. Raises TypeError for one that takes neither.
    """
    count = _values_taken(callback)

    def listener(event: Event) -> None:
        if isinstance(event, StepEvent):
            callback(*astuple(event)[:count])

    return listener


def _is_over(events: Events) -> bool:
    return inspect.getgeneratorstate(events) == inspect.GEN_CLOSED


def _going_on(events: Events, interrupt: BaseException | None) -> Events:
    """The events that follow, `interrupt` being answered first. `events` outlives it, should it be given up."""
    if interrupt is not None:
        try:
            event = events.throw(interrupt)
        except StopIteration:
            return
        yield event
    for event in events:  # not `yield from`, which would close `events` with this generator
        yield event


async def _let_others_run() -> None:
    """Give the event loop enough turns to receive a message and act on it.

    A button press reaches an ipykernel 7.4 as socket event, reader, dispatcher and handler, each in a turn of its own;
    with a single turn between micro-batches it would be heard several micro-batches late. A turn takes about 10 µs.
    """
    for _ in range(8):
        await asyncio.sleep(0)


def _values_taken(callback: StepCallback) -> int:
    """Nine, or eight for a callback without grad_norm. Raises TypeError when it can be called with neither."""
    signature = inspect.signature(callback)
    for count in (9, 8):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count
    raise TypeError(
        f"{callback!r} takes {signature}; a step callback is called with nine positional values: step, total_steps, "
        "loss, lr, tokens_sec, peak_gb, elapsed, num_tokens, grad_norm."
    )
