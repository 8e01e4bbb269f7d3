"""What a run will need of memory, part by part, and what to change where that is more than there is.

A model and a configuration go in, an `Estimate` comes out. Parameters, gradients and optimizer state are counted; what
a layer keeps and what the loss takes is measured on a few short made-up rows (`probes.py`), which takes a second or
two and counts MLX's peak memory anew. It is of MLX's plain pass: not of a compiled one, of evaluation or of sampling.
Rows longer than the sliding window of a model's layers are taken to need more than they do (`probes.LONGEST`).
"""

import gc
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Literal, Protocol

import mlx.nn as nn

from ..config import TrainingConfig
from ..data.encoded import Encoded
from ..machine import runtime
from ..models.adapters import adapter_paths
from ..models.layers import layers_of
from ..models.loaded import Loaded, loaded_in
from ..models.tensors import flat
from ..objectives.base import Objective
from ..objectives.next_token import NextToken
from ..tokens.batch_order import padded_width, steps_per_epoch, windows
from ..tokens.stored_rows import lengths_of
from ..train.kept.snapshots import trains_little
from .footprint import BatchShape, Estimate, Facts, Remedy, facts_of, put_together, readable

WORTH_SAYING = 0.02  # share of the total a remedy must save
FEWEST_TOKENS = 256  # below which a shorter max_seq_length is not suggested
EXAM = "the exam between steps, which writes several answers at a time without gradients, and keeps what it has read"
LOWEST_RANK = 8  # below which a smaller rank is not


class HoldsLoaded(Protocol):
    """What is asked of a model: `FastModel` is one."""

    loaded: Loaded
    gradient_checkpointing: bool | Literal["auto"]  # as the model was made; a configuration may say otherwise


def estimate(
    model: HoldsLoaded,
    config: TrainingConfig | None = None,
    *,
    rows: Sequence[Encoded] | None = None,
    longest: int | None = None,
    objective: Objective | None = None,
) -> Estimate:
    """What training `model` takes, with the parameters that are trainable now.

    The batch is the largest that the encoded `rows` give, or rows of `longest` tokens (None: max_seq_length), all of
    them supervised and without images. With an `objective` over pairs each row is two, and the copy that its reference
    needs is counted, as are those of what is trained that a run can go back to. Where gradient checkpointing is left to
    us, it is on where the run would not fit without. Raises ValueError when nothing is trainable.
    """
    loaded = loaded_in(model, "memory.estimate")
    config, objective = config or TrainingConfig(), objective or NextToken()
    if not flat(loaded.module.trainable_parameters()):
        raise ValueError("Nothing in this model is trainable; call FastModel.get_peft_model(model) first.")
    gc.collect()  # what is left of another run would be given back in the middle of a measurement, and be taken off it
    cap = loaded.family.tables.longest(config.max_seq_length or loaded.max_seq_length)
    sides = 2 if objective.rows == "pairs" or (rows and rows[0].second) else 1
    batch = _largest(rows, config, cap, objective) if rows else _of(longest or cap, config, cap, sides)
    seen = None
    if rows and loaded.family.placeholder is not None:
        seen = max((row.sequences[0] for row in rows), key=lambda one: (len(one.images), one.images_end))
    facts = facts_of(loaded, config, batch.tokens, objective, seen)
    switch = asked_checkpointing(model, config)
    found = put_together(facts, batch, checkpointing=switch is True)
    if switch == "auto" and not found.fits:
        found = put_together(facts, batch, checkpointing=True)
    found = replace(found, remedies=_remedies(found, facts, config, objective, sides, _rank(loaded.module)))
    if trains_little(loaded.module):
        return replace(found, keeps_start=True)
    if found.total + facts.trained > found.device:
        return found
    return replace(found, earlier=found.earlier + facts.trained, keeps_start=True)


def asked_checkpointing(model: HoldsLoaded, config: TrainingConfig) -> bool | Literal["auto"]:
    """What was asked for: by the run's configuration, or where that says nothing by the model."""
    switch = config.gradient_checkpointing
    return model.gradient_checkpointing if switch is None else switch


def settled(
    model: HoldsLoaded,
    config: TrainingConfig,
    rows: Sequence[Encoded],
    *,
    objective: Objective | None = None,
    before: bool | None = None,
) -> tuple[TrainingConfig, list[str]]:
    """`config` with gradient checkpointing on or off, and a sentence where memory is short.

    Where it was left to us, a run that is resumed does as it did `before`, whatever there is of memory now.
    """
    switch, objective = asked_checkpointing(model, config), objective or NextToken()
    chooses = switch == "auto"
    if chooses and before is not None:
        return replace(config, gradient_checkpointing=before), []
    config = replace(config, gradient_checkpointing=switch)
    if _surely_fits(model.loaded, config, rows, objective):
        return replace(config, gradient_checkpointing=False) if chooses else config, []
    need = estimate(model, config, rows=rows, objective=objective)
    config = replace(config, gradient_checkpointing=need.gradient_checkpointing)
    if not need.fits:
        advice = "; or ".join(map(str, need.remedies[:3]))
        return config, [
            f"This run may need {readable(need.total)}, and there are {readable(need.device)}. Most of it: "
            f"{', '.join(need.largest(3))}. To need less: {advice or 'take a smaller model'}."
        ]
    if chooses and need.gradient_checkpointing:
        without = estimate(model, replace(config, gradient_checkpointing=False), rows=rows, objective=objective)
        return config, [
            f"Gradient checkpointing is on: without it this run may need {readable(without.total)} of the "
            f"{readable(need.device)} there are, with it {readable(need.total)}."
        ]
    return config, []


def start_fits(model: HoldsLoaded, config: TrainingConfig, rows: Sequence[Encoded], objective: Objective) -> bool:
    """Whether a copy of the trained weights, to discard the run with, fits beside the run that `config` settles."""
    if trains_little(model.loaded.module):
        return True
    copy = sum(array.nbytes for array in flat(model.loaded.module.trainable_parameters()).values())
    if _surely_fits(model.loaded, config, rows, objective, beside=copy):
        return True
    return estimate(model, config, rows=rows, objective=objective).keeps_start


def _surely_fits(
    loaded: Loaded, config: TrainingConfig, rows: Sequence[Encoded], objective: Objective, *, beside: int = 0
) -> bool:
    """Whether a bound far above any estimate is within what there is, so that a small run need not be measured.

    `beside` are bytes that are to be there as well.

    It takes 16 float32 numbers for each parameter; for each token 8 for every row and column of a matrix (a layer
    keeps one or two); and for each layer and token 12 scores per token and head of 16 numbers, or states of that size.
    """
    cap = loaded.family.tables.longest(config.max_seq_length or loaded.max_seq_length)
    batch = _largest(rows, config, cap, objective)
    parameters = flat(loaded.module.parameters()).values()
    depth, width = len(layers_of(loaded.module)), max(min(value.shape, default=0) for value in parameters)
    sides = sum(value.size // value.shape[-1] + value.size // value.shape[-2] for value in parameters if value.ndim > 1)
    scores = 3 * width * depth * (batch.tokens + 1024)
    bound = 64 * sum(value.size for value in parameters) + batch.rows * batch.tokens * (32 * sides + scores) + beside
    return bound <= runtime.training_limit_gb() * 1e9


def _remedies(
    now: Estimate, facts: Facts, config: TrainingConfig, objective: Objective, sides: int, rank: int | None
) -> list[Remedy]:
    """Changes, each made alone, that save something worth saying; the one that saves most first.

    A row of the data has `sides` in the batch. Smaller batches are no remedy where the update would be another.
    """
    batch, on = now.batch, now.gradient_checkpointing
    changed = {} if on else {"set gradient_checkpointing=True": put_together(facts, batch, checkpointing=True)}
    rows = batch.rows // sides
    if rows > 1 and objective.couples_rows is None:
        steps = config.gradient_accumulation_steps * rows
        one = replace(batch, rows=sides, supervised=-(-batch.supervised // rows))
        advice = f"set per_device_train_batch_size=1 and gradient_accumulation_steps={steps}"
        changed[advice] = put_together(facts, one, checkpointing=on)
    if batch.tokens >= 2 * FEWEST_TOKENS:
        shorter = replace(batch, tokens=batch.tokens // 2, supervised=-(-batch.supervised // 2))
        changed[f"set max_seq_length={batch.tokens // 2}"] = put_together(facts, shorter, checkpointing=on)
    for bits, size in facts.quantized.items():
        smaller = replace(facts, frozen=size)
        changed[f"load the model with load_in_{bits}bit=True"] = put_together(smaller, batch, checkpointing=on)
    if rank is not None and rank > LOWEST_RANK:
        share = 1 - facts.adapters / facts.trained * (1 - LOWEST_RANK / rank)
        names = ("trained", "reference", "earlier", "optimizer", "gradients", "mean", "update")
        smaller = replace(facts, **{name: round(share * size) for name, size in vars(facts).items() if name in names})
        changed[f"make the adapters with r={LOWEST_RANK}"] = put_together(smaller, batch, checkpointing=on)
    remedies = [Remedy(advice=advice, saves=now.total - other.total) for advice, other in changed.items()]
    return sorted(
        (remedy for remedy in remedies if remedy.saves > WORTH_SAYING * now.total), key=lambda remedy: -remedy.saves
    )


def _largest(rows: Sequence[Encoded], config: TrainingConfig, cap: int, objective: Objective) -> BatchShape:
    """The batch of the first epoch with most tokens, taken to have as many supervised ones as any has."""
    lengths = lengths_of(rows)
    epoch = islice(windows(lengths, config), steps_per_epoch(len(rows), config))
    batches = [batch for window in epoch for batch in window]
    widths = [padded_width(max(lengths[row] for row in batch), cap) for batch in batches]
    # Rows of a set are of one kind: one sequence each, or the two of a pair.
    largest = max(range(len(batches)), key=lambda index: len(batches[index]) * widths[index])
    return BatchShape(
        rows=sum(len(rows[row].sequences) for row in batches[largest]),
        tokens=widths[largest] - 1,
        supervised=max(sum(objective.predictions(rows[row]) for row in batch) for batch in batches),
    )


def _of(longest: int, config: TrainingConfig, cap: int, sides: int) -> BatchShape:
    rows, tokens = sides * config.per_device_train_batch_size, padded_width(longest, cap) - 1
    return BatchShape(rows=rows, tokens=tokens, supervised=rows * tokens)


def _rank(module: nn.Module) -> int | None:
    """The rank of the adapters; None when there are none."""
    paths = adapter_paths(module)
    return dict(module.named_modules())[paths[0]]["lora_b"].shape[-2] if paths else None
