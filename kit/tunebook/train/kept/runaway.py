"""A loss that runs away: it was low, and for several steps lies far above that, as where a learning rate is too high.

Losses and the folder with a run's checkpoints come in. Out go one sentence, when it begins, and the weights of the best
or the last checkpoint from before, when someone asks to go back.
"""

import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import final

import mlx.nn as nn

from ...events import Notice
from ..progress import RunProgress
from .checkpoint import TornCheckpoint, checkpoint_folders, read_checkpoint, step_of

WINDOW = 8  # steps whose mean loss is looked at, so that one hard batch is no alarm
TIMES, NATS = 1.5, 1.0  # above the lowest mean by both, a loss has run away
NOTHING_BEFORE = "There is no whole checkpoint from before the loss ran away; the weights are those of the last step."


@final
class Runaway:
    """Watches the loss of one run."""

    def __init__(self, module: nn.Module):
        self._module = module
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._lowest = math.inf  # mean of WINDOW losses so far
        self._good_step = 0  # up to here the loss was about as low as it has been
        self._said = False

    def look_at(self, step: int, loss: float) -> bool:
        """Take in the loss of a step; True where it has run away and that was not said yet."""
        if not math.isfinite(loss):
            return False  # the step was not applied, and is told of
        self._recent.append(loss)
        if len(self._recent) < WINDOW:
            return False
        mean = sum(self._recent) / WINDOW
        self._lowest = min(mean, self._lowest)
        if mean < self._lowest + NATS / 2:
            self._good_step, self._said = max(step - WINDOW, 0), False
        away = mean > max(TIMES * self._lowest, self._lowest + NATS)
        begins, self._said = away and not self._said, away or self._said
        return begins

    def notices(
        self, loss: float, progress: RunProgress, folder: Path | None, rate: float, *, discards: bool
    ) -> Iterator[Notice]:
        """`look_at` the loss of the last step as a notice; `rate` is the learning rate in force."""
        if self.look_at(progress.step, loss):
            yield self._notice(progress, folder, rate, discards=discards)

    def _notice(self, progress: RunProgress, folder: Path | None, rate: float, *, discards: bool) -> Notice:
        """What is said of it, with the step to go back to where there is one."""
        found = self._good(progress, folder)
        now = sum(self._recent) / WINDOW
        text = (
            f"The loss runs away: over the last {WINDOW} steps it is {now:.2f} on average, and it was "
            f"{self._lowest:.2f}. What helps is a lower learning_rate (now {rate:g}). "
        )
        if found:
            target = step_of(found[0])
            text += (
                f"trainer.send('go_back'), or its button, ends the run with the weights of step {target} in the model."
            )
            return Notice(step=progress.step, text=text, go_back_to=target)
        undone = "; a discard puts the weights back as they were before this run" if discards else ""
        return Notice(step=progress.step, text=f"{text}No checkpoint was written before it did{undone}.")

    def put_back(self, progress: RunProgress, folder: Path | None) -> tuple[str, bool]:
        """Put the weights of the best or last good checkpoint into the module: (what to say, whether it is done)."""
        for checkpoint in self._good(progress, folder):
            try:
                weights = read_checkpoint(checkpoint).weights
            except TornCheckpoint:
                continue
            self._module.load_weights(list(weights.items()), strict=False)
            step = step_of(checkpoint)
            return (
                f"The weights of step {step} are in the model, and those after it are not kept. Lower learning_rate in "
                "TrainingConfig and train anew: the run begins with them.",
                True,
            )
        return NOTHING_BEFORE, False

    def _good(self, progress: RunProgress, folder: Path | None) -> list[Path]:
        """Checkpoints from before: those with a held-out loss, the lowest first, then the newest."""
        if folder is None:
            return []
        scores = {event.step: event.loss for event in progress.evals if math.isfinite(event.loss)}
        found = [each for each in checkpoint_folders(folder) if step_of(each) <= self._good_step]
        return sorted(found, key=lambda each: (scores.get(step_of(each), math.inf), -step_of(each)))
