"""Learning rates, clipping and the optimizer: gradients in, updated parameters out.

Schedules are the formulas of transformers 5 (`optimization.py`), as plain functions of the step. Norms and decay are
computed in float32 whatever the parameters are kept in.
"""

import math
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
from mlx.utils import tree_map, tree_map_with_path

from .config import TrainingConfig
from .tensors import flat

Gradients = dict  # a tree of arrays, shaped like the trainable parameters


def learning_rate(config: TrainingConfig, total_steps: int) -> Callable[[int], float]:
    """`rate(step)`, 1-based: linear warm-up from 0, then the schedule down to `min_lr_rate * learning_rate`.

    As in transformers the first step of a warm-up has rate 0, and linear and cosine reach their end one step after
    the last.
    """
    shape = {
        "linear": lambda progress: 1.0 - progress,
        "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
        "constant": lambda _: 1.0,
    }[config.lr_scheduler_type]

    def rate(step: int) -> float:
        done = step - 1
        if done < config.warmup_steps:
            return config.learning_rate * done / config.warmup_steps
        progress = (done - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
        floor = config.min_lr_rate
        return config.learning_rate * (floor + (1.0 - floor) * max(0.0, shape(progress)))

    return rate


def global_norm(gradients: Gradients) -> mx.array:
    """The L2 norm over all gradients together, a float32 scalar."""
    squares = [mx.square(gradient.astype(mx.float32)).sum() for gradient in flat(gradients).values()]
    return mx.sqrt(sum(squares, mx.array(0.0)))


def clip_by_global_norm(gradients: Gradients, norm: mx.array, max_norm: float) -> Gradients:
    """Scale all gradients by the same factor so that their global norm is at most `max_norm`; types are kept."""
    factor = mx.minimum(1.0, max_norm / (norm + 1e-6))  # 1e-6 as in torch.nn.utils.clip_grad_norm_
    return tree_map(lambda gradient: (gradient.astype(mx.float32) * factor).astype(gradient.dtype), gradients)


def make_optimizer(config: TrainingConfig, module: nn.Module) -> mlx.optimizers.Optimizer:
    """AdamW with bias correction (Loshchilov & Hutter 2019, arXiv 1711.05101), its state made for `module`.

    Weight decay is left to `update`, which knows what must not be decayed.
    """
    optimizer = mlx.optimizers.Adam(
        learning_rate=config.learning_rate,
        betas=[config.adam_beta1, config.adam_beta2],
        eps=config.adam_epsilon,
        bias_correction=True,
    )
    optimizer.init(module.trainable_parameters())
    return optimizer


def update(
    module: nn.Module, gradients: Gradients, optimizer: mlx.optimizers.Optimizer, *, rate: float, weight_decay: float
) -> None:
    """One optimizer step on `module`, in place: decoupled decay, then the optimizer's own update. Not yet evaluated."""
    optimizer.learning_rate = rate
    if weight_decay:
        keep = 1.0 - rate * weight_decay
        module.update(
            tree_map_with_path(
                lambda path, value: (value.astype(mx.float32) * keep).astype(value.dtype) if decays(path) else value,
                module.trainable_parameters(),
            )
        )
    optimizer.update(module, gradients)


def decays(path: str) -> bool:
    """Whether the parameter at `path` is decayed: everything but biases and norms (`*norm*`, `ln_*`)."""
    names = path.split(".")
    return names[-1] != "bias" and not any("norm" in name or name.startswith("ln_") for name in names)
