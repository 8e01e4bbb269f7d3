"""What was measured of a model, kept for as long as the model is there: each run and every panel asks for it."""

from collections.abc import Hashable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import mlx.nn as nn

from ..fast.forms import forms_for
from ..models.families.base import Family
from ..models.tensors import flat
from .costs import LayerCost, LossCost
from .probes import LONGEST, layer_costs, loss_cost


@dataclass(frozen=True)
class Measured:
    """What a layer of each kind and the loss take."""

    layers: list[LayerCost]
    recomputed: list[LayerCost]  # the same with gradient checkpointing, while a layer is computed again
    loss: LossCost


_KEPT: WeakKeyDictionary[Family, dict[Hashable, Measured]] = WeakKeyDictionary()


def measured(family: Family, module: nn.Module, longest: int) -> Measured:
    """The costs of `module`, whose family it is, with rows of at most `longest` tokens; measured once."""
    kept, key = _KEPT.setdefault(family, {}), _what_costs_depend_on(module, longest)
    if key not in kept:
        kept[key] = Measured(
            layers=layer_costs(family, module, longest, recomputed=False),
            recomputed=layer_costs(family, module, longest, recomputed=True),
            loss=loss_cost(family, module),
        )
    return kept[key]


def _what_costs_depend_on(module: nn.Module, longest: int) -> Hashable:
    """The parts of a model with their shapes and types, which of them are trained, and the forms of its pass."""
    trained = flat(module.trainable_parameters()).keys()
    arrays = tuple((name, each.shape, each.dtype, name in trained) for name, each in flat(module.parameters()).items())
    return min(longest, LONGEST), module.training, forms_for(), arrays, tuple(map(type, module.modules()))
