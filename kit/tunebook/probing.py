"""What one decoder layer and the loss take of memory, measured on the model itself with a few short made-up rows.

A model and a length go in, bytes come out, as polynomials of the tokens. Layers that are not looked at pass on what
they get (`variants.py`), so a probe costs a few layers and no more. No gradient of a layer's matrices is made: a
scale of their input is trained in their place, which needs the same input to be kept and leaves the gradients' own
bytes out. Nothing of the model is changed; MLX's peak memory is counted anew, and its random state drawn from if there
is dropout.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from . import runtime
from .activations import lean_activations
from .attention import block_attention
from .families.base import Encoded, Family
from .gated import downs
from .hybrid import chunkwise_layers
from .loss import summed_loss, supervised_positions
from .recompute import drops
from .tensors import flat
from .variants import Call, varied

DEPTHS = (2, 4)  # layers at work in two probes: the ends of a stack keep less than its middle
LONGEST = 512  # tokens of the longest made-up row
WORK = {"cpu": 2e11, "metal": 5e12, "cuda": 2e13}  # operations in the probes of a kind of layer: a second or two
SUPERVISED = (16, 32)  # positions in two probes of the loss, few enough to go through the head together

Arrays = dict[str, mx.array]


@dataclass(frozen=True, kw_only=True)
class Polynomial:
    """Bytes for B rows of T tokens: `constant + B * (linear * T + square * T**2)`."""

    constant: float
    linear: float
    square: float

    def __call__(self, rows: int, tokens: int) -> int:
        return max(0, round(self.constant + rows * (self.linear * tokens + self.square * tokens**2)))


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What the layers of one kind take."""

    count: int  # how many of this kind a gradient passes through
    kept: Polynomial  # by each of them, from its forward to its backward pass
    working: Polynomial  # by the one whose turn it is, while it is


@dataclass(frozen=True, kw_only=True)
class LossCost:
    """What the loss takes, and what is trained outside of the layers."""

    constant: float  # bytes, the gradients of parameters outside of the layers among them
    position: float  # bytes for each supervised position that is in the head with others


def layer_costs(family: Family, module: nn.Module, longest: int, *, recomputed: bool) -> list[LayerCost]:
    """The cost of each kind of layer there is; probed with rows of at most `longest` tokens.

    `recomputed` is the cost when attention's scores are made again, as they are with gradient checkpointing; that a
    layer then keeps its input alone is for the caller to reckon.
    """
    remade = downs(module)
    with block_attention(module, recomputed=recomputed), lean_activations(module), chunkwise_layers(module):
        if not _layers_give_states(family, module):
            return [_cost_of_all(family, module, longest)]
        return _cost_of_each(family, module, longest, remade)


def loss_cost(family: Family, module: nn.Module) -> LossCost:
    """The cost of the loss, with the layers left out."""
    few, many = (_loss_peak(family, module, positions) for positions in SUPERVISED)
    position = max(0.0, (many - few) / (SUPERVISED[1] - SUPERVISED[0]))
    return LossCost(constant=max(0.0, few - SUPERVISED[0] * position), position=position)


def picture_cost(family: Family, module: nn.Module, row: Encoded) -> int:
    """Bytes that the gradient of what reads the images of `row` takes, beyond that of a text as long.

    Where nothing outside of the layers is trained it is 0: the eyes then keep nothing.
    """
    trained = trained_outside(module)
    if not row.images or not trained:
        return 0
    width = len(row.tokens)

    def peak_of(row: Encoded) -> int:
        def states(_: list[mx.array]) -> mx.array:
            with varied(layers_of(module), _passing_on):
                return family.hidden(module, family.collate([row], width)).astype(mx.float32).sum()

        return _peak(module, trained, states, 0)

    return max(0, peak_of(row) - peak_of(_row(width, supervised=width)))


def a_state(family: Family, module: nn.Module) -> mx.array:
    """(1, 8, D): what the loss gets of a made-up row. Not evaluated; its shape and type are of interest."""
    return family.hidden(module, family.collate([_row(9, supervised=8)], 9))


def layers_of(module: nn.Module) -> list[nn.Module]:
    """The decoder layers; every mlx-lm model names them so."""
    return list(cast("list[nn.Module]", module.layers))


def trained_outside(module: nn.Module) -> Arrays:
    """The trainable parameters that are in no layer, by name."""
    inside = {id(value) for layer in layers_of(module) for value in flat(layer.trainable_parameters()).values()}
    return {name: value for name, value in flat(module.trainable_parameters()).items() if id(value) not in inside}


def _kinds(module: nn.Module) -> list[list[nn.Module]]:
    """The layers a gradient passes through, those of one class with parameters of the same shapes together."""
    layers = layers_of(module)
    trained = [place for place, layer in enumerate(layers) if flat(layer.trainable_parameters())]
    before = any("embed" in name or "wte" in name for name in trained_outside(module))
    first = 0 if before else min(trained, default=len(layers))
    kinds: dict[Any, list[nn.Module]] = {}
    for layer in layers[first:]:
        shapes = tuple((name, value.shape, value.dtype) for name, value in flat(layer.parameters()).items())
        kinds.setdefault((type(layer), shapes), []).append(layer)
    return list(kinds.values())


def _cost_of_each(family: Family, module: nn.Module, longest: int, remade: list[nn.Module]) -> list[LayerCost]:
    costs, dtype = [], a_state(family, module).dtype
    for layers in _kinds(module):
        many = min(DEPTHS[1], len(layers))
        few = min(DEPTHS[0], many - 1)
        lengths = _lengths(longest, layers[:many])
        high = [_layers_peak(family, module, layers[:many], length) for length in lengths]
        low = [_layers_peak(family, module, layers[:few], length) for length in lengths]
        kept = [(more - less) / (many - few) for more, less in zip(high, low, strict=True)]
        working = [peak - many * one for peak, one in zip(high, kept, strict=True)]
        between = _between_adapters(layers[0], dtype, remade)
        kept = [one + between * length for one, length in zip(kept, lengths, strict=True)]
        costs.append(LayerCost(count=len(layers), kept=_through(lengths, kept), working=_through(lengths, working)))
    return costs


def _cost_of_all(family: Family, module: nn.Module, longest: int) -> LayerCost:
    """Where layers cannot be left out: all of them together, what they take divided among them as if all were kept."""
    layers = layers_of(module)
    lengths = _lengths(longest, layers)
    each = [_layers_peak(family, module, layers, length) / len(layers) for length in lengths]
    nothing = Polynomial(constant=0.0, linear=0.0, square=0.0)
    return LayerCost(count=len(layers), kept=_through(lengths, each), working=nothing)


def _lengths(longest: int, layers: Sequence[nn.Module]) -> list[int]:
    """Three lengths, as long as `WORK` allows; a parameter and token takes 6 operations, forward and backward."""
    parameters = sum(value.size for layer in layers for value in flat(layer.parameters()).values())
    most = min(longest, LONGEST, WORK[runtime.backend()] / (6 * parameters * 2 * (1 + 1 / 2 + 1 / 4)))
    return [max(16 * share, int(most * share / 4) // 8 * 8) for share in (1, 2, 4)]


def _through(lengths: Sequence[int], values: Sequence[float]) -> Polynomial:
    """The parabola through three points; where that would bend or fall the wrong way, the line nearest to them."""
    square, linear, constant = np.polyfit(lengths, values, 2)
    if square < 0 or linear < 0:
        square, (linear, constant) = 0.0, np.polyfit(lengths, values, 1)
    return Polynomial(constant=float(constant), linear=float(max(0.0, linear)), square=float(square))


def _layers_peak(family: Family, module: nn.Module, at_work: Sequence[nn.Module], length: int) -> int:
    """Bytes that a forward and backward pass through the layers `at_work` takes, for one row of `length` tokens."""
    within = {id(value) for layer in at_work for value in flat(layer.trainable_parameters()).values()}
    trained = {
        name: value
        for name, value in flat(module.trainable_parameters()).items()
        if id(value) in within and value.ndim < 2
    }
    matrices = [part for layer in at_work for part in layer.modules() if _trained_matrices(part)]
    idle = [layer for layer in layers_of(module) if all(layer is not other for other in at_work)]

    def states(scales: list[mx.array]) -> mx.array:
        batch = family.collate([_row(length + 1, supervised=length)], length + 1)
        with varied(matrices, _scaling), varied(idle, _passing_on):
            return _with_scales(matrices, scales, lambda: family.hidden(module, batch)).astype(mx.float32).sum()

    return _peak(module, trained, states, len(matrices))


def _loss_peak(family: Family, module: nn.Module, positions: int) -> int:
    """Bytes that the loss of `positions` and its gradient for the states take, every layer passing on what it gets."""
    first, *others = layers_of(module)
    width = positions + 1
    batch = family.collate([_row(width, supervised=positions)], width)

    def nats(scales: list[mx.array]) -> mx.array:
        with varied([first], _passing_on_scaled), varied(others, _passing_on):
            loss = summed_loss(family)
            return _with_scales([first], scales, lambda: loss(module, batch, supervised_positions(batch)))

    return _peak(module, trained_outside(module), nats, 1)


def _peak(module: nn.Module, trained: Arrays, objective: Callable[[list[mx.array]], mx.array], scales: int) -> int:
    """Bytes beyond what is held now that the gradient of `objective` takes, for `trained` and so many scales of 1."""

    def whole(scales: list[mx.array], trained: Arrays) -> mx.array:
        module.update(tree_unflatten(list(trained.items())))
        return objective(scales)

    was_training = module.training
    module.train()
    try:
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        ones = [mx.array(1.0) for _ in range(scales)]
        mx.eval(mx.value_and_grad(whole, argnums=(0, 1))(ones, trained) if ones or trained else whole([], {}))
        return mx.get_peak_memory() - before
    finally:
        module.update(tree_unflatten(list(trained.items())))
        module.train(was_training)
        mx.clear_cache()


def _row(tokens: int, *, supervised: int) -> Encoded:
    """A made-up row whose last `supervised` tokens are."""
    return Encoded(tokens=np.arange(tokens, dtype=np.int32) % 7 + 1, loss_mask=np.arange(tokens) >= tokens - supervised)


def _trained_matrices(part: nn.Module) -> Arrays:
    """The trained arrays of two or more dimensions that are `part`'s own, by name."""
    own = part.trainable_parameters().items()
    return {name: value for name, value in own if isinstance(value, mx.array) and value.ndim >= 2}


def _between_adapters(layer: nn.Module, dtype: mx.Dtype, remade: list[nn.Module]) -> int:
    """Bytes per token that scales do not stand for: what goes from A to B, and A's input where it has to be made.

    It is made by dropout, and by a change of type where the states are not of the adapters' float32. Of the layers
    `remade` nothing is kept.
    """
    size = 0
    for part in layer.modules():
        if "lora_a" in _trained_matrices(part) and all(part is not other for other in remade):
            inputs, rank = part["lora_a"].shape[-2:]
            made = drops(part) or part["lora_a"].dtype != dtype
            size += (rank + (inputs if made else 0)) * part["lora_a"].itemsize
    return size


def _layers_give_states(family: Family, module: nn.Module) -> bool:
    """Whether every layer answers with an array alone, as it gets one; nothing is computed to tell."""
    _answers.clear()
    with varied(layers_of(module), _remembering):
        a_state(family, module)
    arrays = all(isinstance(answer, mx.array) for answer in _answers)
    _answers.clear()
    return arrays


# What the calls below look at; they are module-level functions so that a layer's variant is made once (`variants.py`).
_scales: dict[int, mx.array] = {}  # id of a module -> the scale of its input
_answers: list[Any] = []  # of layers


def _with_scales(parts: Sequence[nn.Module], scales: list[mx.array], call: Callable[[], mx.array]) -> mx.array:
    _scales.update({id(part): scale for part, scale in zip(parts, scales, strict=True)})
    try:
        return call()
    finally:
        _scales.clear()


def _scaling(plain: Call) -> Call:
    def call(part: nn.Module, x: mx.array, *args: Any, **kwargs: Any) -> Any:
        return plain(part, x * _scales[id(part)].astype(x.dtype), *args, **kwargs)

    return call


def _passing_on(_: Call) -> Call:
    return lambda _layer, x, *_args, **_kwargs: x


def _passing_on_scaled(_: Call) -> Call:
    return lambda layer, x, *_args, **_kwargs: x * _scales[id(layer)].astype(x.dtype)


def _remembering(plain: Call) -> Call:
    def call(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        _answers.append(plain(layer, *args, **kwargs))
        return _answers[-1]

    return call
