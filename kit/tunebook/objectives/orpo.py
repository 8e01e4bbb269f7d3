"""Odds ratio preference optimization (Hong et al. 2024, arXiv 2403.07691): imitation and preference, with no reference.

Names, defaults and meanings of the settings are those of TRL 1.16 (trl/experimental/orpo/orpo_config.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..data.encoded import Batch, Encoded
from ..settings.taken import record
from .answers import OverAnswers, answer_mask, not_positive, raise_all, summed_and_counted
from .base import RowsKind, Summed
from .pairs import answer_tokens, halves, rewards_and_logps, tokens_of_step, tokens_per_pair
from .token_logps import TokenLogps


@final
@record
@dataclass(frozen=True, kw_only=True)
class ORPO(OverAnswers):
    """The nats of the chosen rows, prompts among them as in TRL, and the log odds ratio of both answers."""

    rows: ClassVar[RowsKind] = "pairs"
    needs_reference: ClassVar[bool] = False

    beta: float = 0.1  # what the odds ratio counts; the paper's lambda

    def __post_init__(self):
        raise_all(self, not_positive(beta=self.beta))

    @property
    def held_nearer_by(self) -> list[str]:
        """Imitation, which counts for more where the odds ratio counts for less."""
        return [f"lower beta (now {self.beta:g}), so that imitation counts for more"]

    def positions(self, batch: Batch) -> mx.array:
        """All of the chosen rows, and the rejected answers."""
        asked = np.array(batch["loss_mask"])[:, 1:]
        pairs, width = asked.shape[0] // 2, asked.shape[1]
        asked[:pairs] = np.arange(1, width + 1) < np.array(batch["lengths"])[:pairs, None]
        return mx.array(np.flatnonzero(asked).astype(np.int32))

    def predictions(self, row: Encoded) -> int:
        """As `positions` has them."""
        chosen, rejected = row.sequences
        return len(chosen.tokens) - 1 + rejected.supervised_tokens

    def known_of_step(self, rows: Sequence[Encoded]) -> Batch:
        """Of the nats, which are a mean over tokens, how many a pair has."""
        return tokens_of_step(rows, lambda chosen: len(chosen.tokens) - 1)

    def units(self, batch: Batch) -> int:
        """Pairs."""
        return batch["tokens"].shape[0] // 2

    def row_logps(self, logps: mx.array, batch: Batch) -> mx.array:
        """(2P,) means over answers."""
        return (logps * answer_mask(batch)).sum(axis=1) / answer_tokens(batch)

    def loss(self, found: TokenLogps, batch: Batch) -> Summed:
        """The paper's equation 6 over P pairs, summed."""
        chosen, rejected = halves(self.row_logps(found.logps, batch))
        log_odds = (chosen - rejected) - (_log_of_the_rest(chosen) - _log_of_the_rest(rejected))  # equations 4 and 7
        log_ratios = nn.log_sigmoid(log_odds)
        rows, _ = halves(found.logps)
        counted = (mx.arange(1, rows.shape[1] + 1) < halves(batch["lengths"])[0][:, None]).astype(mx.float32)
        nats = -(rows * counted).sum(axis=1)
        total = nats.sum() / tokens_per_pair(batch, counted) - self.beta * log_ratios.sum()
        sums = rewards_and_logps(self.beta * chosen, self.beta * rejected, (chosen, rejected)) | {
            "nll_loss": mx.stop_gradient(mx.stack([nats.sum(), counted.sum()])),
            "log_odds_ratio": summed_and_counted(log_ratios),
            "log_odds_chosen": summed_and_counted(log_odds),
        }
        return total, sums


def _log_of_the_rest(logps: mx.array) -> mx.array:
    """log(1 - exp(x)) of x < 0, by the form that cancels nothing on either side of -ln 2 (Mächler 2012, Rmpfr)."""
    small = logps < -math.log(2.0)
    # Each form is given what suits it: the gradient of what is not taken would be infinite times zero.
    by_log1p = mx.log1p(-mx.exp(mx.where(small, logps, -1.0)))
    by_expm1 = mx.log(-mx.expm1(mx.where(small, -0.5, logps)))
    return mx.where(small, by_log1p, by_expm1)
