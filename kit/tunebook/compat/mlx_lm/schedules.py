"""mlx-lm's `lr_schedule` by this kit's settings, where both give the same rates.

A schedule of this kit ends with its run. mlx-lm's goes on for as many updates as it is told, and behind a warm-up takes
the highest rate twice, so that its rates are one update later.
"""

from collections.abc import Mapping
from typing import Any

from ..told import tell

TWICE = (
    "lr_schedule: the highest rate is taken once behind the warm-up here, and twice in mlx-lm; the rest is one later."
)

NEXT_TO_NOTHING = 0.01  # of the highest rate; mlx-lm's own example begins at 1e-7 on the way to 1e-5


def schedule_settings(schedule: Mapping[str, Any] | None, learning_rate: float, updates: int) -> dict[str, Any]:
    """The rate and its schedule over a run of so many `updates`. Raises ValueError for rates that cannot be had."""
    if not schedule:
        return {"learning_rate": learning_rate, "lr_scheduler_type": "constant", "warmup_steps": 0}
    name, warmup = schedule.get("name"), schedule.get("warmup", 0)
    arguments: list[Any] = list(schedule.get("arguments") or [])
    if name == "cosine_decay" and len(arguments) in (2, 3):
        (highest, length), end, kind = arguments[:2], arguments[2] if len(arguments) == 3 else 0.0, "cosine"
        as_written = [highest, updates - warmup, *arguments[2:]]
    elif name == "linear_schedule" and len(arguments) == 3:
        (highest, end, length), kind = arguments, "linear"
        as_written = [highest, end, updates - warmup]
    else:
        raise ValueError(
            f"lr_schedule is {name!r} with {len(arguments)} arguments, which is not here. Write cosine_decay or "
            "linear_schedule, or leave lr_schedule out: the rate is then constant."
        )
    begins = schedule.get("warmup_init", 0.0)
    if begins > NEXT_TO_NOTHING * highest:
        raise ValueError(
            f"lr_schedule.warmup_init is {begins}, and a warm-up begins at 0 here; write warmup_init: 0.0, or leave "
            "it out."
        )
    if not 0 <= end < highest:
        raise ValueError(f"lr_schedule goes from {highest} to {end}, and a schedule falls here; give a lower end.")
    if length != updates - warmup:
        raise ValueError(
            f"lr_schedule falls over {length} updates, and this run has {updates}, of which {warmup} are the warm-up. "
            f"A schedule ends with its run here; write arguments: {as_written}, or iters that fit."
        )
    if warmup:
        tell(TWICE)
    if begins:
        tell(f"lr_schedule.warmup_init is {begins}; a warm-up begins at 0 here, which is as good as that.")
    if learning_rate not in (highest, DEFAULT_RATE):
        tell(f"learning_rate is {learning_rate}, and lr_schedule begins at {highest}, which counts, as in mlx-lm.")
    return {
        "learning_rate": highest,
        "lr_scheduler_type": kind,
        "warmup_steps": warmup,
        "min_lr_rate": end / highest,
    }


DEFAULT_RATE = 1e-5  # mlx-lm's, where none is given
