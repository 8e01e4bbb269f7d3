"""How a run begins: in a folder of its own, or where a checkpoint left it.

A plan comes in; the run goes out, in place, with what there is to say of other runs beside it. Nothing is trained here.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..config import TrainingConfig
from ..events import Event, SampleEvent
from ..runs.folder import CONFIG_FILE, keep_config
from ..runs.learning_rates import check_learning_rates
from ..runs.lock import RunLock
from ..runs.log import rewind
from .kept.checkpoint import Checkpoint, check_is_of, checkpoint_at, checkpoint_folders, step_of
from .kept.earlier_runs import said_of_earlier_runs
from .kept.saving import make_run_folder
from .loop import Run

Differences = Callable[[Mapping[str, Any]], list[str]]  # an identity -> a line for each value that is another here


def begin(run: Run, hold: Callable[[Path], None], differences: Differences) -> None:
    """Put a new run into a folder that `hold` makes its own; nowhere where it is to leave nothing on the disk."""
    config = run.plan.config
    if config.output_dir is None:
        return
    run.folder = make_run_folder(config.output_dir)
    hold(run.folder)
    keep_config(run.folder, config.as_plain(), run.plan.identity)
    run.notices += said_of_earlier_runs(run.folder, differences)


def resume(
    run: Run, found: tuple[Path, Checkpoint, list[str]], place: Path | None, differences: Differences
) -> list[Event]:
    """Put a run where the checkpoint left it that was `found` in `place`; gives the events before it.

    Raises ForeignCheckpoint for a checkpoint of another run.
    """
    folder, checkpoint, skipped = found
    run.folder = folder
    check_is_of(differences(checkpoint.identity), folder)
    # From a checkpoint of choice the run may take another course.
    same_course = place in (folder, folder.parent)
    if same_course:
        step, newest = checkpoint.progress["step"], step_of(checkpoint_folders(folder)[-1])
        check_learning_rates(folder, step, newest=newest, checkpoint=checkpoint_at(folder, step))
    run.restore(checkpoint)
    rewound = rewind(folder, run.step, same_course=same_course)
    run.progress.learning_rates |= rewound.rates_ahead
    run.notices += [*skipped, *rewound.notices]
    run.samples.put_back(event for event in rewound.events if isinstance(event, SampleEvent) and event.step == run.step)
    return rewound.events


def see_to_folder(run: Run, lock: RunLock) -> None:
    """Have the run make its folder anew, held and with its config, where that is taken away in the middle of it."""
    assert run.folder is not None
    run.see_to_folder = partial(_put_back, run.folder, lock, run.plan.config, run.plan.identity)


def _put_back(run_folder: Path, lock: RunLock, config: TrainingConfig, identity: Mapping[str, Any]) -> None:
    lock.hold_again()
    if not (run_folder / CONFIG_FILE).exists():
        keep_config(run_folder, config.as_plain(), identity)
