"""The last decoder layer's MLP, run where a token is supervised and nowhere else.

Behind the last attention a position affects itself alone, and what nobody supervises enters no loss: there the MLP
answers zeros. Loss and gradients stay as they are. That a model is so made is proven on a probe before it is used. A
compiled pass, whose shapes must not follow the batch, is not for this room.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .families.base import Batch, Encoded, Family
from .loss import supervised_positions
from .recompute import drops
from .variants import Call, varied

MOST_SUPERVISED = 0.8  # of all positions; with more, gathering and scattering take what is saved
PROBE = 17  # tokens


@contextmanager
def supervised_mlp(module: nn.Module, batch: Batch, positions: mx.array) -> Iterator[None]:
    """Have the last layer's MLP skip the predictions of `batch` not in `positions` (N,), until the block ends.

    `module` is one of which `gives_the_same` is true. With most positions supervised nothing is changed.
    """
    rows, width = batch["tokens"].shape
    if positions.size > MOST_SUPERVISED * rows * (width - 1):
        yield
        return
    _given.append((rows, width - 1, positions))
    try:
        with varied([_last_layer(module)["mlp"]], _gathering):
            yield
    finally:
        _given.pop()


def has_plain_mlp(module: nn.Module) -> bool:
    """Whether the last decoder layer has a part called `mlp` that drops nothing.

    With dropout, fewer positions would mean other draws, and a compiled run has to make those of a plain one.
    """
    layer = _last_layer(module)
    return "mlp" in layer and isinstance(layer["mlp"], nn.Module) and not drops(layer["mlp"])


def gives_the_same(family: Family, module: nn.Module) -> bool:
    """Whether supervised positions of a made-up row get the states they get from the whole MLP, in eval mode."""
    tokens = np.arange(PROBE, dtype=np.int32) % 7 + 1
    batch = family.collate([Encoded(tokens=tokens, loss_mask=np.arange(PROBE) % 3 == 1)], PROBE)
    positions = supervised_positions(batch)

    def states() -> mx.array:
        hidden = family.hidden(module, batch)
        return hidden.reshape(-1, hidden.shape[-1])[positions].astype(mx.float32)

    was_training = module.training
    module.eval()
    try:
        plain = states()
        with supervised_mlp(module, batch, positions):
            found = states()
        if not mx.isfinite(plain).all():
            return True  # of such weights nothing can be told, and the steps say so
        return bool(mx.linalg.norm(found - plain) <= 0.02 * mx.linalg.norm(plain))  # half precision rounds
    finally:
        module.train(was_training)


def _last_layer(module: nn.Module) -> nn.Module:
    return cast("list[nn.Module]", module.layers)[-1]


# (rows, predictions of each, positions) of the batch at hand; a list, so that the call below is always the same one
_given: list[tuple[int, int, mx.array]] = []


def _gathering(plain: Call) -> Call:
    def call(layer: nn.Module, x: mx.array, *args: Any, **kwargs: Any) -> Any:
        rows, length, positions = _given[-1]
        if x.shape[:-1] != (rows, length):
            return plain(layer, x, *args, **kwargs)
        found = plain(layer, x.reshape(-1, x.shape[-1])[positions][None], *args, **kwargs)  # (1, N, D)
        whole = mx.zeros((rows * length, found.shape[-1]), found.dtype)
        return whole.at[positions].add(found[0]).reshape(rows, length, -1)

    return call
