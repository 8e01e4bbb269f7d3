"""Loss on rows the model is not trained on, teacher-forced: every token is predicted from the true ones before it.

It is the loss of the run's objective: nats per supervised token, or what a loss over answers comes to for each.

And whether a run measures what its settings wait for.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import TrainingConfig
from ..data.encoded import Encoded
from ..fast.training_form import inference_form
from ..models.families.base import Family
from ..objectives.base import Objective
from ..objectives.next_token import NextToken
from ..objectives.reference import Reference, with_what_is_known
from ..tokens.collation import collated
from ..tokens.stored_rows import lengths_of
from .plan import RunExam
from .ranks.counted import Counted, from_plain
from .ranks.group import ALONE, Ranks


@dataclass(frozen=True)
class Score:
    """The loss of some rows, all their supervised tokens together."""

    loss: float  # nats per supervised token; or for each pair or answer, with an objective over those
    tokens: int  # supervised tokens
    notices: tuple[str, ...] = ()  # sentences about rows that were cut or left out
    metrics: dict[str, float] = field(default_factory=dict)  # what the objective reports beside its loss


def score(
    module: nn.Module,
    family: Family,
    rows: Sequence[Encoded],
    *,
    batch_size: int,
    max_seq_length: int,
    skip_unreadable: bool = False,
    objective: Objective | None = None,
    reference: Reference | None = None,
    are_held_out: bool = False,
    ranks: Ranks = ALONE,
) -> Generator[tuple[int, int], None, Score]:
    """Score `rows`, yielding (batches done, batches) after each; the Score is the generator's return value.

    Rows are taken longest first, so that a batch pads little and a lack of memory shows at once. Those that
    cannot be opened any more are left out with `skip_unreadable`, and end it without. No `objective` is the next token;
    `reference` is what it is measured against, where it needs one; what it said beforehand is of rows that
    `are_held_out`. The module is put in eval mode for the time and its mode restored, also when the caller gives up in
    the middle. Several `ranks` take a batch each at a time, and what they find is added up in the order of the batches:
    the Score is that of one process.
    """
    objective = objective or NextToken()
    known = objective.known_of_step(rows)  # all of them are one mean, whatever the batches
    batches = [[rows[place] for place in places] for places in measured_batches(lengths_of(rows), batch_size)]
    whole = Counted()
    was_training, form = module.training, inference_form(module)
    try:
        for first in range(0, len(batches), ranks.size):
            counted, place = Counted(), first + ranks.rank
            if place < len(batches):
                module.eval()
                batch, _ = collated(family, batches[place], max_seq_length, skip_unreadable=skip_unreadable)
                if reference is not None and are_held_out:
                    batch = reference.known_of(batch, batches[place], "held-out")
                with form:
                    batch = with_what_is_known(objective, batch | known, family, module, reference)
                    counted.loss, counted.sums = objective.measured(family, module, batch)
                counted.units, counted.tokens = objective.units(batch), objective.positions(batch).size
                module.train(was_training)
            for each in [counted] if ranks.is_alone else map(from_plain, ranks.exchange(counted.as_plain())):
                whole.add(each)
            yield min(first + ranks.size, len(batches)), len(batches)
    finally:
        module.train(was_training)
    mx.clear_cache()
    return Score(loss=whole.loss / whole.units, tokens=whole.tokens, metrics=objective.metrics(whole.sums))


def measured_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Which rows of `lengths` tokens are measured together, by their places."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def score_now(module: nn.Module, family: Family, rows: Sequence[Encoded], **options: Any) -> Score:
    """`score`, all at once; `options` are its own."""
    scoring = score(module, family, rows, **options)
    while True:
        try:
            next(scoring)
        except StopIteration as end:
            return end.value


def check_evaluation(config: TrainingConfig, eval_rows: Sequence[Encoded], exam: RunExam | None = None) -> None:
    """Raise ValueError for settings that wait for a held-out loss, or a score, that nobody takes during the run."""
    metric, known = config.metric_for_best_model, [one.name for one in exam.metrics] if exam is not None else []
    of_exam = _given(score_steps=config.score_steps, metric_for_best_model=metric)
    if of_exam and exam is None:
        wanted = "..." if metric is None else repr(metric)
        raise ValueError(f"{_joined(of_exam)} an exam; pass Trainer(..., exam=scores.Exam(rows, metrics=[{wanted}])).")
    if metric is not None and metric not in known:
        raise ValueError(f"metric_for_best_model is {metric!r}; the exam's metrics are {', '.join(known)}.")
    waiting = _given(
        load_best_model_at_end=config.load_best_model_at_end or None,
        early_stopping_patience=config.early_stopping_patience,
    )
    if metric is not None and waiting and config.score_steps is None:
        raise ValueError(f"{_joined(waiting)} score_steps, so that {metric} is measured during the run.")
    waiting = ([] if metric is not None else waiting) + _given(eval_steps=config.eval_steps)
    if waiting and not eval_rows:
        instead = f" To go by the exam: metric_for_best_model={known[0]!r}." if known and metric is None else ""
        raise ValueError(
            f"{_joined(waiting)} held-out rows; pass eval_dataset=..., or more rows, of which some are held "
            f"out.{instead}"
        )
    if waiting and config.eval_steps is None:
        raise ValueError(f"{_joined(waiting)} eval_steps, so that the loss is measured during the run.")


def _given(**settings: object) -> list[str]:
    return [name for name, value in settings.items() if value is not None]


def _joined(names: list[str]) -> str:
    return f"{' and '.join(names)} {'need' if len(names) > 1 else 'needs'}"
