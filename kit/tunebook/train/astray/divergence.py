"""What is to blame for a step that was not applied: its rows, the settings, or weights that were spoilt from the start.

The outcome of a step, its rows and the weights a run keeps come in; a sentence, or whether the run is astray, goes out.
Weights are put in place for a look and back again, and nothing else is changed.
"""

import math
from collections.abc import Sequence
from typing import final

import mlx.core as mx
import mlx.nn as nn

from ...config import TrainingConfig
from ...data.encoded import Encoded
from ...models.tensors import flat, number
from ..kept.snapshots import KeptWeights
from ..step import Outcome, Stepper

MOST_NAMED = 3  # of the weights that are not finite


@final
class Astray:
    """Looks into steps that give no finite numbers."""

    def __init__(self, module: nn.Module, stepper: Stepper, kept: KeptWeights, config: TrainingConfig):
        self._module, self._stepper, self._kept, self._config = module, stepper, kept, config
        self._rows: list[Encoded] = []  # of the last step, the shortest first
        self.cause = ""  # of the last step that was not applied, unless its rows are

    def look_at(self, batches: Sequence[Sequence[Encoded]]) -> None:
        """The next step is of these rows."""
        self._rows = sorted((row for batch in batches for row in batch), key=lambda row: len(row.tokens))

    def why_not_applied(self, step: int, outcome: Outcome) -> str:
        """A sentence on what is to blame: rows where one alone shows it, at weights known to be good, else the rate."""
        self.cause = f"{settings_to_blame(self._config, self._stepper.learning_rate)}, and start afresh"
        if is_spoiling(outcome):
            return spoiling_update(step, self.cause)
        with self._kept.good_in_place() as good_step:
            guilty = [row for row in self._rows if self._stepper.not_finite(row)]
        if guilty and good_step is None and (spoilt := spoilt_weights(self._module)):
            self.cause = f"before the first step NaN or infinity was in {named(spoilt)}; load the model again"
        elif guilty:
            self.cause = ""
        cause = f"{self.cause[0].upper()}{self.cause[1:]}." if self.cause else ""
        return not_finite_step(step, outcome, self._rows, guilty, cause=cause)

    def is_so(self) -> bool:
        """Whether the weights give no finite loss for any row of the last step, though earlier weights did for some."""
        if not self._rows:
            return False
        try:
            if not all(self._stepper.not_finite(row) for row in self._rows):
                return False
            with self._kept.good_in_place():
                return not all(self._stepper.not_finite(row) for row in self._rows)
        except (OSError, RuntimeError, ValueError):  # a row or a GPU that cannot be used says nothing of the weights
            return False


def settings_to_blame(config: TrainingConfig, learning_rate: float) -> str:
    """What of the settings makes weights grow without end, and the next move."""
    moves = [f"lower learning_rate (now {learning_rate:g})"]
    if config.weight_decay * learning_rate >= 1:  # each step then takes more than the whole of a weight
        moves.append(f"weight_decay (now {config.weight_decay:g})")
    if config.neftune_noise_alpha:
        moves.append(f"neftune_noise_alpha (now {config.neftune_noise_alpha:g})")
    if config.embedding_learning_rate is not None:
        moves.append(f"embedding_learning_rate (now {config.embedding_learning_rate:g})")
    if config.lora_plus_ratio is not None:
        moves.append(f"lora_plus_ratio (now {config.lora_plus_ratio:g})")
    return " or ".join(moves)


def spoilt_weights(module: nn.Module) -> list[str]:
    """The parameters, frozen ones among them, that hold NaN or infinity."""
    return [
        name
        for name, array in flat(module.parameters()).items()
        if mx.issubdtype(array.dtype, mx.floating) and not number(mx.isfinite(array).all())
    ]


def spoiling_update(step: int, blamed: str) -> str:
    """Of a step whose loss and gradients were finite, and whose update was not."""
    return (
        f"Step {step} was not applied: with it weights or the optimizer's state would be NaN or infinite. Its rows are "
        f"not to blame; {blamed}."
    )


def not_finite_step(
    step: int, outcome: Outcome, rows: Sequence[Encoded], guilty: Sequence[Encoded], *, cause: str
) -> str:
    """Of a step whose loss or gradients were not finite; `guilty` are those of its `rows` that alone show it.

    `cause` is a sentence on what is to blame beside rows, or empty.
    """
    blame = f"{len(guilty)} of its {len(rows)} rows alone give such a loss" if guilty else "None of its rows does alone"
    named = f"; its training rows: {', '.join(map(str, sorted(row.number for row in guilty or rows)))}"
    return (
        f"Step {step} was not applied: its loss is {outcome.loss} and its gradient norm {outcome.grad_norm}. "
        f"{blame}{named if guilty or not cause else ''}.{' ' if cause else ''}{cause}"
    )


def is_spoiling(outcome: Outcome) -> bool:
    """Whether the update alone was not finite."""
    return not outcome.applied and math.isfinite(outcome.loss) and math.isfinite(outcome.grad_norm)


def named(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
