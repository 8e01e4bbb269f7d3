"""Learning rates: the formulas of transformers 5 (transformers/optimization.py), as plain functions of the step."""

import math
from collections.abc import Callable

from ...config import TrainingConfig


def learning_rate(config: TrainingConfig, total_steps: int) -> Callable[[int], float]:
    """`rate(step)`, 1-based: linear warm-up from 0, then the schedule down to `min_lr_rate * learning_rate`.

    As in transformers the first step of a warm-up has rate 0, and linear and cosine reach their end one step after
    the last. With a minimum, cosine is its `cosine_with_min_lr`; `constant` is its `constant_with_warmup`.
    """
    warmup, floor = config.warmup(total_steps), config.min_lr_rate
    shape = {
        "linear": lambda progress: 1.0 - progress,
        "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
        "constant": lambda _: 1.0,
    }[config.lr_scheduler_type]

    def rate(step: int) -> float:
        done = step - 1
        if done < warmup:
            return config.learning_rate * done / warmup
        progress = (done - warmup) / max(1, total_steps - warmup)
        return config.learning_rate * (floor + (1.0 - floor) * max(0.0, shape(progress)))

    return rate


def said_of_the_warmup(config: TrainingConfig, total_steps: int) -> list[str]:
    """A sentence about a warm-up that does not end within the run, and leaves its rates lower than was asked for."""
    warmup, rate = config.warmup(total_steps), learning_rate(config, total_steps)
    highest = max(rate(step) for step in (total_steps, min(warmup + 1, total_steps)))
    if warmup < total_steps:
        return []
    setting = "warmup_steps" if config.warmup_ratio is None else "warmup_ratio"
    move = f"Set {setting}=0, or train for longer"
    if highest == 0:
        return [
            f"This run learns nothing: its warm-up of {warmup} begins at a learning rate of 0 and it has {total_steps} "
            f"step, so no weight is changed. {move}."
        ]
    return [
        f"The warm-up of {warmup} steps does not end within this run of {total_steps}: its highest learning rate is "
        f"{highest:.3g}, not {config.learning_rate:.3g}. {move}."
    ]
