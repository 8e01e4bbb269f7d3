"""Whether a pass gives the loss and the gradients of the plain one: two passes in, how far they are apart out."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from ...data.encoded import Batch
from ...machine import runtime
from ...models.tensors import called_with, flat, number, random_key, set_random_key
from ...objectives.base import Summed

Pass = Callable[[Batch, mx.array], tuple[Summed, Any]]  # (batch, positions) -> ((nats, Sums), gradients)

NOISE = 0.01  # of B matrices in a proof: as they begin, in zeros, A's gradients are zero whatever computes them


@dataclass(frozen=True)
class Passed:
    """What a pass came to, evaluated."""

    nats: float
    gradients: dict[str, mx.array]  # by dotted name


def passed(module: nn.Module, one_pass: Pass, batch: Batch, positions: mx.array) -> Passed:
    """A pass with B matrices that are not zero; `module` and MLX's random state are afterwards as they were."""
    key = random_key()
    try:
        (nats, _), gradients = called_with(module, _noisy(module), lambda: one_pass(batch, positions))
        mx.eval(nats, gradients)
        return Passed(number(nats), flat(gradients))
    finally:
        set_random_key(key)


def distance(found: Passed, plain: Passed) -> float:
    """How far the one is from the other, relative: of the loss and of each kind of gradient, what is furthest.

    A kind is what is named alike in every layer, `lora_a` for one: small gradients are not lost among large ones. NaN
    where anything is.
    """
    loss = abs(found.nats - plain.nats) / max(abs(plain.nats), 1e-6)
    kinds: dict[str, list[str]] = {}
    for name in plain.gradients:
        kinds.setdefault(name.rpartition(".")[2], []).append(name)
    far = [loss]
    for names in kinds.values():
        whole = _norm([plain.gradients[name] for name in names])
        apart = _norm([found.gradients[name].astype(mx.float32) - plain.gradients[name] for name in names])
        far.append(apart / whole if whole else apart)
    return math.nan if any(math.isnan(each) for each in far) else max(far)


def tolerance_of(dtype: mx.Dtype) -> float:
    """How far rounding may take states and gradients, relative: the root of the epsilon of products, and at least 1%.

    That is 9% in bfloat16, where the states of 24 layers of random weights stray by 2.5%. In float32 the angles of far
    positions are what is inexact. What is computed wrongly is off by a third and more.
    """
    return max(0.01, math.sqrt(runtime.product_rounding(dtype)))


def _noisy(module: nn.Module) -> dict[str, mx.array]:
    """The trainable B matrices of `module` with noise on them, the same whenever it is asked for."""
    matrices = {name: value for name, value in flat(module.trainable_parameters()).items() if name.endswith(".lora_b")}
    keys = mx.random.split(mx.random.key(0), max(1, len(matrices)))
    return {
        name: value + NOISE * mx.random.normal(value.shape, value.dtype, key=key)
        for (name, value), key in zip(matrices.items(), cast("list[mx.array]", list(keys)), strict=False)
    }


def _norm(arrays: list[mx.array]) -> float:
    return number(mx.sqrt(sum((array.astype(mx.float32).square().sum() for array in arrays), start=mx.array(0.0))))
