"""Known ways for preference tuning to go wrong, each a Procedure that differs from this kit in one part.

Each knows the stage at which it must show first, and an objective with which it does.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...data.encoded import Batch, Encoded
from ...data.sources import Row
from ...models.base_model import without_adapters
from ...models.families.base import Family
from ...models.loaded import Loaded
from ...objectives import DPO, ORPO, SimPO
from ...objectives.answers import OverAnswers, answer_mask
from ...objectives.base import RowsKind, Summed
from ...objectives.reference import Reference
from ...objectives.token_logps import TokenLogps
from ..faults import Fault
from ..procedure import KIT
from .parts import Logps, answer_logps, answers_loss, collated_answers, encoded_answers


def _fault(stage: str, name: str, objective: OverAnswers, **part: Callable[..., Any]) -> tuple[str, Fault]:
    return name, Fault(stage, replace(KIT, name=name, answers=replace(KIT.answers, **part)), objective)


# Reading


def _without_end(rows: Sequence[Row], loaded: Loaded, max_seq_length: int, kind: RowsKind) -> Sequence[Encoded]:
    """Answers stop before the end token, so that the model never learns to."""
    end = loaded.tokenizer.eos_token_id
    return [_cut(row, end) for row in encoded_answers(rows, loaded, max_seq_length, kind)]


def _cut(row: Encoded, end: int) -> Encoded:
    sides = []
    for side in row.sequences:
        ends = np.flatnonzero((side.tokens == end) & side.loss_mask)
        length = int(ends[-1]) if ends.size else len(side.tokens) - 1
        sides.append((side.tokens[:length], side.loss_mask[:length]))
    return replace(
        row,
        tokens=np.concatenate([tokens for tokens, _ in sides]),
        loss_mask=np.concatenate([mask for _, mask in sides]),
        second=len(sides[0][0]) if row.second else 0,
    )


def _with_prompt(rows: Sequence[Row], loaded: Loaded, max_seq_length: int, kind: RowsKind) -> Sequence[Encoded]:
    encoded = encoded_answers(rows, loaded, max_seq_length, kind)
    return [replace(row, loss_mask=np.ones_like(row.loss_mask)) for row in encoded]


def _one_late(rows: Sequence[Row], loaded: Loaded, max_seq_length: int, kind: RowsKind) -> Sequence[Encoded]:
    """The first token of an answer counts as its prompt's."""
    encoded = encoded_answers(rows, loaded, max_seq_length, kind)
    return [replace(row, loss_mask=row.loss_mask & np.roll(row.loss_mask, 1)) for row in encoded]


def _with_one_pad(family: Family, rows: Sequence[Encoded], max_seq_length: int) -> Batch:
    """The position behind each answer counts too."""
    batch = collated_answers(family, rows, max_seq_length)
    mask = np.array(batch["loss_mask"])
    return {**batch, "loss_mask": mx.array((mask | np.roll(mask, 1, axis=1)).tolist())}


# The reference


def _moving(objective: OverAnswers, batch: Batch, loaded: Loaded, _: Reference) -> Batch:
    """The model itself, as it is by now: every ratio is 1, and the loss of KTO and DPO a constant."""
    return _known_of(objective, batch, loaded)


def _base(objective: OverAnswers, batch: Batch, loaded: Loaded, _: Reference) -> Batch:
    """The model without its adapters, though the run began with adapters that were tuned."""
    with without_adapters(loaded.module):
        return _known_of(objective, batch, loaded)


def _known_of(objective: OverAnswers, batch: Batch, loaded: Loaded) -> Batch:
    found = answer_logps(objective, loaded.family)(loaded.module, batch, objective.positions(batch))
    known = mx.stop_gradient(objective.row_logps(found.logps, batch))
    mx.eval(known)  # before the module is another
    return {**batch, "reference_logps": known, "kl": mx.array(0.0)}


# The loss


def _unshifted(_: OverAnswers, family: Family) -> Logps:
    """Each token is asked for itself."""

    def logps(module: nn.Module, batch: Batch, positions: mx.array) -> TokenLogps:
        hidden, own = family.hidden(module, batch), batch["tokens"][:, :-1]
        logits = family.head(module, hidden.reshape(-1, hidden.shape[-1])[positions])
        found = -nn.losses.cross_entropy(logits, own.reshape(-1)[positions])
        return TokenLogps(mx.zeros(own.size).at[positions].add(found).reshape(own.shape))

    return logps


def _without_gradient(objective: OverAnswers, family: Family) -> Logps:
    """The loss is right, and nothing is learnt."""
    right = answer_logps(objective, family)

    def logps(module: nn.Module, batch: Batch, positions: mx.array) -> TokenLogps:
        return TokenLogps(mx.stop_gradient(right(module, batch, positions).logps))

    return logps


def _sum_of_tokens(objective: OverAnswers, found: TokenLogps, batch: Batch) -> Summed:
    """Long answers weigh more, where the objective takes the mean of each."""
    tokens = mx.maximum(answer_mask(batch).sum(axis=1), 1.0)
    of_reference = {"reference_logps": batch["reference_logps"] * tokens} if "reference_logps" in batch else {}
    return answers_loss(objective, TokenLogps(found.logps * tokens[:, None]), {**batch, **of_reference})


def _one(*_: Any) -> int:
    """The sum of a step is taken for its mean."""
    return 1


def _without_odds(objective: OverAnswers, found: TokenLogps, batch: Batch) -> Summed:
    """Imitation alone is left of ORPO."""
    return answers_loss(replace(objective, beta=1e-12) if isinstance(objective, ORPO) else objective, found, batch)


PREFERENCE_FAULTS: dict[str, Fault] = dict(
    [
        _fault("tokens", "end token missing", DPO(), encode=_without_end),
        _fault("supervision", "prompt counted", DPO(), encode=_with_prompt),
        _fault("supervision", "answer off by one", DPO(), encode=_one_late),
        _fault("supervision", "pad counted", DPO(), collate=_with_one_pad),
        _fault("log-probs", "labels of answers not shifted", DPO(), logps=_unshifted),
        _fault("reference", "moving reference", DPO(), know=_moving),
        _fault("reference", "detached reference", DPO(), know=_base),
        _fault("loss", "sum over tokens in place of their mean", SimPO(beta=2.0), loss=_sum_of_tokens),
        _fault("loss", "sum over pairs in place of their mean", DPO(), units=_one),
        _fault("loss", "answers without a gradient", DPO(), logps=_without_gradient),
        _fault("loss", "odds ratio left out", ORPO(), loss=_without_odds),
    ]
)
