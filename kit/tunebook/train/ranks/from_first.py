"""What the first process of a run alone finds out, handed to the others: an exam's score, what a reference said, a run
that goes on.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ...events import ScoreEvent
from ...models.tensors import flat
from ...objectives.kept_logps import Said
from ...objectives.reference import Reference, SetOfRows
from ..kept.checkpoint import Checkpoint
from .group import Ranks


def event_of_first(ranks: Ranks, event: ScoreEvent | None) -> ScoreEvent | None:
    """The score the first process has, None where it has none."""
    if ranks.is_alone:
        return event
    plain = ranks.of_first(None if event is None else asdict(event))
    return None if plain is None else ScoreEvent(**plain)


def take_said_of_first(ranks: Ranks, reference: Reference, of: SetOfRows) -> None:
    """Have `reference` know what that of the first process said of a set of rows, if it was asked of all of them."""
    if ranks.is_alone:
        return
    own = reference.said.get(of)
    arrays = ranks.arrays_of_first(own.arrays if ranks.is_first and own is not None else None)
    if arrays is not None and not ranks.is_first:
        reference.said[of] = Said.from_arrays(arrays)


def weights_of_first(ranks: Ranks, module: nn.Module, are_new: bool) -> bool:
    """Have every process hold the weights of the first, where those `are_new` there; whether they are."""
    if ranks.is_alone:
        return are_new
    own = flat(module.trainable_parameters()) if ranks.is_first and are_new else None
    weights = ranks.arrays_of_first(own)
    if weights is not None:
        module.load_weights(list(weights.items()), strict=False)
    return weights is not None


def checkpoint_of_first(ranks: Ranks, checkpoint: Checkpoint | None) -> Checkpoint:
    """The run as it is in the first process, which gives it as a checkpoint."""
    parts: list[Mapping[str, mx.array] | None] = [None] * 5
    plain: Any = None
    if checkpoint is not None:
        parts = [
            checkpoint.weights,
            flat(checkpoint.optimizer_state),
            checkpoint.best_weights,
            checkpoint.reference,
            checkpoint.said,
        ]
        plain = [checkpoint.identity, checkpoint.progress]
    identity, progress = ranks.of_first(plain)
    weights, state, best, reference, said = [ranks.arrays_of_first(part) for part in parts]
    assert weights is not None
    assert state is not None
    return Checkpoint(
        weights=weights,
        optimizer_state=tree_unflatten([*state.items()]),
        best_weights=best,
        identity=identity,
        progress=progress,
        reference=reference,
        said=said,
    )
