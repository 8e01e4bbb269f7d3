"""What work in this kernel costs the runs that go on beside it, in a sentence: told once for each run.

The steps of a run before and meanwhile go in, as its log has them; both share this machine.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from ..events import StepEvent
from .run import Run, known

LATEST = 8  # steps that tell how long one took before

_told: set[Path] = set()  # of the run folders


def beside_runs(pieces: Iterable[str]) -> Iterator[str]:
    """`pieces` as they come; prints at their end what they cost each run that went on beside them, once for each."""
    handles = {run.run_folder.resolve(): run for run in [*known]}
    going_on = {place: run for place, run in handles.items() if place not in _told and run.state == "running"}
    before = {place: _ends_of_steps(run) for place, run in going_on.items()}
    yield from pieces
    for place, run in going_on.items():
        _told.add(place)
        print(cost(str(run.run_folder), before[place], _ends_of_steps(run)))


def cost(name: str, before: Sequence[float], after: Sequence[float]) -> str:
    """What a run is told to have cost; `before` and `after` are when its steps had ended, in seconds."""
    usual = _gaps(before[-LATEST - 1 :])
    meanwhile = _gaps(after[max(0, len(before) - 1) :])
    meanwhile = meanwhile[1:] or meanwhile  # the first had begun already
    if not usual or not meanwhile:
        return f"The run in {name} trains meanwhile; both share this machine."
    return f"The run in {name} took {median(meanwhile):.2f} s a step meanwhile, {median(usual):.2f} s before."


def _ends_of_steps(run: Run) -> list[float]:
    run.poll()
    return [event.elapsed for event in run.events if isinstance(event, StepEvent)]


def _gaps(ends: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(ends)]
