"""How a run is made, part by part: each part is a function, and any one of them can be exchanged for another.

`KIT` is this kit, its parts the very functions its trainer uses. The lab measures a Procedure; what a person suspects,
or has written themselves, is put in with `replace(KIT, loss=mine)`. Nothing is decided here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from ..config import LoraConfig, TrainingConfig
from ..data.encoded import Batch, Encoded
from ..data.sources import Row
from ..models.adapters import add_adapters
from ..models.families.base import Family
from ..models.loaded import Loaded
from ..models.loader import load
from ..models.tensors import number
from ..objectives.base import Objective
from ..objectives.next_token import summed_loss, supervised_positions
from ..objectives.reference import Reference
from ..tokens.batch_order import Window, padded_width, total_steps, windows
from ..tokens.encoding import encode_rows
from ..tokens.stored_rows import lengths_of
from ..train import optim
from ..train.step import Stepper
from .preferences.parts import TRAINERS_OWN, AnswerParts

Loss = Callable[..., mx.array]  # (module, batch, positions (N,)) -> nats summed over the positions
Pass = tuple[mx.array, Any, int]  # of a micro-batch: nats, their gradients, supervised tokens; or an objective's units
Batches = list[list[Encoded]]  # the rows of each micro-batch of a step


def loaded_in_float32(name: Path | str, max_seq_length: int) -> Loaded:
    """The model, frozen, in the type all frameworks have in common."""
    loaded = load(name, max_seq_length=max_seq_length, dtype=mx.float32, say=lambda _: None)
    loaded.module.freeze()
    return loaded


def encoded_whole(rows: Sequence[Row], loaded: Loaded, max_seq_length: int) -> Sequence[Encoded]:
    """The rows as the trainer reads them."""
    return encode_rows(rows, loaded, max_seq_length=max_seq_length).rows


def adapted(loaded: Loaded, lora: LoraConfig) -> None:
    """Put adapters on `loaded`, in place."""
    add_adapters(loaded.module, lora)


def token_weighted(passes: Sequence[Pass]) -> tuple[mx.array, Any]:
    """(loss, gradients) of one optimizer step: summed over its micro-batches, then divided by all their tokens once."""
    nats, gradients, tokens = passes[0]
    for more_nats, more_gradients, more_tokens in passes[1:]:
        nats, tokens = nats + more_nats, tokens + more_tokens
        gradients = tree_map(mx.add, gradients, more_gradients)
    return nats / tokens, tree_map(lambda gradient: gradient / tokens, gradients)


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """The parts of a run, in the order they are used; those that a run over answers has for itself are `answers`."""

    name: str
    load: Callable[[Path | str, int], Loaded] = loaded_in_float32
    encode: Callable[[Sequence[Row], Loaded, int], Sequence[Encoded]] = encoded_whole
    windows: Callable[[Sequence[int], TrainingConfig], Iterator[Window]] = windows
    width: Callable[[int, int], int] = padded_width  # (longest row, max_seq_length) -> tokens of a batch
    positions: Callable[[Batch], mx.array] = supervised_positions
    loss: Callable[[Family], Loss] = summed_loss
    answers: AnswerParts = TRAINERS_OWN
    accumulate: Callable[[Sequence[Pass]], tuple[mx.array, Any]] = token_weighted
    adapt: Callable[[Loaded, LoraConfig], None] = adapted
    rate: Callable[[TrainingConfig, int], Callable[[int], float]] = optim.learning_rate
    make_optimizer: Callable[[TrainingConfig, nn.Module], optim.Optimizer] = optim.make_optimizer
    clip: Callable[[optim.Gradients, TrainingConfig], tuple[optim.Gradients, mx.array]] = optim.clip
    update: Callable[..., None] = optim.update  # (module, gradients, optimizer, rate=, weight_decay=)


KIT = Procedure(name="tunebook")


def passed(procedure: Procedure, loaded: Loaded, rows: Sequence[Encoded], max_seq_length: int) -> Pass:
    """Forward and backward pass over one micro-batch, for what is trainable."""
    width = procedure.width(max(len(row.tokens) for row in rows), max_seq_length)
    batch = loaded.family.collate(rows, width)
    positions = procedure.positions(batch)
    nats, gradients = nn.value_and_grad(loaded.module, procedure.loss(loaded.family))(loaded.module, batch, positions)
    mx.eval(nats, gradients)
    return nats, gradients, positions.size


def losses(
    procedure: Procedure, loaded: Loaded, rows: Sequence[Encoded], config: TrainingConfig, max_seq_length: int
) -> Iterator[float]:
    """The loss of each step of a run of `config` over `rows`; the adapters of `loaded` are trained, in place.

    The kit itself takes its steps with its own trainer's `Stepper`.
    """
    if procedure == KIT:
        return by_stepper(loaded, rows, config, max_seq_length)
    return by_parts(procedure, loaded, rows, config, max_seq_length)


def by_parts(
    procedure: Procedure, loaded: Loaded, rows: Sequence[Encoded], config: TrainingConfig, max_seq_length: int
) -> Iterator[float]:
    """As `losses`, with each step put together from the parts and the model in its plain form."""

    def passes(batches: Batches) -> list[Pass]:
        return [passed(procedure, loaded, batch, max_seq_length) for batch in batches]

    return steps_of(passes, procedure, loaded, rows, config)


def steps_of(
    passes: Callable[[Batches], list[Pass]],
    procedure: Procedure,
    loaded: Loaded,
    rows: Sequence[Encoded],
    config: TrainingConfig,
) -> Iterator[float]:
    """The loss of each step, whose micro-batches `passes` goes over; what is trained of `loaded` is, in place."""
    module, steps = loaded.module, total_steps(len(rows), config)
    optimizer, rate = procedure.make_optimizer(config, module), procedure.rate(config, steps)
    module.train()
    for step, window in enumerate(islice(procedure.windows(lengths_of(rows), config), steps), start=1):
        loss, gradients = procedure.accumulate(passes([[rows[index] for index in batch] for batch in window]))
        gradients, _ = procedure.clip(gradients, config)
        gathered = optimizer.gathered(gradients)
        procedure.update(module, gathered, optimizer, rate=rate(step), weight_decay=config.weight_decay)
        mx.eval(module.trainable_parameters(), optimizer.held.arrays)
        yield number(loss)
    module.eval()


def by_stepper(
    loaded: Loaded,
    rows: Sequence[Encoded],
    config: TrainingConfig,
    max_seq_length: int,
    objective: Objective | None = None,
    reference: Reference | None = None,
) -> Iterator[float]:
    """The same by the trainer's own `Stepper`."""
    steps = total_steps(len(rows), config)
    stepper = Stepper(
        loaded,
        config,
        rows,
        total_steps=steps,
        max_seq_length=max_seq_length,
        objective=objective,
        reference=reference,
    )
    for step, window in enumerate(islice(windows(lengths_of(rows), config), steps), start=1):
        batches = [[rows[index] for index in batch] for batch in window]
        stepper.begin(step, [row for batch in batches for row in batch])
        for batch in batches:
            stepper.add(batch, alone=len(batches) == 1)
        yield stepper.finish().loss
    loaded.module.eval()
