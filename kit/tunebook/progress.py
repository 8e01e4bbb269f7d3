"""Progress bars: one for anything that takes over two seconds, and the one a run shows when nobody else is watching.

They are text, not widgets: a widget is a broken box in a saved notebook once its kernel is gone.
"""

import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from tqdm import tqdm

from .events import EvalEvent, Event, Notice, RunEnded, RunStarted, SampleEvent, StepEvent
from .inert import one_line, visible

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int | None = None) -> "tqdm[T]":
    """Iterate over `items` with a bar that shows only if it takes over two seconds, and goes when it is done.

    `total` is how many there are, where they cannot be counted beforehand.
    """
    return tqdm(items, total=total, desc=one_line(what), delay=2, leave=False, file=sys.stdout)


def bytes_bar(total: int, what: str) -> tqdm:
    """A bar to `update` with numbers of bytes; it shows and goes as `progress` does."""
    return tqdm(total=total, desc=one_line(what), delay=2, leave=False, file=sys.stdout, unit="B", unit_scale=True)


def run_bar() -> Callable[[Event], None]:
    """A listener that shows a run as a bar with the latest loss, and its notices as lines."""
    bar: tqdm | None = None

    def show(event: Event) -> None:
        nonlocal bar
        match event:
            case RunStarted():
                bar = tqdm(total=event.total_steps, initial=event.step, unit="step", file=sys.stdout)
            case StepEvent():
                assert bar is not None
                bar.set_postfix_str(f"loss {event.loss:.3f}, {event.tokens_sec:.0f} tokens/s", refresh=False)
                bar.update()
            case EvalEvent():
                tqdm.write(f"step {event.step}: held-out loss {event.loss:.4f} ({event.rows} rows)")
            case SampleEvent():
                tqdm.write(f"step {event.step}: {event.prompt!r} → {event.text!r}")
            case Notice():
                tqdm.write(visible(event.text))
            case RunEnded():
                assert bar is not None
                bar.close()
                tqdm.write(visible(event.message))

    return show
