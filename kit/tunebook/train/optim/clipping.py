"""Gradients in, gradients within a limit out, and their norm, which is computed in float32 whatever their type."""

from collections.abc import Callable

import mlx.core as mx
from mlx.utils import tree_map

from ...config import TrainingConfig
from ...machine import runtime
from ...models.tensors import flat

Gradients = dict  # a tree of arrays, shaped like the trainable parameters

SUM_BLOCK = 1024  # elements added one after another


def clip(gradients: Gradients, config: TrainingConfig) -> tuple[Gradients, mx.array]:
    """(gradients within the limit of `config.clipping`, their global L2 norm before); types are kept.

    The norm is a float32 scalar. Nothing is evaluated.
    """
    norm = global_norm(gradients)
    match config.clipping:
        case ("max_grad_norm", limit):
            factor = _factor(norm, limit)
            return _in_float32(lambda gradient: gradient * factor, gradients), norm
        case ("max_grad_leaf_norm", limit):
            return _in_float32(lambda gradient: gradient * _factor(global_norm(gradient), limit), gradients), norm
        case ("max_grad_value", limit):
            return _in_float32(lambda gradient: mx.clip(gradient, -limit, limit), gradients), norm
        case _:
            return gradients, norm


def global_norm(gradients: Gradients | mx.array) -> mx.array:
    """The L2 norm over all gradients together, a float32 scalar."""
    squares = [_sum(mx.square(gradient.astype(mx.float32))) for gradient in flat(gradients).values()]
    return mx.sqrt(sum(squares, mx.array(0.0)))


def _sum(values: mx.array) -> mx.array:
    """The sum of all elements, in blocks of blocks on the CPU.

    There MLX 0.32 adds one after another in float32, and a hundred million squares come out a quarter short.
    """
    if runtime.backend() != "cpu":
        return values.sum()
    values = values.reshape(-1)
    while values.size > SUM_BLOCK:
        whole = values.size // SUM_BLOCK * SUM_BLOCK
        values = mx.concatenate([values[:whole].reshape(-1, SUM_BLOCK).sum(axis=1), values[whole:]])
    return values.sum()


def _factor(norm: mx.array, limit: float) -> mx.array:
    return mx.minimum(1.0, limit / (norm + 1e-6))  # 1e-6 as in torch.nn.utils.clip_grad_norm_


def _in_float32(function: Callable[[mx.array], mx.array], gradients: Gradients) -> Gradients:
    return tree_map(lambda gradient: function(gradient.astype(mx.float32)).astype(gradient.dtype), gradients)
