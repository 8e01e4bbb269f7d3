"""What one decoder layer and the loss take of memory, measured on the model itself with a few short made-up rows.

A model and a length go in, costs come out (`costs.py`), each from the peaks of a few passes that differ in one thing
(`peaks.py`): layers at work, tokens, supervised positions. Nothing of the model is changed; MLX's peak memory is
counted anew, and its random state drawn from if there is dropout.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner.lora import LoRALinear

from ..data.encoded import Encoded
from ..fast.forms import forms_for
from ..fast.gated_delta_layers import chunkwise_layers
from ..fast.gated_mlp import remade
from ..fast.training_form import training_form
from ..machine import runtime
from ..models.families.base import Family
from ..models.layer_calls import Call, replaced_calls
from ..models.layers import has_dropout, kinds_of_layers, layers_of, trained_matrices, trained_outside
from ..models.tensors import flat
from .costs import NO_IMAGES, ImageCost, LayerCost, LossCost, Polynomial, fit_polynomial
from .peaks import layers_peak, loss_peak, made_up_row, outside_peak

DEPTHS = (2, 4)  # layers at work in two probes: the ends of a stack keep less than its middle
LONGEST = 512  # tokens of the longest made-up row
WORK = {"cpu": 2e11, "metal": 5e12, "cuda": 2e13}  # operations in the probes of a kind of layer: a second or two
SUPERVISED = (16, 32)  # positions in two probes of the loss, few enough to go through the head together


def layer_costs(family: Family, module: nn.Module, longest: int, *, recomputed: bool) -> list[LayerCost]:
    """The cost of each kind of layer there is; probed with rows of at most `longest` tokens.

    `recomputed` is the cost when attention's scores and the inside of MLPs are made again, as they are with gradient
    checkpointing; that a layer then keeps its input alone is for the caller to reckon.
    """
    made_again, behind_norms = remade(module, recomputed=recomputed), _behind_norms(family, module)
    with training_form(module, recomputed=recomputed, whole_layers=False):
        if not _layers_give_states(family, module):
            return [_cost_of_all(family, module, longest)]
        return _cost_of_each(family, module, longest, made_again, behind_norms)


def loss_cost(family: Family, module: nn.Module) -> LossCost:
    """The cost of the loss, with the layers left out."""
    few, many = (loss_peak(family, module, positions) for positions in SUPERVISED)
    position = max(0.0, (many - few) / (SUPERVISED[1] - SUPERVISED[0]))
    return LossCost(constant=max(0.0, few - SUPERVISED[0] * position), position=position)


def image_cost(family: Family, module: nn.Module, row: Encoded) -> ImageCost:
    """The cost of the images of `row`, beyond that of a text as long.

    A vision tower that is not trained keeps nothing for a gradient. While it reads, it may hold scores of all patches
    of a batch for all (mlx-vlm 0.7.10, Qwen2-VL's on the CPU).
    """
    if not row.images:
        return NO_IMAGES
    text = made_up_row(len(row.tokens), supervised=len(row.tokens))

    def beyond_text(rows: int) -> int:
        return max(0, outside_peak(family, module, [row] * rows) - outside_peak(family, module, [text] * rows))

    one = beyond_text(1)
    if trained_outside(module):
        return ImageCost(kept=one, linear=0.0, square=0.0)
    square = max(0.0, (beyond_text(2) - 2 * one) / 2)
    arrays = family.collate([row], len(row.tokens)), family.collate([text], len(row.tokens))
    pixels, words = (sum(value.nbytes for value in batch.values()) for batch in arrays)
    return ImageCost(kept=pixels - words, linear=one - square, square=square)


def a_state(family: Family, module: nn.Module) -> mx.array:
    """(1, 8, D): what the loss gets of a made-up row. Not evaluated; its shape and type are of interest."""
    return family.hidden(module, family.collate([made_up_row(9, supervised=8)], 9))


def _cost_of_each(
    family: Family, module: nn.Module, longest: int, made_again: list[nn.Module], behind_norms: list[nn.Module]
) -> list[LayerCost]:
    costs, dtype = [], a_state(family, module).dtype
    for layers in kinds_of_layers(module):
        many = min(DEPTHS[1], len(layers))
        few = min(DEPTHS[0], many - 1)
        lengths = _lengths(longest, layers[:many])
        high = [layers_peak(family, module, layers[:many], length) for length in lengths]
        deep, shallow = (
            [layers_peak(family, module, layers[:count], length, in_turn=True) for length in lengths]
            for count in (many, few)
        )
        kept = [(more - less) / (many - few) for more, less in zip(deep, shallow, strict=True)]
        working = [peak - many * one for peak, one in zip(high, kept, strict=True)]
        between = _between_adapters(layers[0], dtype, made_again, behind_norms)
        kept = [one + between * length for one, length in zip(kept, lengths, strict=True)]
        costs.append(
            LayerCost(count=len(layers), kept=fit_polynomial(lengths, kept), working=fit_polynomial(lengths, working))
        )
    return costs


def _cost_of_all(family: Family, module: nn.Module, longest: int) -> LayerCost:
    """Where layers cannot be left out: all of them together, what they take divided among them as if all were kept."""
    layers = layers_of(module)
    lengths = _lengths(longest, layers)
    each = [layers_peak(family, module, layers, length) / len(layers) for length in lengths]
    nothing = Polynomial(constant=0.0, linear=0.0, square=0.0)
    return LayerCost(count=len(layers), kept=fit_polynomial(lengths, each), working=nothing)


def _lengths(longest: int, layers: Sequence[nn.Module]) -> list[int]:
    """Three lengths, as long as `WORK` allows; a parameter and token takes 6 operations, forward and backward."""
    parameters = sum(value.size for layer in layers for value in flat(layer.parameters()).values())
    most = min(longest, LONGEST, WORK[runtime.backend()] / (6 * parameters * 2 * (1 + 1 / 2 + 1 / 4)))
    return [max(16 * share, int(most * share / 4) // 8 * 8) for share in (1, 2, 4)]


def _between_adapters(
    layer: nn.Module, dtype: mx.Dtype, made_again: list[nn.Module], behind_norms: list[nn.Module]
) -> int:
    """Bytes per token that scales do not stand for: what goes from A to B, and A's input where it has to be made.

    It is made by dropout, and by a change of type where the states are not of the adapters' float32 and do not come
    from a norm. Of the layers `made_again` nothing is kept.
    """
    size = 0
    for part in layer.modules():
        if "lora_a" in trained_matrices(part) and all(part is not other for other in made_again):
            inputs, rank = part["lora_a"].shape[-2:]
            changes = part["lora_a"].dtype != dtype and all(part is not other for other in behind_norms)
            made = has_dropout(part) or changes
            size += (rank + (inputs if made else 0)) * part["lora_a"].itemsize
    return size


def _behind_norms(family: Family, module: nn.Module) -> list[nn.Module]:
    """The adapters that need nothing kept of what they get from a norm (`fast/normed_inputs.py`).

    The module is called as it stands; nothing is computed to tell.
    """
    forms, given, found = forms_for(), [], []
    if forms.norms != "written out" or forms.lora != "small scale":
        return found

    def remembering(plain: Call) -> Call:
        def call(layer: nn.Module, x: mx.array) -> mx.array:
            given[:] = [plain(layer, x)]
            return given[0]

        return call

    def looking(plain: Call) -> Call:
        def call(layer: nn.Module, x: mx.array) -> mx.array:
            found.extend([layer] * any(x is one for one in given))
            return plain(layer, x)

        return call

    parts = module.modules()
    with (
        chunkwise_layers(module),  # built in no time; upstream's loop over tokens is not
        replaced_calls([part for part in parts if type(part) is nn.RMSNorm], remembering),
        replaced_calls([part for part in parts if type(part) is LoRALinear], looking),
    ):
        a_state(family, module)
    return found


def _layers_give_states(family: Family, module: nn.Module) -> bool:
    """Whether every layer answers with an array alone, as it gets one; nothing is computed to tell."""
    answers: list[Any] = []

    def remembering(plain: Call) -> Call:
        def call(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
            answers.append(plain(layer, *args, **kwargs))
            return answers[-1]

        return call

    with replaced_calls(layers_of(module), remembering):
        a_state(family, module)
    return all(isinstance(answer, mx.array) for answer in answers)
