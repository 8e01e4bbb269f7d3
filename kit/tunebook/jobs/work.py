"""All that a run begins with, and the beginning of it: in a folder of its own, or where a checkpoint left it.

A trainer makes a `Work` of what it was given, and a job folder is opened as one; both are begun here, so that a run in
a process of its own is the run there would have been in the kernel.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from ..events import EndReason, Event, RunEnded
from ..memory.forecast import asked_checkpointing, settled, start_fits
from ..models.loaded import Loaded
from ..models.tensors import flat
from ..runs.controls import Controls
from ..runs.lock import RunLock
from ..train.kept.checkpoint import Checkpoint, checkpoint_folders, find_checkpoint, put_right_beside
from ..train.kept.identity import differences
from ..train.loop import Run
from ..train.passes.slow_here import slow_here
from ..train.plan import RunPlan
from ..train.ranks.check import met
from ..train.ranks.group import Ranks, joined
from ..train.start import begin, begin_in, place_of, resume, see_to_folder, take_up_from_first

ResumeFrom = bool | str | Path | None
Hold = Callable[[Path], RunLock]  # makes a run folder this run's alone


class HoldsModel(Protocol):
    """What a run asks of a model: `FastModel` is one."""

    loaded: Loaded
    gradient_checkpointing: bool | Literal["auto"]
    run_events: Sequence[Event]


@dataclass(frozen=True, eq=False, kw_only=True)
class Work:
    """What is to be trained, before anything is settled that is left open."""

    model: HoldsModel
    plan: RunPlan  # with the configuration as it was asked for
    notices: Sequence[str] = ()  # what is to be said of the rows

    def differences(self, plan: RunPlan, identity: Mapping[str, Any]) -> list[str]:
        """A line for each value in which a run of `identity` differs from a run of `plan`, which is of this work."""
        here = dict(plan.identity)
        here |= {
            "gradient_checkpointing": asked_checkpointing(self.model, self.plan.config),
            "compile": self.plan.config.compile,
        }
        # What is left open a run that is resumed does as it did before.
        return differences(identity, {name: value for name, value in here.items() if value != "auto"})


def begun(work: Work, hold: Hold, resume_from: ResumeFrom = None) -> tuple[Run, list[Event]]:
    """(a new or resumed run, what was told of it before); its folder was given to `hold`.

    One of several processes (`train/ranks/`) trains together with the others; the first of them has the folder, and the
    run it goes on with is handed to all. Raises ValueError where nothing is trainable, and what `find_checkpoint`,
    `train.start`, `joined` and `check_alike` raise.
    """
    check_trainable(work.model)
    ranks = joined()
    place = place_of(work.plan.config, resume_from) if resume_from else None
    locks: list[RunLock] = []

    def holding(run_folder: Path) -> None:
        locks.append(hold(run_folder))

    found = None
    if place is not None and ranks.is_first:
        found = find_checkpoint(place, holding, partial(work.differences, work.plan))
    run = _run_of(work, found, ranks)
    differs = partial(work.differences, run.plan)
    earlier: list[Event] = []
    if found:
        earlier = resume(run, found, place, differs)
    elif ranks.is_first:
        run.notices += trained_before(work.model)
        begin(run, holding, differs)
    if place is not None:
        take_up_from_first(run)
    if locks:
        _settle_in(run, locks[-1])
    return run, earlier


def begun_in(work: Work, folder: Path, lock: RunLock | None) -> tuple[Run, list[Event]]:
    """`begun`, in a run folder that is held already: from its newest whole checkpoint, or anew where it has none.

    `lock` is the hold of the first of several processes; the others have none.
    """
    check_trainable(work.model)
    ranks = joined()
    found = _newest_in(folder) if lock is not None else None
    run = _run_of(work, found, ranks)
    differs = partial(work.differences, run.plan)
    earlier: list[Event] = []
    if found:
        earlier = resume(run, found, folder, differs)
    elif lock is not None:
        begin_in(run, folder, differs)
    if ranks.of_first(found is not None):
        take_up_from_first(run)
    if lock is not None:
        _settle_in(run, lock)
    return run, earlier


def _newest_in(folder: Path) -> tuple[Path, Checkpoint, list[str]] | None:
    try:
        return find_checkpoint(folder) if checkpoint_folders(folder) else None
    except FileNotFoundError:  # none of them is whole
        return None


def check_trainable(model: HoldsModel) -> None:
    """Raise ValueError where nothing of a model is trainable."""
    if not flat(model.loaded.module.trainable_parameters()):
        raise ValueError("Nothing in this model is trainable; call FastModel.get_peft_model(model) first.")


def trained_before(model: HoldsModel) -> list[str]:
    """A sentence where a model holds what an earlier run taught it since it was loaded."""
    ended = next((event for event in reversed(model.run_events) if isinstance(event, RunEnded)), None)
    if ended is None or ended.step == 0 or ended.reason is EndReason.DISCARDED:
        return []
    steps = "1 step" if ended.step == 1 else f"{ended.step} steps"
    return [
        f"This model was trained since it was loaded, its last run for {steps}, and this run begins with what it has "
        "learnt; to begin afresh, load it again with FastModel.from_pretrained."
    ]


def _run_of(work: Work, found: tuple[Path, Checkpoint, list[str]] | None, ranks: Ranks) -> Run:
    """A run with all of it settled that was left open, as it was before where a checkpoint was `found`.

    It is the same in all `ranks`: one that lacks the memory decides for the others.
    """
    plan, before = work.plan, ranks.of_first(found[1].identity if found else {})
    rows = plan.feed.known
    config, notices = settled(
        work.model, plan.config, rows, objective=plan.objective, before=before.get("gradient_checkpointing")
    )
    if config.compile == "auto":
        config = replace(config, compile=before.get("compile", "auto"))
    fits = ranks.exchange([config.gradient_checkpointing, start_fits(work.model, config, rows, plan.objective)])
    if any(recomputes for recomputes, _ in fits):
        config = replace(config, gradient_checkpointing=True)
    plan = replace(plan, config=config, start_fits=all(start for _, start in fits))
    links = met(ranks, plan)
    controls = Controls(None if ranks.is_alone else ranks.exchange)
    said = [*work.notices, *slow_here(plan.loaded.module), *notices, *links]
    return Run(plan, notices=said, ranks=ranks, controls=controls)


def _settle_in(run: Run, lock: RunLock) -> None:
    assert run.folder is not None
    put_right_beside(run.folder)
    see_to_folder(run, lock)
    if lock.notice is not None:
        run.notices.append(lock.notice)
