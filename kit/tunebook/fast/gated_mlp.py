"""A layer's gated MLP, `down(curve(gate(x)) * up(x))`, trained without keeping the product that goes into `down`.

What is trained of `down` needs that product for its gradient. Here the backward pass makes it again, by one
multiplication of what it has at hand anyway; of arrays as wide as the MLP only `gate`, `up` and what the curve's
derivative is made from are kept. Only MLPs whose call is one of the forms below are changed, and none with dropout
inside `down`, for that would be drawn anew.
"""

import dis
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cache, partial
from types import CodeType, FunctionType
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.activations import swiglu

from ..models.layer_calls import Call, looked_up, replaced_calls
from ..models.layers import has_dropout
from ..models.tensors import called_with, flat
from .activation_functions import GELU, SILU, Curve
from .forms import Forms, forms_for
from .remade_product import down_of_remade
from .token_chunks import by_token_chunks

DownOf = Callable[[nn.Module, mx.array, mx.array, Curve], mx.array]  # (down, gate, up, curve) -> down(curve(gate) * up)


def lean_mlps(
    module: nn.Module, forms: Forms | None = None, *, recomputed: bool = False
) -> AbstractContextManager[Any]:
    """Have the gated MLPs of `module` make their product again in the backward pass, until the block ends.

    With `recomputed` they make everything again, a chunk of tokens at a time (`token_chunks.py`).
    """
    forms, changed = forms or forms_for(), ExitStack()
    chunks = partial(by_token_chunks, size=forms.mlp_tokens)
    down_of = gated_down if forms.mlp == "lean" else partial(down_of_remade, otherwise=gated_down)
    for form, parts in _parts_by_form(module, forms):
        changed.enter_context(replaced_calls(parts, partial(form.wrap, down_of=down_of)))
        if recomputed:
            changed.enter_context(replaced_calls([part for part in parts if not has_dropout(part)], chunks))
    return changed


def remade(module: nn.Module, *, recomputed: bool, forms: Forms | None = None) -> list[nn.Module]:
    """The layers of `module` whose input would be made again so, and is by these forms."""
    forms = forms or forms_for()
    if forms.mlp == "plain":
        return []
    found: list[nn.Module] = []
    for form, parts in _parts_by_form(module, forms):
        for part in parts:
            whole = recomputed and not has_dropout(part)
            found += part.modules() if whole else [part[_names(type(part).__call__)[form.down]]]
    return found


def gated_down(down: nn.Module, gate: mx.array, up: mx.array, curve: Curve) -> mx.array:
    """`down(curve(gate) * up)`, (..., D); `gate` and `up` are (..., I), and `down` draws no random numbers."""
    trained = flat(down.trainable_parameters())

    def answer(product: mx.array, *values: mx.array) -> mx.array:
        return called_with(down, dict(zip(trained, values, strict=True)), lambda: down(product))

    @mx.custom_function
    def whole(inputs: list[mx.array]) -> list[mx.array]:
        gate, up, *values = inputs
        kept = curve.kept(gate)
        return [answer(curve.value(gate, kept) * up, *values), kept]

    @whole.vjp
    def backward(inputs: list[mx.array], cotangents: Sequence[mx.array], outputs: Sequence[mx.array]) -> list[mx.array]:
        (gate, up, *values), kept = inputs, outputs[1]
        height = curve.value(gate, kept)
        # Only the gradients are evaluated: `answer` itself, and its product with the large matrix, is not made again.
        _, gradients = mx.vjp(answer, [height * up, *values], [cotangents[0]])
        of_product, *of_values = cast(list[mx.array], gradients)
        return [of_product * up * curve.derivative(gate, kept, height), of_product * height, *of_values]

    return cast(list[mx.array], whole([gate, up, *trained.values()]))[0]


# The calls of mlx-lm's and mlx-vlm's MLPs, as they write them. They are never called: another function is of the same
# form if it compiles to the same code, whatever its attributes are named.


def _swiglu_form(self, x):
    return self.down(swiglu(self.gate(x), self.up(x)))


def _split_form(self, x):
    x = self.gate_up(x)
    gate, x = mx.split(x, 2, axis=-1)
    return self.down(swiglu(gate, x))


def _curve_form(self, x):
    return self.down(nn.gelu_approx(self.gate(x)) * self.up(x))


def _lean_swiglu(plain: Call, *, down_of: DownOf) -> Call:
    down, _, gate, up = _names(plain)
    return lambda layer, x: down_of(layer[down], layer[gate](x), layer[up](x), SILU)


def _lean_split(plain: Call, *, down_of: DownOf) -> Call:
    gate_up, _, _, down, _ = _names(plain)

    def call(layer: nn.Module, x: mx.array) -> mx.array:
        gate, up = mx.split(layer[gate_up](x), 2, axis=-1)
        return down_of(layer[down], gate, up, SILU)

    return call


def _lean_curve(plain: Call, *, down_of: DownOf) -> Call:
    down, _, curve, gate, up = _names(plain)
    return lambda layer, x: down_of(layer[down], layer[gate](x), layer[up](x), CURVES[curve])


MLX_VLMS = ("mlx_vlm.models.activations", "swiglu")
CURVES = {"gelu_approx": GELU, "silu": SILU}  # by their names in mlx.nn


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way an MLP's call is written."""

    call: Callable[..., Any]
    down: int  # the place of that layer's name among those the code looks up
    looks_up: Callable[[tuple[str, ...], dict[str, Any]], bool]  # (those names, its globals) -> they are the ones here
    wrap: Callable[..., Call]  # (the class's own call, *, down_of) -> the one to use instead


FORMS = (
    Form(call=_swiglu_form, down=0, looks_up=lambda names, found: _is_swiglu(found.get(names[1])), wrap=_lean_swiglu),
    Form(call=_split_form, down=3, looks_up=lambda names, found: _is_swiglu(found.get(names[4])), wrap=_lean_split),
    Form(
        call=_curve_form,
        down=0,
        looks_up=lambda names, found: found.get(names[1]) is nn and names[2] in CURVES,
        wrap=_lean_curve,
    ),
)


def has_form(form: Form, call: FunctionType) -> bool:
    """Whether the call of a class does what `form` does, with the same functions, whatever its attributes are named."""
    return _meaning(call.__code__) == _meaning(_code(form.call)) and form.looks_up(_names(call), call.__globals__)


def _parts_by_form(module: nn.Module, forms: Forms) -> list[tuple[Form, list[nn.Module]]]:
    parts = [part for part in module.modules() if forms.mlp == "remade" or not _looks_up_mlx_vlms(part)]
    return [(form, [part for part in parts if _is_of(form, part)]) for form in FORMS]


def _is_swiglu(function: Any) -> bool:
    return function is swiglu or _is_mlx_vlms(function)


def _is_mlx_vlms(function: Any) -> bool:
    """Whether it is mlx-vlm's (0.7.10), which is imported where a model of that library is, and not here."""
    return isinstance(function, FunctionType) and (function.__module__, function.__name__) == MLX_VLMS


def _looks_up_mlx_vlms(part: nn.Module) -> bool:
    return _is_mlx_vlms(looked_up(part, "swiglu"))


def _is_of(form: Form, part: nn.Module) -> bool:
    """Whether a part's call does what `form` does, and there is no dropout in its `down`."""
    call = type(part).__call__
    return isinstance(call, FunctionType) and has_form(form, call) and not has_dropout(part[_names(call)[form.down]])


@cache
def _meaning(code: CodeType) -> tuple[tuple[str, Any], ...]:
    """Each instruction with its constant, or with the place of the name it looks up; a docstring is no instruction."""
    steps = dis.get_instructions(code)
    return tuple((step.opname, step.argval if step.opcode in dis.hasconst else step.arg) for step in steps)


def _names(call: Call) -> tuple[str, ...]:
    return _code(call).co_names


def _code(call: Call) -> CodeType:
    return cast(FunctionType, call).__code__
