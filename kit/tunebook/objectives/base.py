"""What the loop asks of every objective: where a batch is predicted, the sum that is differentiated, what it is of.

An objective is a frozen record of settings. A step adds up its sums over micro-batches and divides once, by `units`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import mlx.core as mx
import mlx.nn as nn

from ..config import TrainingConfig
from ..data.encoded import Batch, Encoded
from ..fast.forms import Forms
from ..models.families.base import Family
from ..models.tensors import number

RowsKind = Literal["texts", "pairs", "labelled"]
Compared = Literal["pairs", "labelled"]
Sums = dict[str, mx.array]  # name of a metric -> (2,) float32: its sum, and how many were summed
Summed = tuple[mx.array, Sums]  # what is differentiated, a float32 scalar; what is reported of it


UNITS = {"texts": "nats per trained token", "pairs": "{}, per pair", "labelled": "{}, per answer"}
WORDS = {"texts": "texts", "pairs": "pairs of a chosen and a rejected answer", "labelled": "answers with a label"}


class Objective(ABC):
    """A kind of loss. `NextToken` is one, those over answers (`answers.py`) are the others."""

    rows: ClassVar[RowsKind]  # what its batches hold, as `__init__.py` has them
    needs_reference: ClassVar[bool] = False  # its batches hold "reference_logps"

    @property
    def compares(self) -> Compared | None:
        """The kind of answers that its rows hold; None where they are texts."""
        return None if self.rows == "texts" else self.rows

    @property
    def loss_unit(self) -> str:
        """What its loss is in, to stand behind "Loss"."""
        return UNITS[self.rows].format(type(self).__name__)

    @property
    def couples_rows(self) -> str | None:
        """Why splitting a step into other micro-batches would change its update; None where it would not."""
        return None

    @property
    def without_dropout(self) -> bool:
        """Whether the pass is taken with all dropout off."""
        return False

    @property
    def held_nearer_by(self) -> Sequence[str]:
        """Moves, such as "raise beta (now 0.1)", that hold what is learnt nearer to the chosen answers, or to the
        reference; none where none is known. A run in which the chosen answers become unlikely names them.
        """
        return ()

    @property
    def needs_kl(self) -> bool:
        """Whether its batches hold "kl", which `reference.py` makes of "mismatched"."""
        return False

    @property
    def asks_beforehand(self) -> bool:
        """Whether its reference is asked of all rows once, before the first step, and never again."""
        return False

    @abstractmethod
    def positions(self, batch: Batch) -> mx.array:
        """(N,) int32: where in the flattened (B * (T-1)) predictions it asks for one."""

    def predictions(self, row: Encoded) -> int:
        """How many `positions` has of one row."""
        return row.supervised_tokens

    def known_of_step(self, rows: Sequence[Encoded]) -> Batch:  # noqa: ARG002 - most know nothing of it
        """What each batch of a step, or of a score, is to hold that follows from all its `rows`: a mean's divisor."""
        return {}

    @abstractmethod
    def units(self, batch: Batch) -> int:
        """What the sum is divided by once it is that of a whole step: supervised tokens, pairs, or labelled rows."""

    @abstractmethod
    def summed(self, family: Family, forms: Forms | None = None) -> Callable[..., Summed]:
        """`loss(module, batch, positions, weights=None)`, to be differentiated and compiled as `summed_loss` is.

        `nn.value_and_grad` of it gives ((sum, Sums), gradients).
        """

    @abstractmethod
    def measured(
        self, family: Family, module: nn.Module, batch: Batch, forms: Forms | None = None
    ) -> tuple[float, Sums]:
        """The same where no gradient is wanted."""

    def metrics(self, sums: Sums) -> dict[str, float]:
        """What is reported beside the loss, of sums added up over micro-batches; what none had is left out."""
        means = {name: (number(total), number(count)) for name, (total, count) in sums.items()}
        return {name: total / count for name, (total, count) in means.items() if count}

    def written(self) -> str:
        """The call that makes it, as it is typed where `tunebook` is imported."""
        return f"tunebook.objectives.{type(self).__name__}()"

    def identity(self) -> dict[str, Any]:
        """The objective as values for JSON: a run is resumed with the same."""
        return {"objective": type(self).__name__}


def check_settings(objective: Objective, config: TrainingConfig) -> None:
    """Raise ValueError for settings of the run that are not for this objective."""
    name = type(objective).__name__
    if objective.asks_beforehand and config.streaming:
        raise ValueError(
            f"{name}.precompute_ref_log_probs is on, and so is TrainingConfig.streaming: the rows of a stream are not "
            "known before the first step. Set one off."
        )
    if objective.rows != "texts" and config.packing:
        raise ValueError(f"TrainingConfig.packing is on, and {name} needs each answer as a row of its own. Set it off.")
    sizes = {
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "per_device_eval_batch_size": config.per_device_eval_batch_size,
    }
    for batch, size in sizes.items():
        if objective.needs_kl and size == 1:
            raise ValueError(f"TrainingConfig.{batch} is 1{_no_other_prompts(name)}")


def check_rows(objective: Objective, rows: Sequence[Encoded]) -> None:
    """Raise ValueError where `rows`, as they were read, are not for this objective."""
    kinds = ("pairs" if row.second else "texts" if row.label is None else "labelled" for row in rows)
    name = type(objective).__name__
    if others := {*kinds} - {objective.rows}:
        raise ValueError(f"{name} trains on {WORDS[objective.rows]}, and these rows are {WORDS[min(others)]}.")
    if objective.needs_kl and len(rows) == 1:
        raise ValueError(f"There is 1 row{_no_other_prompts(name)}")


def _no_other_prompts(name: str) -> str:
    return (
        f", and {name} takes its KL of the answers to other prompts of a batch, which then has none. Take 2 or more, "
        f"or {name}(loss_type='apo_zero_unpaired'), which asks for no KL."
    )


def added(sums: Sums, more: Sums) -> Sums:
    """Both added up by name, evaluated: nothing of a batch is held by them."""
    together = {name: sums[name] + value if name in sums else value for name, value in more.items()}
    mx.eval(together)
    return sums | together
