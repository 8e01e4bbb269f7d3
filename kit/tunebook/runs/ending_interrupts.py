"""The interrupts of one run: its end, in which it is saved and told of, is not cut short by a second one.

A run enters `Interrupts`, says when it is ending, and has the interrupts that come then handed on when it has ended.
"""

import os
import signal
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Self, TypeVar, final

T = TypeVar("T")
Handler = Callable[..., object]

PATIENCE_SECONDS = 10.0  # after the first interrupt that is held back in an ending, one more gets through
HELD = (
    b"\nThe run is ending and saves what it has learnt. To leave without that, interrupt it once more after "
    b"%d seconds.\n" % PATIENCE_SECONDS
)


@final
class Interrupts:
    """The interrupts of one run: the first ends it or is answered by its ending, the others wait until it has ended.

    As a context it stands between SIGINT and whoever handled it, who is handed the first, and after the run the last of
    those that waited. Outside the main thread, and where the handler was not installed from Python, it holds nothing
    back but what is thrown into the run.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._holding = self._ended_the_run = False
        self._waiting: list[Callable[[], object]] = []  # each raises or hands on an interrupt that was held back
        self._first_held_at = 0.0
        self._handler: Handler | None = None

    def __enter__(self) -> Self:
        handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(handler):
            self._handler = handler
            signal.signal(signal.SIGINT, self._arrived)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        unanswered = self._waiting if self._ended_the_run else self._waiting[1:]
        if kind is None and unanswered:
            unanswered[-1]()

    def hold(self, *, ended_the_run: bool = False) -> None:
        """Keep interrupts for later from now on; `ended_the_run` when one of them did."""
        self._holding, self._ended_the_run = True, ended_the_run

    def held_from(self, ending: Generator[T, None, None]) -> Generator[T, None, None]:
        """`ending`, unmoved by an interrupt that is thrown in at a yield: it is kept for later."""
        for event in ending:
            try:
                yield event
            except (KeyboardInterrupt, CancelledError) as interrupt:
                self._keep(_raising(interrupt))

    def _arrived(self, *details: Any) -> None:
        assert self._handler is not None
        handler = self._handler
        if self._holding and not (self._waiting and self._clock() - self._first_held_at >= PATIENCE_SECONDS):
            if not self._waiting:
                os.write(2, HELD)  # print could be in the middle of a line of its own
            self._keep(lambda: handler(*details))
            return
        try:
            handler(*details)
        except BaseException:
            self._holding = True  # here, so that there is no moment between this interrupt and the run's answer to it
            raise

    def _keep(self, handing_on: Callable[[], object]) -> None:
        if not self._waiting:
            self._first_held_at = self._clock()
        self._waiting.append(handing_on)


def _raising(interrupt: BaseException) -> Callable[[], object]:
    def rise() -> None:
        raise interrupt

    return rise
