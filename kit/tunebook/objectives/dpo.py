"""Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290) and the losses that grew out of it.

Names, defaults and meanings of the settings are those of TRL 1.16 (trl/trainer/dpo_config.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast, final, get_args

import mlx.core as mx

from ..data.encoded import Batch, Encoded
from ..settings.taken import record
from .answers import (
    AgainstReference,
    answer_mask,
    not_among,
    not_positive,
    outside,
    raise_all,
)
from .base import RowsKind, Summed
from .divergences import FDivergence
from .dpo_losses import LOSSES, OF_MARGINS, SFT, SMOOTHED, SORTING
from .next_token import supervised_positions
from .pairs import Pairs, answer_tokens, halves, rewards_and_logps, tokens_of_step, tokens_per_pair
from .token_logps import TokenLogps


@final
@record
@dataclass(frozen=True, kw_only=True)
class DPO(AgainstReference):
    """Prefer the chosen answer over the rejected, measured against the model as it was."""

    rows: ClassVar[RowsKind] = "pairs"
    left_out: ClassVar[Mapping[str, str]] = {
        "reference_free": "it is CPO without its regularizer, CPO(cpo_alpha=0)",
        "rpo_alpha": "it is loss_type=['sigmoid', 'sft'] with loss_weights=[1, rpo_alpha]",
    }

    beta: float = 0.1  # how dear it is to depart from the reference; IPO's tau
    loss_type: str | Sequence[str] = ("sigmoid",)  # of dpo_losses.py, or "sft"; several are added up
    loss_weights: Sequence[float] | None = None  # of each; None: all 1
    label_smoothing: float = 0.0  # the probability that a label is wrong, for those that know it
    f_divergence_type: FDivergence = "reverse_kl"
    f_alpha_divergence_coef: float = 0.5
    ld_alpha: float | None = None  # what a token beyond the shorter answer's length counts (LD-DPO, arXiv 2409.06411)
    use_weighting: bool = False  # weigh pairs by how likely the model is to write them (WPO, arXiv 2406.11827)
    discopop_tau: float = 0.05

    def __post_init__(self):
        kinds = (self.loss_type,) if isinstance(self.loss_type, str) else tuple(self.loss_type)
        object.__setattr__(self, "loss_type", kinds)
        weights = (1.0,) * len(kinds) if self.loss_weights is None else tuple(self.loss_weights)
        object.__setattr__(self, "loss_weights", weights)
        raise_all(self, *self._wrong_numbers(), *self._wrong_losses(kinds, weights))

    def _wrong_numbers(self) -> list[str | None]:
        return [
            self._batch_size_for_nothing(),
            not_positive(beta=self.beta),
            not_positive(discopop_tau=self.discopop_tau),
            outside(0.0, 1.0, ld_alpha=self.ld_alpha),
            outside(0.0, 1.0, label_smoothing=self.label_smoothing),
            not_among(get_args(FDivergence), f_divergence_type=self.f_divergence_type),
        ]

    def _wrong_losses(self, kinds: tuple[str, ...], weights: tuple[float, ...]) -> list[str | None]:
        known, smoothing = {*LOSSES, SFT}, self.label_smoothing
        wrong = [not_among(sorted(known), loss_type=kind) for kind in kinds]
        if not kinds:
            wrong.append("loss_type is empty; name at least one loss.")
        if len(weights) != len(kinds):
            wrong.append(f"loss_weights holds {len(weights)} numbers for {len(kinds)} loss types; give one to each.")
        if self.f_divergence_type != "reverse_kl" and (others := set(kinds) & known - OF_MARGINS):
            wrong.append(
                f"f_divergence_type is {self.f_divergence_type!r}, with which {', '.join(sorted(others))} has no form; "
                f"the losses that have are {', '.join(sorted(OF_MARGINS))}."
            )
        if self.use_weighting and (others := set(kinds) & {*SORTING, SFT}):
            wrong.append(
                f"use_weighting weighs pairs, and {', '.join(sorted(others))} is no loss of one pair; leave one out."
            )
        if "robust" in kinds and smoothing >= 0.5:
            wrong.append(f"label_smoothing is {smoothing}; robust needs less than 0.5, or labels say the opposite.")
        if "exo_pair" in kinds and not 0.0 < smoothing < 1.0:
            wrong.append(f"label_smoothing is {smoothing}; exo_pair needs some: its paper takes 1e-3.")
        if smoothing and not set(kinds) & SMOOTHED:
            wrong.append(
                f"label_smoothing is {smoothing}, which {' and '.join(kinds)} would not read; "
                f"{', '.join(sorted(SMOOTHED))} do."
            )
        return wrong

    @property
    def couples_rows(self) -> str | None:
        """Losses that sort the pairs of a micro-batch."""
        sorting = [kind for kind in self.loss_type if kind in SORTING]
        return f"{sorting[0]} sorts the pairs of a micro-batch, so its size matters." if sorting else None

    @property
    def held_nearer_by(self) -> list[str]:
        """A larger beta, and imitation, which Pang et al. 2024 (arXiv 2404.19733) found to stop displacement."""
        kinds, weights = [*self.loss_type], [*cast("tuple[float, ...]", self.loss_weights)]
        moves = [f"raise beta (now {self.beta:g})"]
        if "apo_down" in kinds:
            moves.append("take apo_zero for apo_down, which makes both answers less likely on purpose")
        if SFT in kinds:
            moves.append(f"raise the weight of 'sft' in loss_weights (now {weights[kinds.index(SFT)]:g})")
        elif not self.use_weighting and self.f_divergence_type == "reverse_kl":
            imitating = f"loss_type={[*kinds, SFT]}, loss_weights={[*weights, 1.0]}"
            moves.append(f"imitate the chosen answers too: DPO({imitating})")
        return moves

    @property
    def reads_squares(self) -> bool:
        """For WPO's weights."""
        return self.use_weighting

    @property
    def reference_settings(self) -> dict[str, Any]:
        """What a longer answer's end counts."""
        return {"ld_alpha": self.ld_alpha}

    def positions(self, batch: Batch) -> mx.array:
        """The answers' tokens."""
        return supervised_positions(batch)

    def known_of_step(self, rows: Sequence[Encoded]) -> Batch:
        """Of imitation, which is a mean over tokens, how many a pair has."""
        return tokens_of_step(rows, lambda chosen: chosen.supervised_tokens) if SFT in self.loss_type else {}

    def units(self, batch: Batch) -> int:
        """Pairs."""
        return batch["tokens"].shape[0] // 2

    def row_logps(self, logps: mx.array, batch: Batch) -> mx.array:
        """(2P,) sums over answers; with `ld_alpha`, what is longer than the shorter answer counts for less."""
        counts = answer_mask(batch)
        if self.ld_alpha is not None:
            place = mx.cumsum(counts, axis=1)  # 1 at the first token of an answer
            shared = mx.minimum(*halves(counts.sum(axis=1)))
            beyond = place > mx.concatenate([shared, shared])[:, None]
            counts = mx.where(beyond, counts * self.ld_alpha, counts)
        return (logps * counts).sum(axis=1)

    def loss(self, found: TokenLogps, batch: Batch) -> Summed:
        """The losses of P pairs, summed, each kind with its weight."""
        chosen, rejected = halves(self.row_logps(found.logps, batch))
        reference_chosen, reference_rejected = halves(batch["reference_logps"])
        lengths = mx.maximum(batch["loss_mask"].astype(mx.float32).sum(axis=1), 1.0)
        pairs = Pairs(chosen, rejected, reference_chosen, reference_rejected, *halves(lengths))
        total = mx.array(0.0)
        for kind, weight in zip(self.loss_type, cast("tuple[float, ...]", self.loss_weights), strict=True):
            losses = self._imitation(found, batch) if kind == SFT else LOSSES[kind](pairs, self)
            if self.use_weighting:
                losses = losses * _wpo_weights(found, batch)
            total = total + weight * losses.sum()
        rewards = self.beta * pairs.chosen_ratios, self.beta * pairs.rejected_ratios
        return total, rewards_and_logps(*rewards, (chosen, rejected))

    def _imitation(self, found: TokenLogps, batch: Batch) -> mx.array:
        """(P,) whose sum over P is the mean over the chosen answers' tokens."""
        counted, _ = halves(answer_mask(batch))
        nats = -(halves(found.logps)[0] * counted).sum(axis=1)
        return nats / tokens_per_pair(batch, counted)


def _wpo_weights(found: TokenLogps, batch: Batch) -> mx.array:
    """(P,) without a gradient: Zhou et al. 2024 (arXiv 2406.11827), equation 2 with its aligned log-probabilities."""
    assert found.log_squares is not None
    aligned = mx.stop_gradient((found.logps - found.log_squares) * answer_mask(batch)).sum(axis=1)
    chosen, rejected = halves(aligned / answer_tokens(batch))
    return mx.exp(chosen + rejected)
