"""Learning rates: the formulas of transformers 5 (transformers/optimization.py), as plain functions of the step."""

import math
from collections.abc import Callable

from ...config import TrainingConfig

Shape = Callable[[float], float]  # the share of the run behind the warm-up that is done -> share of the rate
DECAY_SHARE = 0.2  # of the steps, at the end of warmup_stable_decay (Hägele et al. 2024, arXiv 2405.18392)
TIMESCALE = 10_000  # steps, of inverse_sqrt without a warm-up


def learning_rate(config: TrainingConfig, total_steps: int) -> Callable[[int], float]:
    """`rate(step)`, 1-based: linear warm-up from 0, then the schedule down to `min_lr_rate * learning_rate`.

    As in transformers the first step of a warm-up has rate 0, and schedules reach their end one step after the last.
    With a minimum, cosine is its `cosine_with_min_lr`, polynomial's is its `lr_end`, and warmup_stable_decay, whose
    `min_lr_ratio` it is, begins its warm-up there too; `constant` is its `constant_with_warmup`.
    """
    warmup, floor = config.warmup(total_steps), config.min_lr_rate
    behind = max(1, total_steps - warmup)
    shape = _shape(config, warmup, behind, total_steps)
    lowest = floor if config.lr_scheduler_type == "warmup_stable_decay" else 0.0

    def rate(step: int) -> float:
        done = step - 1
        if done < warmup:
            return config.learning_rate * (lowest + (1.0 - lowest) * done / warmup)
        return config.learning_rate * (floor + (1.0 - floor) * max(0.0, shape((done - warmup) / behind)))

    return rate


def _shape(config: TrainingConfig, warmup: int, behind: int, total_steps: int) -> Shape:
    """How the rate falls from 1 in the `behind` steps after the warm-up."""
    own = config.lr_scheduler_kwargs or {}
    match config.lr_scheduler_type:
        case "linear":
            return DECAYS["linear"]
        case "cosine":
            return DECAYS["cosine"]
        case "constant" | "constant_with_warmup":
            return lambda _: 1.0
        case "cosine_with_restarts":
            cycles = own.get("num_cycles", 1)
            return lambda done: DECAYS["cosine"](cycles * done % 1.0) if done < 1 else 0.0
        case "polynomial":
            power = own.get("power", 1.0)
            return lambda done: max(0.0, 1.0 - done) ** power
        case "inverse_sqrt":
            scale = own.get("timescale") or warmup or TIMESCALE
            return lambda done: 1.0 / math.sqrt(1.0 + done * behind / scale)
        case "warmup_stable_decay":
            decay = own.get("num_decay_steps") or math.ceil(DECAY_SHARE * total_steps)
            falls = DECAYS[own.get("decay_type", "cosine")]
            return lambda done: falls(min(1.0, max(0.0, 1.0 - (1.0 - done) * behind / decay)))


DECAYS: dict[str, Shape] = {
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "1-sqrt": lambda done: 1.0 - math.sqrt(done),
}


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
