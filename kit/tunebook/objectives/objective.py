"""What every objective is: which predictions of a batch it reads, and what it makes of their log-probabilities.

An objective is a frozen record of settings with a few pure functions. It knows no model: log-probabilities come in as
(B, T-1) numbers, a sum goes out, and sums of what there is to report.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self, cast

import mlx.core as mx
import mlx.nn as nn

from ..data.encoded import Batch
from ..fast.forms import Forms
from ..models.families.base import Family
from ..models.tensors import number
from .left_out import ELSEWHERE
from .token_logps import TokenLogps, token_logps

RowsKind = Literal["pairs", "labelled"]
Sums = dict[str, mx.array]  # name of a metric -> (2,) float32: its sum, and how many were summed
Summed = tuple[mx.array, Sums]  # what is differentiated, a float32 scalar; what is reported of it


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """A kind of loss over answers. Those that are instantiated (`DPO`, `ORPO`, `CPO`, `KTO`) are final."""

    rows: ClassVar[RowsKind]  # what its batches hold, as `__init__.py` has them
    needs_reference: ClassVar[bool]  # its batches hold "reference_logps"
    left_out: ClassVar[Mapping[str, str]] = {}  # settings of TRL's record that are refused, and why

    disable_dropout: bool = True  # the pass is taken with all dropout off

    def __new__(cls, *_: Any, **given: Any) -> Self:
        """Refuse what TRL's record has and this one has not, by name and with its reason."""
        reasons = {**ELSEWHERE, **cls.left_out}
        refused = [f"{cls.__name__} takes no {name}: {reasons[name]}." for name in given if name in reasons]
        if refused:
            raise ValueError("\n".join(refused))
        return super().__new__(cls)

    @property
    def couples_rows(self) -> str | None:
        """Why splitting a step into other micro-batches would change its update; None where it would not."""
        return None

    @property
    def needs_kl(self) -> bool:
        """Whether its batches hold "kl", which `reference.py` makes of "mismatched"."""
        return False

    @property
    def reads_squares(self) -> bool:
        """Whether `loss` needs `TokenLogps.log_squares`."""
        return False

    @abstractmethod
    def positions(self, batch: Batch) -> mx.array:
        """(N,) int32: where in the flattened (B * (T-1)) predictions it wants a log-probability."""

    @abstractmethod
    def units(self, batch: Batch) -> int:
        """What the sum is divided by once it is that of a whole step: pairs, or labelled rows."""

    @abstractmethod
    def row_logps(self, logps: mx.array, batch: Batch) -> mx.array:
        """(B,) what `logps` (B, T-1) say of each answer; of the reference's this is "reference_logps"."""

    @abstractmethod
    def loss(self, found: TokenLogps, batch: Batch) -> Summed:
        """The sum over a batch's units, and the sums of what is reported."""

    def summed(self, family: Family, forms: Forms | None = None) -> Callable[..., Summed]:
        """`loss(module, batch, positions, weights=None)`, called, differentiated and compiled as `summed_loss` is.

        `nn.value_and_grad` of it gives ((sum, Sums), gradients).
        """
        logps = token_logps(family, forms, squares=self.reads_squares)

        def loss(module: nn.Module, batch: Batch, positions: mx.array, weights: mx.array | None = None) -> Summed:
            return self.loss(logps(module, batch, positions, weights), batch)

        return loss

    def measured(self, family: Family, module: nn.Module, batch: Batch, forms: Forms | None = None) -> Summed:
        """The same where no gradient is wanted."""
        logps = token_logps(family, forms, squares=self.reads_squares, differentiable=False)
        return self.loss(logps(module, batch, self.positions(batch)), batch)

    def metrics(self, sums: Sums) -> dict[str, float]:
        """What is reported, by TRL's names, of sums added up over micro-batches; what none had is left out."""
        means = {name: (number(total), number(count)) for name, (total, count) in sums.items()}
        return {name: total / count for name, (total, count) in means.items() if count}

    def identity(self) -> dict[str, Any]:
        """The objective as values for JSON: a run is resumed with the same, and a reference is kept under it."""
        return {"objective": type(self).__name__, **asdict(self)}


def raise_all(objective: Objective, *complaints: str | None) -> None:
    """Raise what is wrong with the settings of `objective`, all at once."""
    wrong = [complaint for complaint in complaints if complaint]
    if wrong:
        raise ValueError("\n".join(f"{type(objective).__name__}.{complaint}" for complaint in wrong))


def not_positive(**values: float) -> str | None:
    """A complaint about the first that is no number above 0."""
    for name, value in values.items():
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            return f"{name} is {value!r}; it must be a number above 0."
    return None


def outside(least: float, most: float, **values: float | None) -> str | None:
    """A complaint about the first that is not within these limits; None is."""
    for name, value in values.items():
        if value is not None and not (isinstance(value, int | float) and least <= value <= most):
            return f"{name} is {value!r}; it must lie between {least:g} and {most:g}."
    return None


def not_among(choices: Any, **values: str) -> str | None:
    """A complaint about the first that is none of `choices`."""
    for name, value in values.items():
        if value not in choices:
            return f"{name} is {value!r}; it is one of {', '.join(choices)}."
    return None


def summed_and_counted(values: mx.array, counted: mx.array | None = None) -> mx.array:
    """(2,) the sum of `values`, and how many; only where `counted` (same shape, 0 or 1) is 1."""
    counted = mx.ones(values.shape) if counted is None else counted.astype(mx.float32)
    # Not a product: a value that is not counted may be infinite.
    total = mx.where(counted > 0, values.astype(mx.float32), 0.0).sum()
    return mx.stop_gradient(mx.stack([total, counted.sum()]))


def answer_mask(batch: Batch) -> mx.array:
    """(B, T-1) float32: 1 where a token of an answer is predicted."""
    return cast(mx.array, batch["loss_mask"])[:, 1:].astype(mx.float32)
