"""Weights of a run that are kept to be put back: those it found, and its best.

A module goes in, its trainable parameters of an earlier moment are put into it again, and a sentence that says so comes
out. Nothing is written to disk.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import mlx.core as mx
import mlx.nn as nn

from ...models.adapters import parameter_counts
from ...models.tensors import flat
from ...runs.best import Measured, Yardstick

SMALL_SHARE = 0.1  # up to which share of all parameters a copy of the trained ones is kept whatever memory there is
NO_DISCARD = (
    "This run cannot be discarded: so many weights are trained that no copy of them fits beside it. To have the old "
    "ones back, load the model again."
)


@final
class KeptWeights:
    """Trainable parameters of `module`, by dotted name, from moments worth going back to.

    No array is copied: a step makes new ones, so the memory kept is that of the parameters, once for each moment.
    """

    def __init__(self, module: nn.Module, *, start_fits: bool = True):
        """`start_fits` says whether there is memory for what `module` holds now; a small part of it is kept anyway."""
        self._module = module
        self._is_small = trains_little(module)
        self.keeps_start = self._is_small or start_fits
        self._start: dict[str, mx.array] | None = None
        self._good: tuple[int, dict[str, mx.array]] | None = (
            None  # the last a finite loss was computed with, their step
        )
        self.best: dict[str, mx.array] | None = None  # by the yardstick of the run, if they will be wanted

    def keep_start(self) -> None:
        """Keep what `module` holds now to discard a run with, where there is room for it."""
        if self.keeps_start:
            self._start = flat(self._module.trainable_parameters())

    def keep_best(self) -> None:
        """Keep what `module` holds now in place of the best before."""
        self.best = flat(self._module.trainable_parameters())

    def now(self) -> dict[str, mx.array]:
        """What `module` holds now, for `keep_good`; nothing where that is not kept, to free its memory."""
        return flat(self._module.trainable_parameters()) if self._is_small else {}

    def keep_good(self, step: int, weights: dict[str, mx.array]) -> None:
        """Keep the weights of `step`, which gave a finite loss, unless that is more than SMALL_SHARE of the model."""
        if self._is_small:
            self._good = (step, weights)

    @contextmanager
    def good_in_place(self) -> Iterator[int | None]:
        """The good weights in the module until the block ends; yields their step, None where there are none."""
        if self._good is None:
            yield None
            return
        step, weights = self._good
        current = self.now()
        self._put_back(weights)
        try:
            yield step
        finally:
            self._put_back(current)

    def put_good_back(self) -> int | None:
        """Go back to the last weights that gave a finite loss; gives their step, None where there are none."""
        if self._good is None:
            return None
        step, weights = self._good
        self._put_back(weights)
        return step

    def put_start_back(self) -> str:
        """Undo the run, where its start was kept; the sentence says whether it was."""
        if self._start is None:
            return NO_DISCARD
        self._put_back(self._start)
        return "The weights are as they were before this run; checkpoints it wrote stay."

    def put_best_back(self, best: Measured | None, by: Yardstick, step: int, *, kept_step: int | None) -> str | None:
        """Go back to the weights of `best`, if these are what was kept; None when `step`, the last, made them."""
        if best is None or best.step == step:
            return None
        what = f"{by.best_is} {by.name} ({by.number(best.value)})"
        if self.best is None or kept_step != best.step:
            return (
                f"The {what} is that of step {best.step}, whose weights were not kept; those of the last step are in "
                "the model."
            )
        self._put_back(self.best)
        return f"The weights of step {best.step}, with the {what}, are in the model."

    def _put_back(self, weights: dict[str, mx.array]) -> None:
        self._module.load_weights(list(weights.items()), strict=False)


def trains_little(module: nn.Module) -> bool:
    """Whether so few parameters are trained that a copy of them is no question of memory."""
    trainable, total = parameter_counts(module)
    return trainable <= SMALL_SHARE * total
