"""Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv 2402.01306): answers that are good or bad, each alone.

Names, defaults and meanings of the settings are those of TRL 1.16 (trl/trainer/kto_config.py).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import mlx.core as mx

from ..data.encoded import Batch
from ..models.tensors import number
from ..settings.taken import record
from .answers import (
    AgainstReference,
    answer_mask,
    not_among,
    not_positive,
    raise_all,
    summed_and_counted,
)
from .base import RowsKind, Summed, Sums
from .next_token import supervised_positions
from .token_logps import TokenLogps

KTOLoss = Literal["kto", "apo_zero_unpaired"]


@final
@record
@dataclass(frozen=True, kw_only=True)
class KTO(AgainstReference):
    """Make desirable answers likelier than the reference has them, by more than answers are, and others less."""

    rows: ClassVar[RowsKind] = "labelled"

    loss_type: KTOLoss = "kto"
    beta: float = 0.1  # how dear it is to depart from the reference
    desirable_weight: float = 1.0  # the paper's lambda_D, to counter labels that are not balanced
    undesirable_weight: float = 1.0  # lambda_U

    def __post_init__(self):
        raise_all(
            self,
            self._batch_size_for_nothing(),
            not_positive(beta=self.beta),
            not_positive(desirable_weight=self.desirable_weight),
            not_positive(undesirable_weight=self.undesirable_weight),
            not_among(get_args(KTOLoss), loss_type=self.loss_type),
        )

    @property
    def needs_kl(self) -> bool:
        """Whether a micro-batch's KL is the point that rewards are measured from."""
        return self.loss_type == "kto"

    @property
    def couples_rows(self) -> str | None:
        """The KL is estimated by micro-batch."""
        return "KTO estimates the KL from the rows of a micro-batch, so its size matters." if self.needs_kl else None

    @property
    def held_nearer_by(self) -> list[str]:
        """A larger beta, and good answers that count for more."""
        return [f"raise beta (now {self.beta:g})", f"raise desirable_weight (now {self.desirable_weight:g})"]

    def positions(self, batch: Batch) -> mx.array:
        """The answers' tokens."""
        return supervised_positions(batch)

    def units(self, batch: Batch) -> int:
        """Rows."""
        return batch["tokens"].shape[0]

    def row_logps(self, logps: mx.array, batch: Batch) -> mx.array:
        """(B,) sums over answers."""
        return (logps * answer_mask(batch)).sum(axis=1)

    def loss(self, found: TokenLogps, batch: Batch) -> Summed:
        """Equation 7 of the paper over B rows, summed; without a KL APO-zero's terms (2408.06266, equation 7)."""
        logps, desirable = self.row_logps(found.logps, batch), batch["labels"]
        ratios = logps - batch["reference_logps"]
        kl = batch["kl"] if self.needs_kl else mx.array(0.0)
        signs = mx.where(desirable, 1.0, -1.0)
        weights = mx.where(desirable, self.desirable_weight, self.undesirable_weight)
        losses = weights * mx.sigmoid(-self.beta * signs * (ratios - kl))  # 1 - sigmoid(x) is sigmoid(-x)
        rewards, rows = mx.stop_gradient(self.beta * ratios), desirable.size
        sums = {
            "kl": mx.stack([kl.astype(mx.float32) * rows, mx.array(float(rows))]),
            "rewards/chosen": summed_and_counted(rewards, desirable),
            "rewards/rejected": summed_and_counted(rewards, mx.logical_not(desirable)),
            "logps/chosen": summed_and_counted(logps, desirable),
            "logps/rejected": summed_and_counted(logps, mx.logical_not(desirable)),
        }
        return losses.sum(), sums

    def metrics(self, sums: Sums) -> dict[str, float]:
        """With the margin between both kinds of answers, where there were both."""
        found = {name: (number(total), number(count)) for name, (total, count) in sums.items()}
        means = {name: total / count for name, (total, count) in found.items() if count}
        if "rewards/chosen" in means and "rewards/rejected" in means:
            means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
        return means
