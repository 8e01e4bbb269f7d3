"""Next-token loss: the sum of nats over the supervised tokens of a batch, and nothing that was not needed for it.

Only the hidden states that predict a supervised token go through the output head. With a quarter of the tokens
supervised that is a quarter of the logits, which on a large vocabulary is most of the time and memory of a step
(`bench/loss.py`). Dividing is left to the caller: sums add up over micro-batches, means do not.
"""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .families.base import Batch, Family


def supervised_positions(batch: Batch) -> mx.array:
    """(N,) int32: where in the flattened (B * (T-1)) predictions a supervised token is predicted."""
    mask = np.array(batch["loss_mask"])[:, 1:]
    return mx.array(np.flatnonzero(mask).astype(np.int32))


def summed_loss(family: Family) -> Callable[..., mx.array]:
    """`loss(module, batch, positions, weights=None) -> nats`, a float32 scalar: the sum over `positions`.

    `positions` (N,) hold at least one; `weights` (N,) float32 are what each counts, None all of them 1.
    """

    def loss(module: nn.Module, batch: Batch, positions: mx.array, weights: mx.array | None = None) -> mx.array:
        hidden = family.hidden(module, batch)  # (B, T-1, D)
        chosen = hidden.reshape(-1, hidden.shape[-1])[positions]  # (N, D)
        logits = family.head(module, chosen).astype(mx.float32)  # (N, V); MLX on the CPU sums in the input's own type
        targets = batch["tokens"][:, 1:].reshape(-1)[positions]  # (N,)
        nats = nn.losses.cross_entropy(logits, targets)  # (N,)
        return (nats if weights is None else nats * weights).sum()

    return loss
