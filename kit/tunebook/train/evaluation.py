"""Loss on rows the model is not trained on, teacher-forced: every token is predicted from the true ones before it.

And what such losses say of a run: which was the best, and whether to wait for a better one.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..data.encoded import Encoded
from ..events import EvalEvent
from ..fast.training_form import inference_form
from ..models.families.base import Family
from ..objectives.next_token import measured_nats, supervised_positions
from ..tokens.collation import collated


@dataclass(frozen=True)
class Score:
    """The loss of some rows, all their supervised tokens together."""

    loss: float  # nats per supervised token
    tokens: int  # supervised tokens
    notices: tuple[str, ...] = ()  # sentences about rows that were cut or left out


def score(
    module: nn.Module,
    family: Family,
    rows: Sequence[Encoded],
    *,
    batch_size: int,
    max_seq_length: int,
    skip_unreadable: bool = False,
) -> Generator[tuple[int, int], None, Score]:
    """Score `rows`, yielding (batches done, batches) after each; the Score is the generator's return value.

    Rows are taken longest first, so that a batch pads little and a lack of memory shows at once. Those that
    cannot be opened any more are left out with `skip_unreadable`, and end it without. The module is put in
    eval mode for the time and its mode restored, also when the caller gives up in the middle.
    """
    order = sorted(rows, key=lambda row: -len(row.tokens))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    nats, tokens, was_training, form = 0.0, 0, module.training, inference_form(module)
    try:
        for done, some in enumerate(batches, start=1):
            module.eval()
            batch, _ = collated(family, some, max_seq_length, skip_unreadable=skip_unreadable)
            positions = supervised_positions(batch)
            with form:
                nats += measured_nats(family, module, batch, positions)
            tokens += positions.size
            module.train(was_training)
            yield done, len(batches)
    finally:
        module.train(was_training)
    mx.clear_cache()
    return Score(loss=nats / tokens, tokens=tokens)


def score_now(module: nn.Module, family: Family, rows: Sequence[Encoded], **options: Any) -> Score:
    """`score`, all at once; `options` are its own."""
    scoring = score(module, family, rows, **options)
    while True:
        try:
            next(scoring)
        except StopIteration as end:
            return end.value


def best_of(evals: Sequence[EvalEvent]) -> EvalEvent | None:
    """The earliest of the lowest held-out losses; one that is not finite is never it."""
    finite = [event for event in evals if math.isfinite(event.loss)]
    return min(finite, key=lambda event: event.loss, default=None)


def patience_is_lost(evals: Sequence[EvalEvent], patience: int | None) -> bool:
    """Whether the last `patience` evaluations brought no new lowest loss; None has no end."""
    best = best_of(evals)
    if patience is None or best is None:
        return False
    return len(evals) - 1 - evals.index(best) >= patience
