"""The bar that shows a run where nobody else is watching."""

import sys
from collections.abc import Callable

from tqdm import tqdm

from ..events import EvalEvent, Event, Notice, RunEnded, RunStarted, SampleEvent, ScoreEvent, StepEvent, Working
from ..machine.inert import visible
from ..machine.progress_bars import progress

# What is asked beforehand, or after a step, where that takes long: a bar of its own.
BARS = {"precomputing": "Asking the reference", "scoring": "Taking the exam"}
MARGINS = "rewards/margins"  # of what objectives over answers report, the one figure there is room for


def run_bar() -> Callable[[Event], None]:
    """A listener that shows a run as a bar with the latest loss, and its notices as lines.

    Below it is one of what goes before the first step, where that takes long.
    """
    bar: tqdm | None = None
    before: tqdm | None = None

    def show(event: Event) -> None:
        nonlocal bar, before
        if before is not None and not (isinstance(event, Working) and event.done > before.n):
            before.close()
            before = None
        match event:
            case Working(what=("precomputing" | "scoring") as what):
                before = progress([], BARS[what], total=event.total) if before is None else before
                before.update(event.done - before.n)
            case RunStarted():
                bar = tqdm(total=event.total_steps, initial=event.step, unit="step", file=sys.stdout)
            case StepEvent():
                assert bar is not None
                margin = f", margin {event.metrics[MARGINS]:.3g}" if MARGINS in event.metrics else ""
                bar.set_postfix_str(f"loss {event.loss:.3f}{margin}, {event.tokens_sec:.0f} tokens/s", refresh=False)
                bar.update()
            case EvalEvent():
                tqdm.write(f"step {event.step}: held-out loss {event.loss:.4f} ({event.rows} rows)")
            case ScoreEvent():
                tqdm.write(f"step {event.step}: {visible(event.sentence)}")
            case SampleEvent():
                tqdm.write(f"step {event.step}: {event.prompt!r} → {event.text!r}")
            case Notice():
                tqdm.write(visible(event.text))
            case RunEnded():
                assert bar is not None
                bar.close()
                tqdm.write(visible(event.message))

    return show
