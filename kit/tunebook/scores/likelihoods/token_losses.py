"""What a model makes of each supervised token of a batch, and of a row: its loss in nats, in its place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...data.encoded import Batch, Encoded
from ...fast.forms import Forms, forms_for
from ...fast.training_form import inference_form
from ...models.families.base import Family
from ...objectives.next_token import cross_entropy, pieces, predicting_states, rows_at_once, supervised_positions


@dataclass(frozen=True)
class TokenLosses:
    """What a model makes of each token of one row."""

    tokens: np.ndarray  # (T,) int32, of the whole row
    losses: np.ndarray  # (T,) float32 nats; NaN where a token is only read

    @property
    def count(self) -> int:
        """Tokens that have a loss."""
        return int(np.isfinite(self.losses).sum())

    @property
    def nats(self) -> float:
        """Of all of them together."""
        return float(np.nansum(self.losses, dtype=np.float64))


@dataclass(frozen=True)
class Predicted:
    """The N supervised tokens of a batch, in the order of its rows."""

    row: np.ndarray  # (N,) in the batch
    place: np.ndarray  # (N,) in the row, at least 1
    losses: np.ndarray  # (N,) float64 nats
    hits: np.ndarray  # (N,) bool, whether it is the likeliest in its place


def token_losses(
    family: Family, module: nn.Module, rows: Sequence[Encoded], *, batch_size: int
) -> Iterator[tuple[int, TokenLosses]]:
    """(place in `rows`, its losses), the longest first; each row has a token to predict. Raises as `Family.collate`."""
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place].tokens))
    forms, form = forms_for(), inference_form(module)
    for start in range(0, len(order), batch_size):
        some = [rows[place] for place in order[start : start + batch_size]]
        batch = family.collate(some, max(len(row.tokens) for row in some))
        with form:
            found = predicted(family, module, batch, forms)
        for at, row in enumerate(some):
            losses = np.full(len(row.tokens), np.nan, np.float32)
            losses[found.place[found.row == at]] = found.losses[found.row == at]
            yield order[start + at], TokenLosses(row.tokens, losses)


def predicted(family: Family, module: nn.Module, batch: Batch, forms: Forms) -> Predicted:
    """What is predicted of a batch, a piece of its states through the head at a time."""
    positions = supervised_positions(batch)
    hidden, targets = predicting_states(family, module, batch, positions)
    nats, hits = [], []
    for piece in pieces(targets.size, rows_at_once(family, module, hidden, forms)):
        logits = family.head(module, hidden[piece])  # (N, V)
        losses, are_likeliest = cross_entropy(logits, targets[piece], forms), logits.argmax(axis=-1) == targets[piece]
        mx.eval(losses, are_likeliest)
        nats.append(np.array(losses, np.float64))
        hits.append(np.array(are_likeliest))
    row, place = np.divmod(np.array(positions), batch["tokens"].shape[1] - 1)  # (N,) each
    return Predicted(row, place + 1, np.concatenate(nats), np.concatenate(hits))
