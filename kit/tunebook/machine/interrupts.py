"""Signals at moments code can bear: an interrupt never tears a stretch of it in two, a termination waits for an end.

An optimizer update changes parameters and optimizer state together; an interrupt between the two would leave weights
that belong to no step.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """Deliver an interrupt that arrives inside the block when the block is done.

    Outside the main thread, and where the handler was not installed from Python, nothing is done: no interrupt arrives
    there, or none that could be handed on.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    arrived: list[tuple] = []
    signal.signal(signal.SIGINT, lambda *details: arrived.append(details))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if arrived:
        previous(*arrived[0])


@contextmanager
def on_terminate(stop: Callable[[], None]) -> Iterator[None]:
    """Have SIGTERM call `stop` inside the block instead of ending the process; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous if previous is not None else signal.SIG_DFL)


@contextmanager
def end_on_terminate(stop: Callable[[], None]) -> Iterator[None]:
    """`on_terminate`, and the process ends behind the block, as it was asked to.

    As SystemExit with the status a shell knows SIGTERM by; a handler there was before is called in its place. A block
    that raises goes its own way.
    """
    asked = False

    def note() -> None:
        nonlocal asked
        asked = True
        stop()

    previous = signal.getsignal(signal.SIGTERM)
    with on_terminate(note):
        yield
    if asked and callable(previous):
        previous(signal.SIGTERM, None)
    elif asked and previous != signal.SIG_IGN:
        raise SystemExit(128 + signal.SIGTERM)
