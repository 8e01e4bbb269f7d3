"""Pairs of answers: a batch and its log-probabilities in, what losses over pairs are made of out, and what they report.

The batch has 2P rows: the P chosen answers, each behind its prompt, and then the P rejected ones in the same order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..data.encoded import Batch, Encoded
from .answers import answer_mask, summed_and_counted
from .base import Sums


@dataclass(frozen=True)
class Pairs:
    """(P,) float32 each: what the model and its reference say of both answers."""

    chosen: mx.array  # log-probabilities, summed over the answer
    rejected: mx.array
    reference_chosen: mx.array
    reference_rejected: mx.array
    chosen_tokens: mx.array  # of the answer, its end token among them
    rejected_tokens: mx.array

    @property
    def chosen_ratios(self) -> mx.array:
        """log of what the model gives the chosen answer over what the reference does."""
        return self.chosen - self.reference_chosen

    @property
    def rejected_ratios(self) -> mx.array:
        """The same of the rejected answer."""
        return self.rejected - self.reference_rejected


def halves(rows: mx.array) -> tuple[mx.array, mx.array]:
    """(of the chosen rows, of the rejected ones)."""
    pairs = rows.shape[0] // 2
    return rows[:pairs], rows[pairs:]


def tokens_per_pair(batch: Batch, counted: mx.array) -> mx.array:
    """How many tokens one pair adds to a mean over tokens: of the step, where the batch says so, or of its own.

    `counted` (P, T-1) is 1 for those of this batch. A loss over pairs and one over tokens are added up by one sum so:
    what a token adds is divided by this, and the sum of both by the number of pairs.
    """
    if "tokens_per_pair" in batch:
        return batch["tokens_per_pair"]
    return mx.maximum(counted.sum() / counted.shape[0], 1.0)


def tokens_of_step(rows: Sequence[Encoded], count: Callable[[Encoded], int]) -> Batch:
    """ "tokens_per_pair" of a step of `rows`: the mean of `count` of their chosen sides."""
    return {"tokens_per_pair": mx.array(max(1.0, sum(count(row.sequences[0]) for row in rows) / len(rows)))}


def rewards_and_logps(chosen_rewards: mx.array, rejected_rewards: mx.array, logps: tuple[mx.array, mx.array]) -> Sums:
    """What every objective over pairs reports; all are (P,)."""
    chosen, rejected = mx.stop_gradient(chosen_rewards), mx.stop_gradient(rejected_rewards)
    return {
        "rewards/chosen": summed_and_counted(chosen),
        "rewards/rejected": summed_and_counted(rejected),
        "rewards/accuracies": summed_and_counted((chosen > rejected).astype(mx.float32)),
        "rewards/margins": summed_and_counted(chosen - rejected),
        "logps/chosen": summed_and_counted(logps[0]),
        "logps/rejected": summed_and_counted(logps[1]),
    }


def answer_tokens(batch: Batch) -> mx.array:
    """(B,) float32: predicted tokens of each answer; 1 where there is none, for what is divided by it."""
    return mx.maximum(answer_mask(batch).sum(axis=1), 1.0)
