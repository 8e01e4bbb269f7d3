"""Element-wise parts of a layer with gradients written out, so that a forward pass keeps only what the backward needs.

MLX keeps the inputs of every operation for its gradient; a gated SiLU of five operations keeps six arrays as wide as
the widest of the layer. Here it keeps its two inputs and the sigmoid, and of the commonest MLPs not its product either
(`gated_mlp.py`), nor what a norm gives to adapters (`normed_inputs.py`). Values are those of the plain form but for the
last place. Only the layer objects given up for the time are changed (`models/layer_calls.py`).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import lru_cache, partial
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import activations as upstream
from mlx_lm.tuner.lora import LoRALinear

from ..models.layer_calls import Call, replaced_calls, replaced_name
from .activation_functions import GELU, SILU
from .forms import Forms, forms_for
from .gated_mlp import lean_mlps
from .normed_inputs import LastNormed, Normed, narrowed
from .remade_product import product_of
from .shifted_norms import norms_shifted_once
from .short_conv import shifted_convolutions

Arrays = Sequence[mx.array]


def lean_activations(
    module: nn.Module, forms: Forms | None = None, *, recomputed: bool = False
) -> AbstractContextManager[Any]:
    """Have gated SiLUs, GELUs, LoRA, RMS norms and short convolutions of `module` do and keep less, where `forms` say.

    Until the block ends. `recomputed` is for layers that are computed again in the backward pass (`gated_mlp.py`).
    """
    forms, changed, layers, normed = forms or forms_for(), ExitStack(), module.modules(), LastNormed()
    if forms.mlp != "plain":
        changed.enter_context(lean_mlps(module, forms, recomputed=recomputed))
        gated = swiglu if forms.mlp == "lean" else product_of(SILU)
        changed.enter_context(replaced_name(layers, "swiglu", lambda found: found is upstream.swiglu, lambda _: gated))
    if forms.mlp == "lean":  # else MLX's own is left, in which a GPU's kernels are one
        with_gelu = [layer for layer in layers if _names_gelu(layer)]
        changed.enter_context(replaced_name(with_gelu, "nn", lambda found: found is nn, _with_gelu))
    if forms.lora == "small scale":
        with_lora = [layer for layer in layers if type(layer) is LoRALinear and layer.lora_b.dtype == mx.float32]
        changed.enter_context(replaced_calls(with_lora, partial(_with_small_scale, normed)))
    if forms.norms == "written out":
        norms = [layer for layer in layers if type(layer) is nn.RMSNorm]
        changed.enter_context(replaced_calls(norms, partial(_with_rms_norm, normed)))
    else:
        changed.enter_context(norms_shifted_once(module))
    if forms.convolutions == "shifted":
        changed.enter_context(shifted_convolutions(module))
    return changed


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """`silu(gate) * x`, all three of one shape, as mlx-lm's (mlx_lm/models/activations.py, 0.32)."""
    return _first(_swiglu(gate, x))


def gelu_approx(x: mx.array) -> mx.array:
    """The tanh form of GELU, in the shape and type of `x`; as `mlx.nn.gelu_approx` but for the last place."""
    return _first(_gelu(x, mx.array(0.0)))


def adapted(layer: LoRALinear, x: mx.array, normed: LastNormed) -> mx.array:
    """LoRALinear (mlx_lm/tuner/lora.py, 0.32) with the scale on the small matrix instead of on the wide result.

    `normed` is what a norm gave last, which may be `x`.
    """
    plain, kept = layer.linear(x), layer.dropout(x)
    parts = normed.parts_of(kept)
    narrow = kept @ layer.lora_a if parts is None else narrowed(kept, layer.lora_a, parts)
    scaled = layer.scale * layer.lora_b
    if plain.dtype == scaled.dtype:
        return mx.addmm(plain, narrow, scaled)
    return plain + (narrow @ scaled).astype(plain.dtype)


def rms_norm(x: mx.array, weight: mx.array, eps: float, normed: LastNormed | None = None) -> mx.array:
    """`mx.fast.rms_norm` over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467); `normed` is told of it."""
    given, shrink = cast(tuple[mx.array, mx.array], _rms_norm(eps)(x, weight))
    if normed is not None:
        normed.note(given, Normed(x=x, shrink=shrink, weight=weight))
    return given


@mx.custom_function
def _swiglu(gate: mx.array, x: mx.array) -> tuple[mx.array, mx.array]:
    sigma = SILU.kept(gate)
    return SILU.value(gate, sigma) * x, sigma


@_swiglu.vjp
def _swiglu_gradients(primals: Arrays, cotangents: Arrays, outputs: Arrays) -> tuple[mx.array, mx.array]:
    (gate, x), sigma = primals, outputs[1]
    silu = SILU.value(gate, sigma)
    return cotangents[0] * x * SILU.derivative(gate, sigma, silu), cotangents[0] * silu


@mx.custom_function
def _gelu(x: mx.array, _: mx.array) -> tuple[mx.array, mx.array]:
    bend = GELU.kept(x)
    return GELU.value(x, bend), bend


@_gelu.vjp
def _gelu_gradients(primals: Arrays, cotangents: Arrays, outputs: Arrays) -> tuple[mx.array, mx.array]:
    x, bend = primals[0], outputs[1]
    return cotangents[0] * GELU.derivative(x, bend, outputs[0]), mx.zeros_like(primals[1])


@lru_cache
def _rms_norm(eps: float) -> Any:
    """The function for one `eps`: (x, weight) -> (normed, (..., 1) float32 reciprocals of the root mean square)."""

    @mx.custom_function
    def normed(x: mx.array, weight: mx.array) -> tuple[mx.array, mx.array]:
        wide = x.astype(mx.float32)
        shrink = mx.rsqrt(mx.mean(wide * wide, axis=-1, keepdims=True) + eps)
        return weight * (wide * shrink).astype(x.dtype), shrink

    @normed.vjp
    def gradients(primals: Arrays, cotangents: Arrays, outputs: Arrays) -> tuple[mx.array, mx.array]:
        (x, weight), shrink = primals, outputs[1]
        unit, of_normed = x.astype(mx.float32) * shrink, cotangents[0].astype(mx.float32)
        weighted = of_normed * weight
        of_x = shrink * (weighted - unit * mx.mean(weighted * unit, axis=-1, keepdims=True))
        of_weight = (of_normed * unit).reshape(-1, x.shape[-1]).sum(axis=0)
        return of_x.astype(x.dtype), of_weight.astype(weight.dtype)

    return normed


def _first(outputs: Any) -> mx.array:
    return cast(mx.array, outputs[0])


def _names_gelu(layer: nn.Module) -> bool:
    call = type(layer).__call__
    return isinstance(call, FunctionType) and "gelu_approx" in call.__code__.co_names


def _with_gelu(library: ModuleType) -> SimpleNamespace:
    return SimpleNamespace(**(vars(library) | {"gelu_approx": gelu_approx}))


def _with_small_scale(normed: LastNormed, _: Call) -> Call:
    return lambda layer, x: adapted(layer, x, normed)


def _with_rms_norm(normed: LastNormed, _: Call) -> Call:
    return lambda layer, x: rms_norm(x, layer["weight"], layer.eps, normed)
