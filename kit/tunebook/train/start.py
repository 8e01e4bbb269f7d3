"""How a run begins: in a folder of its own, or where a checkpoint left it.

A run comes in and is put in its place; what there is to say of other runs beside it is added to its notices.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..config import TrainingConfig
from ..events import EvalEvent, Event, SampleEvent, ScoreEvent, StepEvent
from ..runs import EVENTS_FILE, Rewound, rewind
from ..runs.lock import RunLock
from .kept.checkpoint import Checkpoint, check_is_of
from .kept.earlier_runs import said_of_earlier_runs
from .kept.run_files import begin_run_files, check_rates, keeps_rates, put_back_run_files
from .kept.saving import make_run_folder
from .loop import Run
from .passes.beforehand import check_is_known
from .plan import RunPlan
from .progress import RunProgress
from .ranks.from_first import checkpoint_of_first

BEFORE_ALL = -1  # a step that no event is of
Differences = Callable[[Mapping[str, Any]], list[str]]  # an identity -> a line for each value that is another here


def place_of(config: TrainingConfig, resume_from: str | Path | bool) -> Path:
    """The folder a checkpoint is looked for in. Raises ValueError for the latest of no output_dir."""
    if resume_from is not True and resume_from != "latest":
        return Path(str(resume_from)).expanduser().absolute()
    if config.output_dir is None:
        raise ValueError("There is no output_dir to find the latest checkpoint in; set it, or pass a path.")
    return Path(config.output_dir).expanduser().absolute()


def begin(run: Run, hold: Callable[[Path], None], differences: Differences) -> None:
    """Put a new run into a folder that `hold` makes its own; nowhere where it is to leave nothing on the disk."""
    config = run.plan.config
    if config.output_dir is None:
        return
    folder = make_run_folder(config.output_dir)
    hold(folder)
    begin_in(run, folder, differences)


def begin_in(run: Run, folder: Path, differences: Differences) -> None:
    """Put a new run into a folder that is its own; what one that left no checkpoint said there is forgotten.

    The learning rates that were asked of that one are not: a run that begins again is to become the same.
    """
    run.folder = folder
    rewound = rewind(folder, BEFORE_ALL) if (folder / EVENTS_FILE).exists() else Rewound()
    run.progress.learning_rates |= rewound.rates_ahead
    begin_run_files(folder, run.plan.config, run.plan.identity, rewound.rates_ahead)
    run.notices += [*rewound.notices, *said_of_earlier_runs(folder, differences)]


def resume(
    run: Run, found: tuple[Path, Checkpoint, list[str]], place: Path | None, differences: Differences
) -> list[Event]:
    """Put a run where the checkpoint left it that was `found` in `place`; gives the events before it.

    Raises ForeignCheckpoint for a checkpoint of another run, ReferenceGone for held-out rows that it cannot measure.
    """
    folder, checkpoint, skipped = found
    run.folder = folder
    check_is_of(differences(checkpoint.identity), folder)
    # From a checkpoint of choice the run may take another course.
    same_course = place in (folder, folder.parent)
    if same_course:
        check_rates(folder, checkpoint)
    run.reference.take_up(checkpoint.reference, checkpoint.said)
    check_is_known(run.plan, run.reference)
    run.restore(checkpoint)
    rewound = rewind(folder, run.step, same_course=same_course, rates_are_kept=keeps_rates(checkpoint))
    run.progress.learning_rates |= rewound.rates_ahead
    run.notices += [*skipped, *rewound.notices]
    run.samples.put_back(event for event in rewound.events if isinstance(event, SampleEvent) and event.step == run.step)
    for event in rewound.events:
        if isinstance(event, StepEvent):
            run.overoptimization.look_at(event.metrics)  # a run is held against its start, and told of it once
    for event in rewound.events:  # a score that was measured after the checkpoint of its step was written
        if isinstance(event, EvalEvent) and event.step == run.step and not run.progress.is_scored:
            run.looks.count(event, run.progress, counts=run.is_evaluation_step)
        if isinstance(event, ScoreEvent) and event.step == run.step and not run.progress.has_marks(event.exam):
            run.looks.count_score(event, run.progress)
    run.looks.keep_if_best(run.progress)  # by another yardstick than before, perhaps
    run.notices += _said_of_exams(run.plan, run.progress)
    return rewound.events


def take_up_from_first(run: Run) -> None:
    """Have the run go on in every process as it does in the first, which alone has its folder."""
    if run.ranks.is_alone:
        return
    own = run.saves.checkpoint(run.progress) if run.ranks.is_first else None
    checkpoint = checkpoint_of_first(run.ranks, own)
    rates = run.ranks.of_first([[*run.progress.learning_rates], [*run.progress.learning_rates.values()]])
    if not run.ranks.is_first:
        run.reference.take_up(checkpoint.reference, checkpoint.said)
        run.restore(checkpoint)
        run.progress.learning_rates = dict(zip(*rates, strict=True))


def _said_of_exams(plan: RunPlan, progress: RunProgress) -> list[str]:
    """A sentence where the run that goes on has another exam than it had, or none any more."""
    if not progress.scores:
        return []
    last = progress.scores[-1]
    if plan.exam is None:
        return [f"Up to step {last.step} this run was scored by an exam; it has none now, so no score is taken."]
    if last.exam == plan.exam.digest:
        return []
    follows = " Best weights and patience count anew from here." if plan.yardstick.metric is not None else ""
    return [
        f"The exam is another one than that of the scores up to step {last.step}, in its rows, its metrics or its "
        f"max_tokens: they are not compared with those to come.{follows}"
    ]


def see_to_folder(run: Run, lock: RunLock) -> None:
    """Have the run make its folder anew, held and with its files, where that is taken away in the middle of it."""
    run.see_to_folder = partial(_put_back, run, lock)


def _put_back(run: Run, lock: RunLock) -> None:
    assert run.folder is not None
    lock.hold_again()
    put_back_run_files(run.folder, run.plan.config, run.plan.identity, run.progress)
