"""Steps over answers, put together from the parts of a procedure; the kit's own are its trainer's `Stepper`."""

from collections.abc import Iterator, Sequence

import mlx.core as mx
import mlx.nn as nn

from ...config import TrainingConfig
from ...data.encoded import Batch, Encoded
from ...models.loaded import Loaded
from ...objectives.answers import OverAnswers
from ...objectives.reference import Reference
from ..procedure import KIT, Batches, Pass, Procedure, by_stepper, steps_of


def passed_answers(
    procedure: Procedure,
    objective: OverAnswers,
    loaded: Loaded,
    rows: Sequence[Encoded],
    reference: Reference,
    max_seq_length: int,
    *,
    step_rows: Sequence[Encoded] = (),
) -> Pass:
    """Forward and backward pass over one micro-batch of a step that has `step_rows` in all; none: no others."""
    parts = procedure.answers
    batch = parts.collate(loaded.family, rows, max_seq_length) | objective.known_of_step(step_rows or rows)
    return passed_batch(procedure, objective, loaded, parts.know(objective, batch, loaded, reference))


def passed_batch(procedure: Procedure, objective: OverAnswers, loaded: Loaded, batch: Batch) -> Pass:
    """The same over a batch that has what its reference says."""
    parts = procedure.answers
    logps = parts.logps(objective, loaded.family)

    def loss(module: nn.Module, batch: Batch, positions: mx.array) -> mx.array:
        return parts.loss(objective, logps(module, batch, positions), batch)[0]

    total, gradients = nn.value_and_grad(loaded.module, loss)(loaded.module, batch, parts.positions(objective, batch))
    mx.eval(total, gradients)
    return total, gradients, parts.units(objective, batch)


def answer_losses(
    procedure: Procedure,
    objective: OverAnswers,
    loaded: Loaded,
    rows: Sequence[Encoded],
    config: TrainingConfig,
    max_seq_length: int,
) -> Iterator[float]:
    """The loss of each step of a run of `config` over `rows`; the adapters of `loaded` are trained, in place."""
    reference = Reference(loaded.module, objective)
    reference.settle()
    if procedure == KIT:
        return by_stepper(loaded, rows, config, max_seq_length, objective, reference)

    def passes(batches: Batches) -> list[Pass]:
        together = [row for batch in batches for row in batch]
        return [
            passed_answers(procedure, objective, loaded, batch, reference, max_seq_length, step_rows=together)
            for batch in batches
        ]

    return steps_of(passes, procedure, loaded, rows, config)
