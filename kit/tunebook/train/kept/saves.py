"""The checkpoints of one run, each step's once, and when the next is due.

The plan, the stepper and the weights a run keeps come in; a checkpoint in its folder and the event that tells of it go
out. A disk that will not take it is told of, and ends no run.
"""

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import final

from ...events import CheckpointSaved, Event, Notice
from ...machine.interrupts import held_back
from ...models.tensors import flat
from ...objectives.reference import Reference
from ..owed import Owed
from ..plan import RunPlan
from ..progress import RunProgress
from ..step import Stepper
from .checkpoint import Checkpoint, save_checkpoint
from .saving import SaveSchedule
from .snapshots import KeptWeights


@final
class Saves:
    """Writes checkpoints; `step` is that of the last one there is, None before any."""

    def __init__(self, plan: RunPlan, stepper: Stepper, kept: KeptWeights, owed: Owed, reference: Reference):
        self.step: int | None = None
        self.schedule = SaveSchedule(plan.config)
        self._plan, self._stepper, self._kept, self._owed, self._reference = plan, stepper, kept, owed, reference

    def checkpoint(self, progress: RunProgress) -> Checkpoint:
        """The run as it is."""
        return Checkpoint(
            weights=flat(self._plan.loaded.module.trainable_parameters()),
            optimizer_state=self._stepper.optimizer.state,
            best_weights=self._kept.best,
            identity=self._plan.identity,
            progress=progress.as_plain(),
            reference=self._reference.kept,
            said=self._reference.written,
        )

    def write(
        self, progress: RunProgress, folder: Path, see_to_folder: Callable[[], None]
    ) -> Generator[Event, None, None]:
        """Write the checkpoint of the step `progress` is at into `folder`, made anew where it is gone."""
        began, checkpoint = time.monotonic(), self.checkpoint(progress)
        try:
            see_to_folder()
            path = save_checkpoint(folder, progress.step, checkpoint, keep=self._plan.config.save_total_limit)
        except (OSError, RuntimeError) as error:  # a full disk, or MLX out of memory
            yield Notice(step=progress.step, text=f"No checkpoint was written at step {progress.step}. {error}")
        else:
            with held_back():
                self.step = progress.step
                self._owed.add(CheckpointSaved(step=progress.step, path=str(path)))
            yield from self._owed.told()
        finally:
            self.schedule.tried(time.monotonic() - began)
