"""How learning rates may fall, by the names of transformers, and what each of these schedules can be told besides.

A schedule and its extra settings in, sentences on those it does not take out. What each is computes
`train/optim/schedules.py`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from .values import Count, Positive, Unfit, complaint, read

Schedule = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "warmup_stable_decay",
]
KWARGS: Mapping[Schedule, Mapping[str, Any]] = {
    "cosine_with_restarts": {"num_cycles": Count},
    "polynomial": {"power": Positive},
    "inverse_sqrt": {"timescale": Count},
    "warmup_stable_decay": {"num_decay_steps": Count, "decay_type": Literal["cosine", "linear", "1-sqrt"]},
}
_FLOORS = ("min_lr", "min_lr_rate", "min_lr_ratio", "lr_end")  # what transformers' schedules end at


def said_of_kwargs(schedule: Schedule, given: Mapping[str, Any]) -> list[str]:
    """A sentence for each of `given` that `schedule` does not take, or not so.

    >>> said_of_kwargs("polynomial", {"power": 2.0})
    []
    """
    known, wrong = KWARGS.get(schedule, {}), []
    for name, value in given.items():
        if name in _FLOORS:
            wrong.append(f"lr_scheduler_kwargs has {name!r}; write min_lr_rate, a share of learning_rate, beside it.")
        elif name not in known:
            takes = f"it takes {' and '.join(known)}" if known else "it takes none"
            wrong.append(f"lr_scheduler_kwargs has {name!r}, which {schedule} does not take; {takes}.")
        else:
            try:
                read(value, known[name])
            except Unfit:
                wrong.append(complaint(f"lr_scheduler_kwargs[{name!r}]", value, known[name]))
    return wrong
