"""Which rows make up each optimizer step, and how wide their batches are.

The order follows from the configuration and the rows' lengths alone, so a run that is resumed at step n can ask for
the same windows again. Every row is seen in every epoch, the last batch may be smaller, and no window spans two epochs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

import numpy as np

from ..config import TrainingConfig

T = TypeVar("T")

Window = list[list[int]]  # the row numbers of each micro-batch of one optimizer step

# Batches whose rows are sorted together in the order `length_grouped`; transformers 5, get_length_grouped_indices.
GROUPED_BATCHES = 50

WORTH_SAYING = 0.2  # a share of padding


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


def windows(lengths: Sequence[int], config: TrainingConfig) -> Iterator[Window]:
    """The run's windows, one per optimizer step, epoch after epoch without end, of rows of `lengths` tokens.

    `config.dataset_order` says how the rows of an epoch are cut into batches:

    - `shuffle`: a permutation of its own for each epoch.
    - `sequential`: as the rows stand.
    - `length_sorted`: by length, so that batches pad least; only the order of the batches changes from epoch to epoch.
      This is mlx-lm's order, which drops the rows that do not fill a batch; here they are a smaller one.
    - `torch_randperm`: the permutation torch gives for the seed plus the epoch.
    - `length_grouped`: as `shuffle`, but rows are sorted within stretches of at most 50 batches: nearly as little
      padding, and a row meets others in every epoch. The run begins with its largest batch, so that a lack of memory
      shows at once.
    """
    epoch = 0
    while True:
        yield from chunks(_batches(lengths, config, epoch), config.gradient_accumulation_steps)
        epoch += 1


def padding_share(lengths: Sequence[int], config: TrainingConfig, *, max_seq_length: int) -> float:
    """Padding tokens over all tokens of the first epoch's batches."""
    epoch = islice(windows(lengths, config), steps_per_epoch(len(lengths), config))
    batches = [[lengths[row] for row in batch] for window in epoch for batch in window]
    tokens = sum(len(batch) * padded_width(max(batch), max_seq_length) for batch in batches)
    return 1.0 - sum(lengths) / tokens


def padding_notice(lengths: Sequence[int], config: TrainingConfig, *, max_seq_length: int) -> str | None:
    """A sentence when much of the work would be padding that another order leaves out; None when not."""
    share = padding_share(lengths, config, max_seq_length=max_seq_length)
    grouped = padding_share(lengths, replace(config, dataset_order="length_grouped"), max_seq_length=max_seq_length)
    if share < WORTH_SAYING or grouped > share / 2:
        return None
    return (
        f"{share:.0%} of the tokens in the batches are padding; with dataset_order='length_grouped' it would be "
        f"{grouped:.0%}."
    )


def chunks(items: Sequence[T], size: int) -> list[list[T]]:
    """`items` in order, `size` together and the last perhaps fewer."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _batches(lengths: Sequence[int], config: TrainingConfig, epoch: int) -> Window:
    """All batches of one epoch."""
    rows, size = len(lengths), config.per_device_train_batch_size
    random = np.random.default_rng([config.seed, epoch])
    match config.dataset_order:
        case "shuffle":
            return chunks(random.permutation(rows).tolist(), size)
        case "sequential":
            return chunks(range(rows), size)
        case "torch_randperm":
            return chunks(torch_randperm(rows, config.seed + epoch), size)
        case "length_sorted":
            return _shuffled(chunks(sorted(range(rows), key=lengths.__getitem__), size), random)
        case "length_grouped":
            # At least four stretches, or in a small set the same rows would meet in every epoch.
            stretch = size * max(1, min(GROUPED_BATCHES, rows // (4 * size)))
            stretches = chunks(random.permutation(rows).tolist(), stretch)
            ordered = [row for rows in stretches for row in sorted(rows, key=lengths.__getitem__)]
            batches = _shuffled(chunks(ordered, size), random)
            if epoch == 0:
                largest = max(batches, key=lambda batch: len(batch) * max(lengths[row] for row in batch))
                batches.insert(0, batches.pop(batches.index(largest)))
            return batches


def torch_randperm(count: int, seed: int) -> list[int]:
    """`torch.randperm(count, generator=torch.Generator().manual_seed(seed))` on the CPU, bit for bit, without torch.

    NumPy's RandomState draws the same words from the same Mersenne Twister. Source: ATen's `randperm_cpu` in torch
    2.13, which from 2**32 / 20 items on draws words of 64 bits; from there on the orders differ.
    """
    words = np.random.RandomState(seed % 2**32).randint(0, 2**32, size=max(0, count - 1), dtype=np.uint32).tolist()
    order = list(range(count))
    for place, word in enumerate(words):
        other = place + word % (count - place)
        order[place], order[other] = order[other], order[place]
    return order


def _shuffled(batches: Window, random: np.random.Generator) -> Window:
    return [batches[index] for index in random.permutation(len(batches))]
