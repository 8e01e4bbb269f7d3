"""Contrastive preference optimization (Xu et al. 2024, arXiv 2401.08417), and SimPO and AlphaPO, its kin.

No reference is asked. Names, defaults and meanings of the settings are those of TRL 1.16
(trl/experimental/cpo/cpo_config.py), where SimPO and AlphaPO are loss types of CPO too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import mlx.core as mx
import mlx.nn as nn

from ..data.encoded import Batch, Encoded
from ..settings.taken import record
from .answers import OverAnswers, answer_mask, not_among, not_positive, outside, raise_all
from .base import RowsKind, Summed
from .next_token import supervised_positions
from .pairs import answer_tokens, halves, rewards_and_logps, tokens_of_step, tokens_per_pair
from .token_logps import TokenLogps

CPOLoss = Literal["sigmoid", "hinge", "ipo", "simpo", "alphapo"]


@final
@record
@dataclass(frozen=True, kw_only=True)
class CPO(OverAnswers):
    """Prefer the chosen answer by its likelihood alone, and imitate it by `cpo_alpha`."""

    rows: ClassVar[RowsKind] = "pairs"
    needs_reference: ClassVar[bool] = False

    beta: float = 0.1  # IPO's tau
    label_smoothing: float = 0.0  # the probability that a label is wrong; for sigmoid and simpo
    loss_type: CPOLoss = "sigmoid"  # "alphapo" is "simpo" without imitation
    cpo_alpha: float = 1.0  # what the mean nats of the chosen answers' tokens count
    simpo_gamma: float = 0.5  # the margin SimPO aims at
    alpha: float = 0.0  # AlphaPO's shape of rewards; 0: logarithms

    def __post_init__(self):
        if self.loss_type == "alphapo":
            object.__setattr__(self, "loss_type", "simpo")
            object.__setattr__(self, "cpo_alpha", 0.0)
        smoothed = self.loss_type in ("sigmoid", "simpo")
        raise_all(
            self,
            not_positive(beta=self.beta),
            outside(0.0, 1.0, label_smoothing=self.label_smoothing),
            not_among(get_args(CPOLoss), loss_type=self.loss_type),
            None
            if smoothed or not self.label_smoothing
            else f"label_smoothing is {self.label_smoothing}, which {self.loss_type} would not read; sigmoid and simpo "
            "do.",
        )

    @property
    def held_nearer_by(self) -> list[str]:
        """Imitation, which SimPO and AlphaPO are without."""
        how = "" if self.cpo_alpha else f", as in CPO(loss_type={self.loss_type!r}, cpo_alpha=1.0)"
        return [f"raise cpo_alpha (now {self.cpo_alpha:g}){how}"]

    def positions(self, batch: Batch) -> mx.array:
        """The answers' tokens."""
        return supervised_positions(batch)

    def known_of_step(self, rows: Sequence[Encoded]) -> Batch:
        """Of imitation, which is a mean over tokens, how many a pair has."""
        return tokens_of_step(rows, lambda chosen: chosen.supervised_tokens) if self.cpo_alpha else {}

    def units(self, batch: Batch) -> int:
        """Pairs."""
        return batch["tokens"].shape[0] // 2

    def row_logps(self, logps: mx.array, batch: Batch) -> mx.array:
        """(2P,) sums over answers; means for ipo and simpo."""
        sums = (logps * answer_mask(batch)).sum(axis=1)
        return sums / answer_tokens(batch) if self.loss_type in ("ipo", "simpo") else sums

    def loss(self, found: TokenLogps, batch: Batch) -> Summed:
        """The losses of P pairs, summed, with the imitation's share of each."""
        logps = halves(self.row_logps(found.logps, batch))
        chosen, rejected = (self._reward(each) for each in logps)
        counted, _ = halves(answer_mask(batch))
        nats = -(halves(found.logps)[0] * counted).sum(axis=1)
        imitation = self.cpo_alpha * nats.sum() / tokens_per_pair(batch, counted) if self.cpo_alpha else mx.array(0.0)
        sums = rewards_and_logps(self.beta * chosen, self.beta * rejected, logps)
        reported = mx.stop_gradient(nats.sum()) if self.cpo_alpha else mx.array(0.0)  # as TRL, 0 where it is not used
        sums["nll_loss"] = mx.stack([reported, counted.sum()])
        return self._losses(chosen - rejected).sum() + imitation, sums

    def _reward(self, logps: mx.array) -> mx.array:
        """Gupta et al. 2025 (AlphaPO, arXiv 2501.03884): (1 - p^-alpha) / alpha; log p as alpha goes to 0."""
        return (1.0 - mx.exp(-self.alpha * logps)) / self.alpha if self.alpha else logps

    def _losses(self, margins: mx.array) -> mx.array:
        """(P,) of margins (P,)."""
        if self.loss_type == "hinge":
            return mx.maximum(1.0 - self.beta * margins, 0.0)  # Zhao et al. 2023 (SLiC, arXiv 2305.10425), equation 1
        if self.loss_type == "ipo":
            return (margins - 1.0 / (2.0 * self.beta)).square()  # Azar et al. 2023 (arXiv 2310.12036), equation 17
        # Xu et al. 2024, equation 3; Meng et al. 2024 (SimPO, arXiv 2405.14734), equation 6.
        logits = self.beta * margins - (self.simpo_gamma if self.loss_type == "simpo" else 0.0)
        wrong = self.label_smoothing
        return (wrong - 1.0) * nn.log_sigmoid(logits) - wrong * nn.log_sigmoid(-logits)


def SimPO(
    *, beta: float = 0.1, simpo_gamma: float = 0.5, label_smoothing: float = 0.0, disable_dropout: bool = True
) -> CPO:
    """SimPO as its paper has it: CPO's loss of mean log-probabilities with a margin, and no imitation."""
    return CPO(
        loss_type="simpo",
        cpo_alpha=0.0,
        beta=beta,
        simpo_gamma=simpo_gamma,
        label_smoothing=label_smoothing,
        disable_dropout=disable_dropout,
    )


def AlphaPO(
    *,
    alpha: float,
    beta: float = 0.1,
    simpo_gamma: float = 0.5,
    label_smoothing: float = 0.0,
    disable_dropout: bool = True,
) -> CPO:
    """AlphaPO: SimPO of rewards whose shape is `alpha`; with 0 it is SimPO."""
    return CPO(
        loss_type="alphapo",
        alpha=alpha,
        beta=beta,
        simpo_gamma=simpo_gamma,
        label_smoothing=label_smoothing,
        disable_dropout=disable_dropout,
    )
