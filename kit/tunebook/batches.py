"""Which rows make up each optimizer step, and how wide their batches are.

The order follows from the configuration and the number of rows alone, so a run that is resumed at step n can ask for
the same windows again. Every row is seen in every epoch, the last batch may be smaller, and no window spans two epochs.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from .config import TrainingConfig

Window = list[list[int]]  # the row numbers of each micro-batch of one optimizer step


def padded_width(longest: int, max_seq_length: int) -> int:
    """Tokens a batch is padded to: after the shift by one the length is a multiple of 32, as in mlx-lm 0.32's trainer.

    At the cap the extra token may go.
    """
    return min(max_seq_length, 1 + 32 * math.ceil(longest / 32))


def steps_per_epoch(rows: int, config: TrainingConfig) -> int:
    """Optimizer steps it takes to see every row once."""
    batches = math.ceil(rows / config.per_device_train_batch_size)
    return math.ceil(batches / config.gradient_accumulation_steps)


def total_steps(rows: int, config: TrainingConfig) -> int:
    """Optimizer steps of the whole run: `max_steps`, or what `num_train_epochs` (1 if neither is given) come to."""
    if config.max_steps is not None:
        return config.max_steps
    return math.ceil((config.num_train_epochs or 1) * steps_per_epoch(rows, config))


def windows(rows: int, config: TrainingConfig) -> Iterator[Window]:
    """The run's windows, one per optimizer step, epoch after epoch without end; each epoch has its own permutation."""
    epoch = 0
    while True:
        order = np.random.default_rng([config.seed, epoch]).permutation(rows).tolist()
        batches = list(_chunks(order, config.per_device_train_batch_size))
        yield from _chunks(batches, config.gradient_accumulation_steps)
        epoch += 1


def _chunks(items: Sequence, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
