"""The losses of `DPO`, one function each: pairs and settings in, (P,) losses out.

They are written from the papers named at each; where TRL 1.16 departs from one, it is said.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import mlx.core as mx
import mlx.nn as nn

from .divergences import scores_of
from .pairs import Pairs

if TYPE_CHECKING:
    from .dpo import DPO

Loss = Callable[[Pairs, "DPO"], mx.array]


def sigmoid(pairs: Pairs, dpo: "DPO") -> mx.array:
    """Rafailov et al. 2023 (arXiv 2305.18290), equation 7."""
    return -nn.log_sigmoid(dpo.beta * _margin(pairs, dpo))


def hinge(pairs: Pairs, dpo: "DPO") -> mx.array:
    """Zhao et al. 2023 (SLiC, arXiv 2305.10425), equation 1, of the margin over the reference (RSO, 2309.06657)."""
    return mx.maximum(1.0 - dpo.beta * _margin(pairs, dpo), 0.0)


def ipo(pairs: Pairs, dpo: "DPO") -> mx.array:
    """Azar et al. 2023 (arXiv 2310.12036), equation 17, per token of the answers, as its authors told TRL's."""
    return (_margin_per_token(pairs, dpo) - 1.0 / (2.0 * dpo.beta)).square()


def exo_pair(pairs: Pairs, dpo: "DPO") -> mx.array:
    """Ji et al. 2024 (arXiv 2402.00856), equation 16: the reverse KL to labels that are wrong with label_smoothing."""
    logits, wrong = dpo.beta * _margin(pairs, dpo), dpo.label_smoothing
    chosen = mx.sigmoid(logits) * (nn.log_sigmoid(logits) - math.log1p(-wrong))
    return chosen + mx.sigmoid(-logits) * (nn.log_sigmoid(-logits) - math.log(wrong))


def nca_pair(pairs: Pairs, dpo: "DPO") -> mx.array:
    """Chen et al. 2024 (arXiv 2402.05369): noise contrast with two answers, each its own reward."""
    chosen, rejected = dpo.beta * pairs.chosen_ratios, dpo.beta * pairs.rejected_ratios
    return -nn.log_sigmoid(chosen) - 0.5 * (nn.log_sigmoid(-chosen) + nn.log_sigmoid(-rejected))


def robust(pairs: Pairs, dpo: "DPO") -> mx.array:
    """Chowdhury et al. 2024 (arXiv 2403.00409): unbiased where a label is wrong with probability label_smoothing."""
    logits, wrong = dpo.beta * _margin(pairs, dpo), dpo.label_smoothing
    return (wrong * nn.log_sigmoid(-logits) - (1.0 - wrong) * nn.log_sigmoid(logits)) / (1.0 - 2.0 * wrong)


def bco_pair(pairs: Pairs, dpo: "DPO") -> mx.array:
    """Jung et al. 2024 (arXiv 2404.04656): a classifier of both answers; with no shift of rewards, as TRL has it."""
    return -nn.log_sigmoid(dpo.beta * pairs.chosen_ratios) - nn.log_sigmoid(-dpo.beta * pairs.rejected_ratios)


def sppo_hard(pairs: Pairs, dpo: "DPO") -> mx.array:
    """Wu et al. 2024 (arXiv 2405.00675), equation 4.7 with winning probabilities of 1 and 0."""
    aim = 0.5 / dpo.beta
    return (pairs.chosen_ratios - aim).square() + (pairs.rejected_ratios + aim).square()


def aot(pairs: Pairs, dpo: "DPO") -> mx.array:
    """Melnyk et al. 2024 (arXiv 2406.05882), paired: margins of the model over those of the reference, both sorted."""
    margins = pairs.chosen - pairs.rejected
    return _smoothed(_ascending(margins) - _ascending(pairs.reference_chosen - pairs.reference_rejected), dpo)


def aot_unpaired(pairs: Pairs, dpo: "DPO") -> mx.array:
    """The same paper, unpaired: ratios of the chosen over those of the rejected, both sorted."""
    return _smoothed(_ascending(pairs.chosen_ratios) - _ascending(pairs.rejected_ratios), dpo)


def apo_zero(pairs: Pairs, dpo: "DPO") -> mx.array:
    """D'Oosterlinck et al. 2024 (arXiv 2408.06266), equation 7: for chosen answers better than the model's own."""
    return mx.sigmoid(-dpo.beta * pairs.chosen_ratios) + mx.sigmoid(dpo.beta * pairs.rejected_ratios)


def apo_down(pairs: Pairs, dpo: "DPO") -> mx.array:
    """The same paper, equation 8: for chosen answers worse than the model's own."""
    margin = pairs.chosen_ratios - pairs.rejected_ratios
    return mx.sigmoid(dpo.beta * pairs.chosen_ratios) + mx.sigmoid(-dpo.beta * margin)


def discopop(pairs: Pairs, dpo: "DPO") -> mx.array:
    """Lu et al. 2024 (arXiv 2406.08414), equation 5: a blend of the logistic and the exponential loss."""
    logits = dpo.beta * _margin(pairs, dpo)
    share = mx.sigmoid(logits / dpo.discopop_tau)
    return (share - 1.0) * nn.log_sigmoid(logits) + share * mx.exp(-logits)


def sigmoid_norm(pairs: Pairs, dpo: "DPO") -> mx.array:
    """Lambert et al. 2024 (Tülu 3, arXiv 2411.15124): DPO of ratios per token of each answer."""
    return -nn.log_sigmoid(dpo.beta * _margin_per_token(pairs, dpo))


LOSSES: dict[str, Loss] = {
    loss.__name__: loss
    for loss in (
        sigmoid,
        hinge,
        ipo,
        exo_pair,
        nca_pair,
        robust,
        bco_pair,
        sppo_hard,
        aot,
        aot_unpaired,
        apo_zero,
        apo_down,
        discopop,
        sigmoid_norm,
    )
}
# Of the chosen answers alone, and over tokens: `DPO.loss` adds it. Mixed as in MPO (Wang et al. 2024, 2411.10442).
SFT = "sft"

SORTING = frozenset({"aot", "aot_unpaired"})  # of all pairs of a micro-batch
SMOOTHED = frozenset({"robust", "exo_pair", *SORTING})
# Losses of the difference between both scores, in which a divergence's unknown constant cancels.
OF_MARGINS = frozenset({"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", SFT})


def _margin(pairs: Pairs, dpo: "DPO") -> mx.array:
    score = scores_of(dpo.f_divergence_type, dpo.f_alpha_divergence_coef)
    return score(pairs.chosen_ratios) - score(pairs.rejected_ratios)


def _margin_per_token(pairs: Pairs, dpo: "DPO") -> mx.array:
    score = scores_of(dpo.f_divergence_type, dpo.f_alpha_divergence_coef)
    return score(pairs.chosen_ratios) / pairs.chosen_tokens - score(pairs.rejected_ratios) / pairs.rejected_tokens


def _smoothed(margins: mx.array, dpo: "DPO") -> mx.array:
    logits, wrong = dpo.beta * margins, dpo.label_smoothing
    return (wrong - 1.0) * nn.log_sigmoid(logits) - wrong * nn.log_sigmoid(-logits)


def _ascending(values: mx.array) -> mx.array:
    return values[mx.stop_gradient(mx.argsort(values))]
