"""What every objective over answers is: the predictions it reads, and what it makes of their log-probabilities.

It is a frozen record of settings with a few pure functions. It knows no model: log-probabilities come in as
(B, T-1) numbers, a sum goes out, and sums of what there is to report.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self, cast

import mlx.core as mx
import mlx.nn as nn

from ..data.encoded import Batch
from ..fast.forms import Forms
from ..models.families.base import Family
from ..models.tensors import number
from ..settings.values import Count
from .base import Objective, Summed, Sums
from .left_out import ELSEWHERE
from .token_logps import TokenLogps, token_logps


@dataclass(frozen=True, kw_only=True)
class OverAnswers(Objective):
    """A kind of loss over answers. Those that are instantiated (`DPO`, `ORPO`, `CPO`, `KTO`) are final."""

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
    def without_dropout(self) -> bool:
        """As TRL has it: log-probabilities of the model and of its reference are to differ by what was learnt alone."""
        return self.disable_dropout

    @property
    def reads_squares(self) -> bool:
        """Whether `loss` needs `TokenLogps.log_squares`."""
        return False

    @abstractmethod
    def row_logps(self, logps: mx.array, batch: Batch) -> mx.array:
        """(B,) what `logps` (B, T-1) say of each answer; of the reference's this is "reference_logps"."""

    @abstractmethod
    def loss(self, found: TokenLogps, batch: Batch) -> Summed:
        """The sum over a batch's units, and the sums of what is reported."""

    def summed(self, family: Family, forms: Forms | None = None) -> Callable[..., Summed]:
        """`loss` of the log-probabilities at `positions`."""
        logps = token_logps(family, forms, squares=self.reads_squares)

        def loss(module: nn.Module, batch: Batch, positions: mx.array, weights: mx.array | None = None) -> Summed:
            return self.loss(logps(module, batch, positions, weights), batch)

        return loss

    def measured(
        self, family: Family, module: nn.Module, batch: Batch, forms: Forms | None = None
    ) -> tuple[float, Sums]:
        """The same where no gradient is wanted."""
        logps = token_logps(family, forms, squares=self.reads_squares, differentiable=False)
        total, sums = self.loss(logps(module, batch, self.positions(batch)), batch)
        return number(total), sums

    def written(self) -> str:
        """With the settings that are not the default ones."""
        default = type(self)()
        given = {name: value for name, value in vars(self).items() if value != getattr(default, name)}
        settings = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"tunebook.objectives.{type(self).__name__}({settings})"

    def identity(self) -> dict[str, Any]:
        """Its name and its settings."""
        plain = {name: [*value] if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return super().identity() | plain


@dataclass(frozen=True, kw_only=True)
class AgainstReference(OverAnswers):
    """One of those that measure an answer against what the model was when its run began."""

    needs_reference: ClassVar[bool] = True

    precompute_ref_log_probs: bool = False  # ask the reference of all rows once, before the first step
    # How many rows it is then asked of at a time; None: the batches of the first epoch, and those of each evaluation,
    # which gives the very numbers that asking in each of them does.
    precompute_ref_batch_size: Count | None = None

    @property
    def asks_beforehand(self) -> bool:
        """As `precompute_ref_log_probs` says."""
        return self.precompute_ref_log_probs

    @property
    def reference_settings(self) -> dict[str, Any]:
        """Those of its settings that decide what the reference says of a row, as values for JSON."""
        return {}

    def _batch_size_for_nothing(self) -> str | None:
        """A complaint about a size of batches there will be none of."""
        if self.precompute_ref_batch_size is None or self.precompute_ref_log_probs:
            return None
        return (
            f"precompute_ref_batch_size is {self.precompute_ref_batch_size}, which is read with "
            "precompute_ref_log_probs=True; set that too, or leave this out."
        )


def raise_all(objective: OverAnswers, *complaints: str | None) -> None:
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
