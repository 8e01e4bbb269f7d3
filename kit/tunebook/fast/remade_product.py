"""A gated MLP on a GPU: a kernel each for its product, for the same made again, and for the gradients of gate and up.

`down(curve(gate) * up)` as in `gated_mlp.py`, and of arrays as wide as the MLP only `gate` and `up` are kept: for a GPU
what the curve's derivative is made from is cheaper made again than read. Operations stand here so that MLX's compiler,
which fuses element-wise ones that nothing else looks at, finds long chains.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import cast

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner.lora import LoRALinear

from ..models.tensors import flat
from .activation_functions import Curve

Arrays = Sequence[mx.array]
Otherwise = Callable[[nn.Module, mx.array, mx.array, Curve], mx.array]


def down_of_remade(down: nn.Module, gate: mx.array, up: mx.array, curve: Curve, otherwise: Otherwise) -> mx.array:
    """`down(curve(gate) * up)`, (..., D); `gate` and `up` are (..., I), and `down` draws no random numbers.

    Where more of `down` is trained than an adapter, `otherwise` is what gives it.
    """
    if type(down) is LoRALinear and set(flat(down.trainable_parameters())) <= {"lora_a", "lora_b"}:
        plain, adapted, _ = _adapted(down, curve)([gate, up, down.lora_a, down.lora_b])
        return plain + (down.scale * adapted).astype(plain.dtype)
    if not down.trainable_parameters():
        return down(product_of(curve)(gate, up))
    return otherwise(down, gate, up, curve)


@cache
def product_of(curve: Curve) -> Callable[[mx.array, mx.array], mx.array]:
    """The function (gate, up) -> `curve(gate) * up`, all of one shape, which keeps its inputs alone."""

    @mx.custom_function
    def product(gate: mx.array, up: mx.array) -> mx.array:
        return _product(curve, gate, up)

    @product.vjp
    def gradients(primals: Arrays, cotangent: mx.array, _output: mx.array) -> tuple[mx.array, mx.array]:
        gate, up = mx.depends(list(primals), [cotangent])
        (again,) = mx.depends(list(primals[:1]), [cotangent])  # not the one above, or what both need would not be fused
        return _of_gate(curve, gate, up, cotangent), _of_up(curve, again, cotangent)

    return cast("Callable[[mx.array, mx.array], mx.array]", product)


def _adapted(down: LoRALinear, curve: Curve) -> Callable[[list[mx.array]], list[mx.array]]:
    """The function [gate, up, A (I, R), B (R, D)] -> [product W, product A B, product A] of a frozen W (I, D)."""

    @mx.custom_function
    def through(inputs: list[mx.array]) -> list[mx.array]:
        gate, up, a, b = inputs
        product = _product(curve, gate, up)
        narrow = product @ a
        return [down.linear(product), narrow @ b, narrow]

    @through.vjp
    def gradients(inputs: list[mx.array], cotangents: Arrays, outputs: Arrays) -> list[mx.array]:
        gate, up, a, b = inputs
        of_plain, of_adapted, _ = cotangents
        of_narrow = of_adapted @ b.T
        # Behind the gradient that comes back, or a compiler would find the product at hand and keep it for this. And
        # each time anew, or it would have what several need by itself, in one more kernel.
        behind = [of_adapted]
        plain, adapted = _of_input(down.linear, up, of_plain), of_narrow @ a.T
        gate_1, up_1 = mx.depends([gate, up], behind)
        gate_2, up_2 = mx.depends([gate, up], behind)
        gate_3, plain_3, adapted_3 = mx.depends([gate, plain, adapted], behind)
        return [
            _of_gate(curve, gate_2, up_2, plain + adapted.astype(plain.dtype)),
            _of_up(curve, gate_3, plain_3 + adapted_3.astype(plain.dtype)),
            _over_tokens(_product(curve, gate_1, up_1).astype(a.dtype), of_narrow),
            _over_tokens(outputs[2], of_adapted),
        ]

    return cast("Callable[[list[mx.array]], list[mx.array]]", through)


def _of_input(layer: nn.Module, like: mx.array, cotangent: mx.array) -> mx.array:
    """The gradient for the input of a frozen linear layer, which may be any of the shape and type of `like`."""
    _, (gradient,) = mx.vjp(lambda x: layer(x), [like], [cotangent])
    return gradient


def _product(curve: Curve, gate: mx.array, up: mx.array) -> mx.array:
    return curve.value(gate, curve.kept(gate)) * up


def _of_gate(curve: Curve, gate: mx.array, up: mx.array, cotangent: mx.array) -> mx.array:
    kept = curve.kept(gate)
    return cotangent * up * curve.derivative(gate, kept, curve.value(gate, kept))


def _of_up(curve: Curve, gate: mx.array, cotangent: mx.array) -> mx.array:
    return cotangent * curve.value(gate, curve.kept(gate))


def _over_tokens(x: mx.array, y: mx.array) -> mx.array:
    """(N, M): the sum over tokens of the outer products of x (..., N) and y (..., M)."""
    return x.reshape(-1, x.shape[-1]).T @ y.reshape(-1, y.shape[-1])
