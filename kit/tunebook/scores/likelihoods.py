"""How likely a model finds texts: of each row the nats of its supervised tokens, a few rows at a time.

Only states that predict such a token go through the head, a piece at a time, so that logits are never whole. Nothing
makes a gradient.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..data.encoded import Batch, Encoded
from ..fast.forms import Forms, forms_for
from ..fast.training_form import inference_form
from ..models.families.base import Family
from ..objectives.next_token import cross_entropy, pieces, predicting_states, rows_at_once, supervised_positions


@dataclass(frozen=True)
class Sum:
    """Over the supervised tokens of one row."""

    nats: float  # the logarithm of their probability together, 0 at most
    tokens: int
    is_greedy: bool  # whether each is the likeliest in its place


def summed_likelihoods(
    family: Family, module: nn.Module, rows: Sequence[Encoded], *, batch_size: int
) -> Iterator[tuple[int, Sum]]:
    """(place in `rows`, its sum), the longest first; each row has a token to predict. Raises as `Family.collate`."""
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place].tokens))
    forms, form = forms_for(), inference_form(module)
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        some = [rows[place] for place in places]
        batch = family.collate(some, max(len(row.tokens) for row in some))
        with form:
            found = _sums(family, module, batch, forms)
        yield from zip(places, found, strict=True)


def _sums(family: Family, module: nn.Module, batch: Batch, forms: Forms) -> list[Sum]:
    positions = supervised_positions(batch)
    hidden, targets = predicting_states(family, module, batch, positions)
    nats, hits = [], []
    for piece in pieces(targets.size, rows_at_once(family, module, hidden, forms)):
        logits = family.head(module, hidden[piece])  # (N, V)
        losses, are_likeliest = cross_entropy(logits, targets[piece], forms), logits.argmax(axis=-1) == targets[piece]
        mx.eval(losses, are_likeliest)
        nats.append(np.array(losses, np.float64))
        hits.append(np.array(are_likeliest))
    rows, width = batch["tokens"].shape
    row_of = np.array(positions) // (width - 1)  # (N,)
    totals = np.bincount(row_of, np.concatenate(nats), rows)
    counts = np.bincount(row_of, minlength=rows)
    missed = np.bincount(row_of, ~np.concatenate(hits), rows)
    return [Sum(-float(totals[row]), int(counts[row]), not missed[row]) for row in range(rows)]
