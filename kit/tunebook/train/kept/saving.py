"""Where a run's checkpoints go, when one is due, and what there is to say of it beforehand.

Settings and the clock come in; a folder, a yes or no, and sentences go out. A checkpoint only reads the weights, so
when it is written changes no number of the run.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import mlx.core as mx
import mlx.nn as nn

from ...config import TrainingConfig
from ...models.tensors import flat
from ...runs.folder import new_run_folder
from ..optim.optimizer import Optimizer

FIRST_MINUTES = 2.0  # of training, after which the first checkpoint is written where save_minutes is not shorter
MOST_OF_THE_TIME = 0.05  # of a run that goes into checkpoints that are due by the clock
NOT_ON_THE_DISK = (
    "Nothing of this run is on the disk, because TrainingConfig.output_dir is None; the weights are in the model, and "
    "model.save_pretrained keeps them."
)
LARGE_GB = 2.0  # 1e9 bytes; what checkpoints take on the disk is said from here on


@final
class SaveSchedule:
    """Says after each step whether a checkpoint is due, by the count of steps or by the clock.

    `clock` gives seconds; a test has its own.
    """

    def __init__(self, config: TrainingConfig, clock: Callable[[], float] = time.monotonic):
        self._every_steps, self._minutes, self._clock = config.save_steps, config.save_minutes, clock
        self._since = self._last_asked = clock()
        self._wait = 60 * min(FIRST_MINUTES, self._minutes or FIRST_MINUTES)

    def start(self) -> None:
        """Count from now: the first step is about to be taken."""
        self._since = self._last_asked = self._clock()

    def is_due(self, step: int) -> bool:
        """Whether to save after `step`, which was just taken. One that would be late after the next step is due now."""
        now = self._clock()
        step_seconds, self._last_asked = now - self._last_asked, now
        if self._every_steps is not None and step % self._every_steps == 0:
            return True
        return self._minutes is not None and now + step_seconds > self._since + self._wait

    def tried(self, seconds: float) -> None:
        """A checkpoint was written, or could not be, in `seconds`: the next one is due by the clock some time later."""
        self._since = self._last_asked = self._clock()
        self._wait = max(60 * (self._minutes or 0.0), seconds / MOST_OF_THE_TIME)


def make_run_folder(output_dir: str) -> Path:
    """The next run folder in `output_dir`. Raises OSError with the next move where there can be none."""
    place = Path(output_dir).expanduser().absolute()
    try:
        return new_run_folder(place)
    except OSError as error:
        raise OSError(
            error.errno,
            f"Runs cannot be kept in {place} ({error.strerror}). Set TrainingConfig.output_dir to a folder you may "
            "write to, or to None to keep nothing on the disk",
        ) from error


def checkpoint_bytes(
    module: nn.Module, optimizer: Optimizer, config: TrainingConfig, reference: Mapping[str, mx.array] | None = None
) -> int:
    """What a checkpoint of a run takes, with the best weights and the `reference` where they are kept."""
    weights = sum(array.nbytes for array in flat(module.trainable_parameters()).values())
    state = sum(array.nbytes for array in flat(optimizer.state).values())
    of_reference = sum(array.nbytes for array in (reference or {}).values())
    return (2 if config.load_best_model_at_end else 1) * weights + state + of_reference


def said_of_the_disk(folder: Path | None, each_bytes: int, most: int | None) -> list[str]:
    """Sentences about what a run will write: nothing, or so much that it is told; it keeps `most` checkpoints or all.

    While a checkpoint is written the one it will replace is still there.
    """
    if folder is None:
        return [
            "Nothing of this run is written to the disk, because TrainingConfig.output_dir is None: what it learns is "
            "lost with this kernel unless model.save_pretrained keeps it."
        ]
    free, each = shutil.disk_usage(folder).free / 1e9, each_bytes / 1e9
    room = each * ((most or 1) + 1)
    if room <= min(LARGE_GB, free):
        return []
    number = f"up to {most + 1} of them at a time" if most is not None else "and all of them are kept"
    return [
        f"A checkpoint of this run takes {each:.1f} GB, {number}; {free:.1f} GB are free in {folder.parent}. "
        "save_total_limit, save_steps, save_minutes and output_dir say how many, how often and where."
    ]
