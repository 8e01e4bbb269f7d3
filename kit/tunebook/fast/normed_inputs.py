"""Adapters behind an RMS norm, trained without keeping what the norm gives.

For the gradient of its A an adapter needs its input h (N, D). Behind a norm that is h = weight * (shrink * x), where
the norm keeps x (N, D) and shrink (N, 1) for its own gradient anyway, and

    h^T g = weight * (x^T (shrink * g))        for the gradient g (N, R) of h A,

so h itself is not needed, and nothing as wide as it is computed for that. An adapter finds out whether its input is
what a norm gave by asking whether it is that very array.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final
from weakref import ReferenceType, ref

import mlx.core as mx


@dataclass(frozen=True, kw_only=True)
class Normed:
    """What a norm gave, in parts."""

    x: mx.array  # (..., D)
    shrink: mx.array  # (..., 1), float32
    weight: mx.array  # (D,)


@final
class LastNormed:
    """What the norm that was called last gave, as long as somebody holds that."""

    def __init__(self):
        self._given: ReferenceType[mx.array] | None = None
        self._parts: Normed | None = None

    def note(self, given: mx.array, parts: Normed) -> None:
        """That a norm gave `given`."""
        self._given, self._parts = ref(given, self._forget), parts

    def parts_of(self, x: mx.array) -> Normed | None:
        """What `x` was made of; None where it is not what the last norm gave."""
        return self._parts if self._given is not None and self._given() is x else None

    def _forget(self, gone: ReferenceType[mx.array]) -> None:
        if gone is self._given:
            self._given = self._parts = None


def narrowed(x: mx.array, lora_a: mx.array, parts: Normed) -> mx.array:
    """`x @ lora_a`, (..., R), for `x` (..., D) of these parts and `lora_a` (D, R)."""

    @mx.custom_function
    def product(x: mx.array, lora_a: mx.array) -> mx.array:
        return x @ lora_a

    @product.vjp
    def gradients(primals: Sequence[mx.array], of_narrow: mx.array, _: mx.array) -> tuple[mx.array, mx.array]:
        given, lora_a = primals
        shrunk = (parts.shrink * of_narrow).reshape(-1, of_narrow.shape[-1])
        rows = parts.x.reshape(-1, parts.x.shape[-1])
        of_a = parts.weight[:, None] * (rows.T @ shrunk)
        return (of_narrow @ lora_a.T).astype(given.dtype), of_a.astype(lora_a.dtype)

    return product(x, lora_a)  # type: ignore[return-value]
