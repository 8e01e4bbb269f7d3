"""The parts of a run over answers, beside those of every run, in the order they are used: the trainer's functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from ...data.encoded import Batch, Encoded
from ...data.sources import Row
from ...models.families.base import Family
from ...models.loaded import Loaded
from ...objectives.answers import OverAnswers
from ...objectives.base import RowsKind, Summed
from ...objectives.reference import Reference, with_what_is_known
from ...objectives.token_logps import TokenLogps, token_logps
from ...tokens.collation import collated
from ...tokens.encoding import encode_rows

Logps = Callable[..., TokenLogps]  # (module, batch, positions (N,)) -> (B, T-1) log-probabilities


def encoded_answers(rows: Sequence[Row], loaded: Loaded, max_seq_length: int, kind: RowsKind) -> Sequence[Encoded]:
    """The rows as the trainer reads them; `kind` is the objective's."""
    assert kind != "texts"
    return encode_rows(rows, loaded, max_seq_length=max_seq_length, answers=kind).rows


def collated_answers(family: Family, rows: Sequence[Encoded], max_seq_length: int) -> Batch:
    """One micro-batch: first all that was chosen, then all that was rejected."""
    return collated(family, rows, max_seq_length)[0]


def known(objective: OverAnswers, batch: Batch, loaded: Loaded, reference: Reference) -> Batch:
    """`batch` with what its reference says."""
    return with_what_is_known(objective, batch, loaded.family, loaded.module, reference)


def answer_logps(objective: OverAnswers, family: Family) -> Logps:
    """What says how likely the tokens at some positions are."""
    return token_logps(family, squares=objective.reads_squares)


def answers_loss(objective: OverAnswers, found: TokenLogps, batch: Batch) -> Summed:
    """The sum over the units of a micro-batch."""
    return objective.loss(found, batch)


def positions(objective: OverAnswers, batch: Batch) -> mx.array:
    """(N,) the predictions that are asked for."""
    return objective.positions(batch)


def units(objective: OverAnswers, batch: Batch) -> int:
    """What the sum over a step is divided by: pairs, or answers."""
    return objective.units(batch)


@dataclass(frozen=True, kw_only=True)
class AnswerParts:
    """Of `Procedure.answers`; `replace(KIT, answers=replace(KIT.answers, loss=mine))` is the kit with your loss."""

    encode: Callable[[Sequence[Row], Loaded, int, RowsKind], Sequence[Encoded]] = encoded_answers
    collate: Callable[[Family, Sequence[Encoded], int], Batch] = collated_answers
    know: Callable[[OverAnswers, Batch, Loaded, Reference], Batch] = known
    positions: Callable[[OverAnswers, Batch], mx.array] = positions
    logps: Callable[[OverAnswers, Family], Logps] = answer_logps
    loss: Callable[[OverAnswers, TokenLogps, Batch], Summed] = answers_loss
    units: Callable[[OverAnswers, Batch], int] = units


TRAINERS_OWN = AnswerParts()
